"""Linear attention (Katharopoulos et al., 2020, arXiv:2006.16236).

    y_i = phi(q_i) . S / (phi(q_i) . z + eps),    S = sum_j phi(k_j) v_j^T,    z = sum_j phi(k_j),    phi = elu + 1

The sums run over the real keys. phi(0) is 1, so the mask is applied after phi. There is no factor 1/sqrt(K). No L x L
matrix of attention weights exists, so the protocol's attention dropout does not apply.

Deviation from the reference suite (google-research/long-range-arena): it ignores the padding mask.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.core import MIN_EPS, Dims, QKVAttention, check_range
from models.feature_maps import elu_plus_one
from models.ops import boolean_mask, kv_state, zero_padding

COMPLEXITY = ("L", "L")


def linear_attention(q: Array, k: Array, v: Array, mask: Array, eps: float = 1e-6) -> Array:
    """Compute linear attention; sums are in at least float32.

    Args:
      q:    [B, Lq, H, K]
      k:    [B, Lk, H, K]
      v:    [B, Lk, H, V]
      mask: [B, Lk] bool, True = real key
      eps:  added to the denominator

    Returns:
      [B, Lq, H, V], dtype of v
    """
    mask = boolean_mask(mask)
    v = zero_padding(v, mask)
    dtype, accum_dtype = v.dtype, jnp.promote_types(q.dtype, jnp.float32)
    q, k, v = (x.astype(accum_dtype).swapaxes(1, 2) for x in (q, k, v))  # [B, H, L, K]
    q = elu_plus_one(q)
    k = jnp.where(mask[:, None, :, None], elu_plus_one(k), 0)
    state = kv_state(k, v)
    total = jnp.einsum("bhik,bhk->bhi", q, k.sum(2)) + eps
    y = jnp.einsum("bhik,bhkv->bhiv", q, state) / total[..., None]
    return y.swapaxes(1, 2).astype(dtype)


class Linear(QKVAttention):
    """Attention with the feature map elu + 1. `eps` is added to the denominator."""

    def __init__(self, dims: Dims, *, eps: float = 1e-6, rngs: nnx.Rngs) -> None:
        check_range(MIN_EPS, 1.0, eps=eps)
        super().__init__(dims, rngs=rngs)
        self.eps = eps

    def attend(self, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None) -> Array:
        return linear_attention(q, k, v, mask, self.eps)
