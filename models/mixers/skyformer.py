"""Skyformer (Chen et al., 2021, arXiv:2111.00035).

    y = kappa(Q, S) (kappa(S, S) + ridge I)^-1 kappa(S, K) v,    kappa(a, b) = exp(-|a - b|^2 / (2 sqrt(K)))

S are M landmarks, half of them queries and half keys. This is a Nystrom approximation, within the kernel matrix of all
queries and keys together, of kernelized attention y = kappa(Q, K) v (`kind="kernelized"`, quadratic). Neither is
normalised by a sum, so results grow with the example's length n. The inverse is six steps of `models.newton_schulz`
for D^-1/2 (kappa(S, S) + ridge I) D^-1/2, where D are the row sums; the largest eigenvalue of this matrix is 1.

Landmarks are sampled uniformly with replacement as floor(u n) for u in [0, 1), the same for all heads. The protocol's
attention dropout applies to the weights of kernelized attention. It does not apply to the factors of Skyformer, which
are not weights. The authors' code does the same.

Deviations from the authors' code (pkuzengqi/Skyformer):
- u is drawn per example in training and fixed in evaluation; there, once per batch, in evaluation too.
- The inverse starts from a scale of each head of each example; there, of the whole batch.
- The width in kappa is that of the head; there, always 32, the only width in use.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.core import MAX_SIZE, Buffer, Dims, QKVAttention, check_range
from models.dropout import attention_dropout
from models.newton_schulz import MAX_STEPS, iterative_inverse
from models.ops import boolean_mask

COMPLEXITY = ("L", "L")


def gaussian(a: Array, b: Array) -> Array:
    """Compute kappa of a [B, H, L, K] and b [B, H, M, K] -> [B, H, L, M], at most 1.

    The product is in full precision on accelerators too, because the distance is a small difference of large numbers.
    """
    product = jnp.einsum("bhlk,bhmk->bhlm", a, b, precision=jax.lax.Precision.HIGHEST)
    norms = (a * a).sum(-1)[..., :, None] + (b * b).sum(-1)[..., None, :]
    return jnp.exp(-jax.nn.relu(norms / 2 - product) / math.sqrt(a.shape[-1]))


def sample(x: Array, u: Array, mask: Array) -> Array:
    """Return the rows floor(u n) of each example: x [B, H, L, K], u [B, M] in [0, 1), mask [B, L] -> [B, H, M, K]."""
    mask = boolean_mask(mask)
    n = mask.sum(1)[:, None]
    rows = jnp.clip((u * n).astype(jnp.int32), 0, jnp.maximum(n - 1, 0))
    return jax.vmap(lambda x, row: x[:, row])(x, rows)


def nystrom(q: Array, k: Array, v: Array, mask: Array, landmarks: Array, ridge: float = 0.1, steps: int = 6) -> Array:
    """Compute Skyformer's attention in at least float32.

    Args:
      q, k:      [B, H, L, K]
      v:         [B, H, L, V]
      mask:      [B, L] bool, True = real token
      landmarks: [B, H, M, K]
      ridge:     added to the diagonal of kappa(S, S)
      steps:     iterations of the inverse

    Returns:
      [B, H, L, V]
    """
    mask = boolean_mask(mask)
    kernel = gaussian(landmarks, landmarks)
    kernel = kernel + ridge * jnp.eye(kernel.shape[-1], dtype=kernel.dtype)[None, None]
    root = jax.lax.rsqrt(kernel.sum(-1))  # [B, H, M]
    kernel = kernel * root[..., :, None] * root[..., None, :]
    # The largest eigenvalue is 1, so the largest column sum bounds its square; the default scale would be larger.
    inverse = iterative_inverse(kernel, steps, kernel.sum(-2).max(-1))
    y = jnp.einsum("bhml,bhlv->bhmv", gaussian(landmarks, k), jnp.where(mask[:, None, :, None], v, 0))
    y = jnp.einsum("bhmn,bhnv->bhmv", inverse, y * root[..., None]) * root[..., None]
    return jnp.einsum("bhlm,bhmv->bhlv", gaussian(q, landmarks), y)


class Skyformer(QKVAttention):
    """Attention with a Gaussian kernel, approximated by landmarks or exact.

    kind:     skyformer; kernelized = exact, quadratic in L, without landmarks
    features: M, the number of landmarks, at most 2 dims.max_len
    ridge:    added to the diagonal of kappa(S, S), which is singular if a landmark is sampled twice
    steps:    iterations of the inverse
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
        check_range(2, MAX_SIZE, features=features)  # a query and a key
        check_range(1, MAX_STEPS, steps=steps)
        check_range(1e-6, 1e3, ridge=ridge)
        super().__init__(dims, rngs=rngs)
        self.kind, self.ridge, self.steps = kind, ridge, steps
        if kind == "skyformer":
            shape = (min(features, 2 * dims.max_len),)
            self.fractions = Buffer(jax.random.uniform(rngs.params(), shape, jnp.float32))

    def attend(self, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None) -> Array:
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
            q_fractions, k_fractions = u[:, : u.shape[1] // 2], u[:, u.shape[1] // 2 :]
            landmarks = jnp.concatenate([sample(q, q_fractions, mask), sample(k, k_fractions, mask)], 2)
            y = nystrom(q, k, v, mask, landmarks, self.ridge, self.steps)
        return y.swapaxes(1, 2).astype(dtype)
