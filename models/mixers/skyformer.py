"""Skyformer (Chen et al., 2021, arXiv:2111.00035).

    y = kappa(Q, S) (kappa(S, S) + ridge I)^-1 kappa(S, K) v,    kappa(a, b) = exp(-|a - b|^2 / (2 sqrt(K)))

S are M landmarks, half of them queries and half keys: a Nystrom approximation, within the kernel matrix of all
queries and keys together, of kernelized attention, y = kappa(Q, K) v (`kind="kernelized"`, quadratic). Neither
divides by a sum: results grow with the example's length n. The inverse is `models.newton_schulz`, six steps, of
D^-1/2 (kappa(S, S) + ridge I) D^-1/2 with D the row sums, whose largest eigenvalue is 1.

Landmarks are sampled uniformly with replacement, floor(u n) for u in [0, 1), the same for all heads. Deviations
from the authors' code (pkuzengqi/Skyformer): u is drawn per example while training and kept in evaluation (there: for a
whole batch, and anew in evaluation too); the inverse starts from a scale of each head of each example (there: of
the whole batch); the width in kappa is that of the head (there: always 32, the only one used). As there, the
protocol's dropout applies to the weights of kernelized attention, and not to Skyformer's factors, which are no weights.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from models.core import Buffer, Dims, QKVAttention
from models.dropout import attention_dropout
from models.newton_schulz import iterative_inverse
from models.ops import boolean_mask

COMPLEXITY = ("L", "L")


def gaussian(a: jax.Array, b: jax.Array) -> jax.Array:
    """kappa: a [B, H, L, K], b [B, H, M, K] -> [B, H, L, M], at most 1.

    In full precision on accelerators too: the distance is a small difference of large numbers.
    """
    product = jnp.einsum("bhlk,bhmk->bhlm", a, b, precision=jax.lax.Precision.HIGHEST)
    norms = (a * a).sum(-1)[..., :, None] + (b * b).sum(-1)[..., None, :]
    return jnp.exp(-jax.nn.relu(norms / 2 - product) / math.sqrt(a.shape[-1]))


def sample(x: jax.Array, u: jax.Array, mask: jax.Array) -> jax.Array:
    """Rows floor(u n) of each example: x [B, H, L, K], u [B, M] in [0, 1), mask [B, L] -> [B, H, M, K]."""
    mask = boolean_mask(mask)
    n = mask.sum(1)[:, None]
    rows = jnp.clip((u * n).astype(jnp.int32), 0, jnp.maximum(n - 1, 0))
    return jax.vmap(lambda x, row: x[:, row])(x, rows)


def nystrom(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, landmarks: jax.Array, ridge: float = 0.1, steps: int = 6
) -> jax.Array:
    """q, k [B, H, L, K], v [B, H, L, V], mask [B, L], landmarks [B, H, M, K] -> [B, H, L, V], float32 or wider."""
    mask = boolean_mask(mask)
    kernel = gaussian(landmarks, landmarks)
    kernel = kernel + ridge * jnp.eye(kernel.shape[-1], dtype=kernel.dtype)[None, None]
    root = jax.lax.rsqrt(kernel.sum(-1))  # [B, H, M]
    kernel = kernel * root[..., :, None] * root[..., None, :]
    # Symmetric with largest eigenvalue 1: the largest column sum alone bounds it, a nearer start than its square.
    inverse = iterative_inverse(kernel, steps, kernel.sum(-2).max(-1))
    seen = jnp.einsum("bhml,bhlv->bhmv", gaussian(landmarks, k), jnp.where(mask[:, None, :, None], v, 0))
    seen = jnp.einsum("bhmn,bhnv->bhmv", inverse, seen * root[..., None]) * root[..., None]
    return jnp.einsum("bhlm,bhmv->bhlv", gaussian(q, landmarks), seen)


class Skyformer(QKVAttention):
    """Attention with a Gaussian kernel, through landmarks or exact.

    kind:     skyformer; kernelized = exact, quadratic in L, without landmarks
    features: M, the number of landmarks, at most 2 dims.max_len
    ridge:    added to the diagonal of kappa(S, S), which is singular where a landmark is sampled twice
    steps:    of the iteration for the inverse
    """

    def __init__(
        self,
        dims: Dims,
        *,
        kind: Literal["skyformer", "kernelized"] = "skyformer",
        features: int = 128,
        ridge: float = 0.1,
        steps: int = 6,
        rngs: nnx.Rngs,
    ) -> None:
        if kind not in ("skyformer", "kernelized"):
            raise ValueError(f"skyformer: kind {kind!r} is neither skyformer nor kernelized")
        if features < 2 or steps < 1 or ridge <= 0:
            raise ValueError(
                f"skyformer: features {features} must be at least 2 (a query and a key), "
                f"steps {steps} at least 1, ridge {ridge} positive"
            )
        super().__init__(dims, rngs=rngs)
        self.kind, self.ridge, self.steps = kind, ridge, steps
        if kind == "skyformer":
            shape = (min(features, 2 * dims.max_len),)
            self.fractions = Buffer(jax.random.uniform(rngs.params(), shape, jnp.float32))

    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: jax.Array | None
    ) -> jax.Array:
        dtype, accum_dtype = v.dtype, jnp.promote_types(q.dtype, jnp.float32)
        q, k, v = (x.swapaxes(1, 2).astype(accum_dtype) for x in (q, k, v))
        if self.kind == "kernelized":
            weights = jnp.where(mask[:, None, None, :], gaussian(q, k), 0)
            y = jnp.einsum("bhij,bhjv->bhiv", attention_dropout(weights, self.dims.dropout, rng_keys), v)
        else:
            fractions = self.fractions[...]
            if rng_keys is None:
                u = jnp.broadcast_to(fractions, (len(q), *fractions.shape))
            else:
                u = jax.vmap(lambda key: jax.random.uniform(key, fractions.shape, jnp.float32))(rng_keys)
            of_q, of_k = u[:, : u.shape[1] // 2], u[:, u.shape[1] // 2 :]
            landmarks = jnp.concatenate([sample(q, of_q, mask), sample(k, of_k, mask)], 2)
            y = nystrom(q, k, v, mask, landmarks, self.ridge, self.steps)
        return y.swapaxes(1, 2).astype(dtype)
