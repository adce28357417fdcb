"""Performer: softmax attention by positive orthogonal random features (Choromanski et al., 2021, arXiv:2009.14794).

    y_i = phi(q_i) . S / phi(q_i) . z,    S = sum_j phi(k_j) v_j^T,    z = sum_j phi(k_j),    over the real keys j
    softmax:  phi(x) = exp(W u - |u|^2 / 2 - c) + eps,  u = x / K^(1/4):  E phi(q) . phi(k) ~ exp(q . k / sqrt(K))
    relu:     phi(x) = relu(W x) + eps, and relu(x) + eps where there are no features

W [M, K] are rows of random orthogonal matrices with the lengths of Gaussian vectors: one W for all heads of a layer,
drawn once (a `Buffer`), or with `redraw` fresh for each example and step while training; the paper redraws now and
then. c cancels but for eps: a query's largest exponent; for keys the largest of the example's real keys in that head.
There is no L x L matrix whose entries could be dropped: the protocol's attention dropout does not apply.

Done differently: the authors' code has c from W u alone, so that long vectors sink below eps; here the largest
feature is 1. The orthogonal matrices are uniform: a bare QR, as the codes take it, fixes signs (the first row of a
block never starts with a positive entry), which biases the estimate. Pads are left out of S, z and c; the authors'
code has no mask, and adds 2e-6 to small denominators. M is K ln K as in lucidrains/performer-pytorch; the paper's
experiments have 256.

The reference suite runs `kernel=relu features=0`: linear attention, nothing random. Only on ListOps it runs `features=2
redraw=true`, drawing anew in evaluation too, from a seed made of the batch's queries: that is not reproduced.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from models.core import Buffer, Dims, QKVAttention
from models.ops import boolean_mask, kv_state

COMPLEXITY = ("L", "L")
EPS = {"softmax": 1e-6, "relu": 1e-3}


def orthogonal_features(key: jax.Array, count: int, width: int) -> jax.Array:
    """W [M, K], float32: each row is N(0, 1) in law, the first K rows are orthogonal, so are the next K, ..."""
    of_rows, of_lengths = jax.random.split(key)
    blocks = jax.random.normal(of_rows, (-(-count // width), width, width), jnp.float32)
    rows, triangle = jnp.linalg.qr(blocks)
    rows = rows * jnp.sign(jnp.diagonal(triangle, axis1=1, axis2=2))[:, None]  # uniform (Mezzadri, 2007)
    lengths = jnp.linalg.norm(jax.random.normal(of_lengths, (count, width), jnp.float32), axis=1, keepdims=True)
    return lengths * rows.swapaxes(1, 2).reshape(-1, width)[:count]


def performer_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, w: jax.Array | None = None, *,
    kernel: Literal["softmax", "relu"] = "softmax", eps: float = 1e-6,
) -> jax.Array:  # fmt: skip
    """Attention through features, in linear time and memory; sums in float32.

    Args:
      q:    [B, Lq, H, K]
      k:    [B, Lk, H, K]
      v:    [B, Lk, H, V]
      mask: [B, Lk]
      w:    [M, K], or [B, M, K]; None (relu only): the features are those of x itself

    Returns:
      [B, Lq, H, V], dtype of v. Zero where a query meets no key.
    """
    mask = boolean_mask(mask)
    dtype, accum_dtype = v.dtype, jnp.promote_types(q.dtype, jnp.float32)
    q, k, v = (x.astype(accum_dtype).swapaxes(1, 2) for x in (q, k, v))  # [B, H, L, K]
    keep = mask[:, None, :, None]
    if kernel == "softmax":
        q, k = (x / x.shape[-1] ** 0.25 for x in (q, k))
        half_q, half_k = ((x**2).sum(-1, keepdims=True) / 2 for x in (q, k))
    if w is not None:
        form = "bhlk,bmk->bhlm" if w.ndim == 3 else "bhlk,mk->bhlm"
        q, k = (jnp.einsum(form, x, w.astype(accum_dtype)) for x in (q, k))
    if kernel == "softmax":
        q, k = q - half_q, jnp.where(keep, k - half_k, jnp.finfo(accum_dtype).min)
        q = jnp.exp(q - jax.lax.stop_gradient(q.max(-1, keepdims=True)))
        k = jnp.exp(k - jax.lax.stop_gradient(k.max((2, 3), keepdims=True)))
    else:
        q, k = jax.nn.relu(q), jax.nn.relu(k)
    q, k = q + eps, jnp.where(keep, k + eps, 0)
    state = kv_state(k, v)
    total = jnp.einsum("bhim,bhm->bhi", q, k.sum(2))[..., None]
    y = jnp.einsum("bhim,bhmv->bhiv", q, state) / jnp.where(total > 0, total, 1)
    return y.swapaxes(1, 2).astype(dtype)


class Performer(QKVAttention):
    """FAVOR+ attention, or that of another kernel.

    kernel:   softmax, or relu
    features: M; None: K ln K, rounded down; 0 (relu only): none, the reference suite's form
    redraw:   fresh features for each example and step while training
    eps:      added to every feature; None: 1e-6 (softmax), 1e-3 (relu)
    """

    def __init__(
        self, dims: Dims, *, kernel: Literal["softmax", "relu"] = "softmax", features: int | None = None,
        redraw: bool = False, eps: float | None = None, rngs: nnx.Rngs,
    ) -> None:  # fmt: skip
        super().__init__(dims, rngs=rngs)
        if kernel not in EPS:
            raise ValueError(f"performer: kernel {kernel!r} is not one of {', '.join(EPS)}")
        width = dims.head_dim
        self.kernel, self.redraw, self.eps = kernel, redraw, EPS[kernel] if eps is None else eps
        self.count = max(1, int(width * math.log(width))) if features is None else features
        if self.count < (kernel == "softmax" or redraw) or self.eps < 0:
            given = f"kernel={kernel}, features={features}, redraw={redraw}, eps={eps}"
            raise ValueError(f"performer: {given}: features >= 1 (0 for relu without redraw) and eps >= 0 are needed")
        self.w = Buffer(orthogonal_features(rngs.params(), self.count, width)) if self.count else None

    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: jax.Array | None
    ) -> jax.Array:
        w = None if self.w is None else self.w[...]
        if self.redraw and rng_keys is not None:
            w = jax.vmap(lambda key: orthogonal_features(key, self.count, q.shape[-1]))(rng_keys)
        return performer_attention(q, k, v, mask, w, kernel=self.kernel, eps=self.eps)
