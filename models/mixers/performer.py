"""Performer: softmax attention by positive orthogonal random features (Choromanski et al., 2021, arXiv:2009.14794).

    y_i = phi(q_i) . S / phi(q_i) . z,    S = sum_j phi(k_j) v_j^T,    z = sum_j phi(k_j),    over the real keys j
    softmax:  phi(x) = exp(W u - |u|^2 / 2 - c) + eps,  u = x / K^(1/4):  E phi(q) . phi(k) ~ exp(q . k / sqrt(K))
    relu:     phi(x) = relu(W x) + eps, or relu(x) + eps without random features

The rows of W [M, K] are rows of random orthogonal matrices, scaled to the lengths of Gaussian vectors. All heads of a
layer share one W. It is drawn once (a `Buffer`) or, with `redraw`, for each example and step in training; the paper
redraws it at intervals. c avoids overflow and cancels except for eps. It is a query's largest exponent, and for keys
the largest exponent among the example's real keys in that head. No L x L matrix of attention weights exists, so the
protocol's attention dropout does not apply.

Deviations from the authors' code:
- It takes c from W u alone, so that features of long vectors fall below eps. Here the largest feature is 1.
- It takes the orthogonal matrices from a QR decomposition with a fixed sign convention: the first row of a block never
  starts with a positive entry, which biases the estimate. Here they are uniformly distributed.
- It has no mask and adds 2e-6 to small denominators. Here padding is left out of S, z and c.
- M is K ln K as in lucidrains/performer-pytorch; the paper's experiments use 256.

The reference suite (google-research/long-range-arena) runs `kernel=relu features=0`, which is linear attention without
randomness. On ListOps it runs `features=2 redraw=true` and also redraws in evaluation, with a seed computed from the
queries of the batch; this is not reproduced.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.core import MAX_SIZE, Buffer, Dims, QKVAttention, check_range
from models.ops import boolean_mask, kv_state, zero_padding

COMPLEXITY = ("L", "L")
EPS = {"softmax": 1e-6, "relu": 1e-3}


def orthogonal_features(key: Array, count: int, width: int) -> Array:
    """Draw W [M, K], float32. Each row is distributed as N(0, I); the rows of each group of K rows are orthogonal."""
    direction_key, length_key = jax.random.split(key)
    blocks = jax.random.normal(direction_key, (-(-count // width), width, width), jnp.float32)
    rows, triangle = jnp.linalg.qr(blocks)
    rows = rows * jnp.sign(jnp.diagonal(triangle, axis1=1, axis2=2))[:, None]  # uniform (Mezzadri, 2007)
    lengths = jnp.linalg.norm(jax.random.normal(length_key, (count, width), jnp.float32), axis=1, keepdims=True)
    return lengths * rows.swapaxes(1, 2).reshape(-1, width)[:count]


def performer_attention(
    q: Array, k: Array, v: Array, mask: Array, w: Array | None = None, *,
    kernel: Literal["softmax", "relu"] = "softmax", eps: float = 1e-6,
) -> Array:  # fmt: skip
    """Compute attention by features in linear time and memory; sums are in at least float32.

    Args:
      q:      [B, Lq, H, K]
      k:      [B, Lk, H, K]
      v:      [B, Lk, H, V]
      mask:   [B, Lk] bool, True = real key
      w:      [M, K] or [B, M, K]; None (relu only): phi is applied to q and k directly
      kernel: the attention kernel that the features approximate
      eps:    added to every feature

    Returns:
      [B, Lq, H, V], dtype of v; zeros where an example has no real key
    """
    mask = boolean_mask(mask)
    v = zero_padding(v, mask)
    dtype, accum_dtype = v.dtype, jnp.promote_types(q.dtype, jnp.float32)
    q, k, v = (x.astype(accum_dtype).swapaxes(1, 2) for x in (q, k, v))  # [B, H, L, K]
    mask = mask[:, None, :, None]
    if kernel == "softmax":
        q, k = (x / x.shape[-1] ** 0.25 for x in (q, k))
        half_q, half_k = ((x**2).sum(-1, keepdims=True) / 2 for x in (q, k))
    if w is not None:
        equation = "bhlk,bmk->bhlm" if w.ndim == 3 else "bhlk,mk->bhlm"
        q, k = (jnp.einsum(equation, x, w.astype(accum_dtype)) for x in (q, k))
    if kernel == "softmax":
        q, k = q - half_q, jnp.where(mask, k - half_k, jnp.finfo(accum_dtype).min)
        q = jnp.exp(q - jax.lax.stop_gradient(q.max(-1, keepdims=True)))
        k = jnp.exp(k - jax.lax.stop_gradient(k.max((2, 3), keepdims=True)))
    else:
        q, k = jax.nn.relu(q), jax.nn.relu(k)
    q, k = q + eps, jnp.where(mask, k + eps, 0)
    state = kv_state(k, v)
    total = jnp.einsum("bhim,bhm->bhi", q, k.sum(2))[..., None]
    y = jnp.einsum("bhim,bhmv->bhiv", q, state) / jnp.where(total > 0, total, 1)
    return y.swapaxes(1, 2).astype(dtype)


class Performer(QKVAttention):
    """FAVOR+ attention, or attention with the relu kernel.

    kernel:   softmax or relu
    features: M; None: K ln K, rounded down; 0 (relu only): no random features, as in the reference suite
    redraw:   draw new features for each example and step in training
    eps:      added to every feature; None: 1e-6 (softmax) or 1e-3 (relu)
    """

    def __init__(
        self, dims: Dims, *, kernel: Literal["softmax", "relu"] = "softmax", features: int | None = None,
        redraw: bool = False, eps: float | None = None, rngs: nnx.Rngs,
    ) -> None:  # fmt: skip
        super().__init__(dims, rngs=rngs)
        width = dims.head_dim
        self.kernel, self.redraw, self.eps = kernel, redraw, EPS[kernel] if eps is None else eps
        self.count = max(1, int(width * math.log(width))) if features is None else features
        check_range(0, MAX_SIZE, features=features)
        check_range(0.0, 1.0, eps=eps)
        if self.count < (kernel == "softmax" or redraw):
            raise ValueError(f"option features={features}: must be at least 1, unless kernel=relu and redraw=false")
        self.w = Buffer(orthogonal_features(rngs.params(), self.count, width)) if self.count else None

    def attend(self, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None) -> Array:
        w = None if self.w is None else self.w[...]
        if self.redraw and rng_keys is not None:
            w = jax.vmap(lambda key: orthogonal_features(key, self.count, q.shape[-1]))(rng_keys)
        return performer_attention(q, k, v, mask, w, kernel=self.kernel, eps=self.eps)
