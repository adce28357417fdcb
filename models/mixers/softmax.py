"""Softmax attention (Vaswani et al., 2017, arXiv:1706.03762).

    y_i = sum_j a_ij v_j,    a_i = softmax_j(q_i . k_j / sqrt(K)) over the real keys j

Padded keys are masked, padded queries are not (the reference suite masks both, which makes the rows of
padded queries uniform; no real position sees the difference). An example without real keys gives zeros.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from models.core import QKVAttention, attention_dropout, masked_softmax, scores

COMPLEXITY = ("L^2", "L^2")


def attention_weights(q: jax.Array, k: jax.Array, mask: jax.Array) -> jax.Array:
    """q [B, Lq, H, K], k [B, Lk, H, K], mask [B, Lk] -> weights [B, H, Lq, Lk], float32."""
    return masked_softmax(scores("bihk,bjhk->bhij", q, k), mask[:, None, None, :])


class Softmax(QKVAttention):
    """Scaled dot-product attention, with dropout of the weights."""

    def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, keys: jax.Array | None) -> jax.Array:
        weights = attention_dropout(attention_weights(q, k, mask), self.dims.dropout, keys)
        return jnp.einsum("bhij,bjhv->bihv", weights.astype(v.dtype), v)
