"""Polynomial attention (Saratchandran, Zheng, Ji, Zhang, Lucey, 2024, arXiv:2410.18613).

    y_i = sum_j phi(q_i . k_j / sqrt(K)) v_j,    phi(x) = x^p / sqrt(N)

The weights may be negative and are not normalised. The factor 1 / sqrt(N) keeps the Frobenius norm of their matrix at
O(sqrt(N)), which also bounds that of softmax. N is the example's number of real tokens; in the paper all inputs have
the same length. Padded keys have weight zero. The first version of the paper is titled "Rethinking Softmax:
Self-Attention with Polynomial Activations", later versions "Rethinking Attention: Polynomial Alternatives to Softmax
in Transformers".

The paper studies p = 2 and p = 3 with a fixed or a learned scale. No code of the authors is known, and the paper does
not state p for the tasks of this suite. The default is p = 3, which preserves the sign of a score. The weights grow
without bound with q and k, so gradients should be clipped.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.core import Dims, QKVAttention, check_range
from models.dropout import attention_dropout
from models.ops import boolean_mask, scores

COMPLEXITY = ("L^2", "L^2")


def polynomial_weights(q: Array, k: Array, mask: Array, degree: int) -> Array:
    """Compute the weights phi(q_i . k_j / sqrt(K)) with N = mask.sum(1).

    Args:
      q:      [B, Lq, H, K]
      k:      [B, Lk, H, K]
      mask:   [B, Lk] bool, True = real key
      degree: p

    Returns:
      [B, H, Lq, Lk], at least float32
    """
    mask = boolean_mask(mask)
    k = jnp.where(mask[:, :, None, None], k, 0)  # phi(0) = 0 masks the weights, and padding cannot overflow
    x = scores("bihk,bjhk->bhij", q, k)
    n = jnp.maximum(mask.sum(1), 1).astype(x.dtype)
    return x**degree / jnp.sqrt(n)[:, None, None, None]


class Polynomial(QKVAttention):
    """Attention with the power `degree` instead of softmax, and dropout of the weights.

    `learned_scale` multiplies phi by one trained parameter per layer, which starts at 1.
    """

    def __init__(self, dims: Dims, *, degree: int = 3, learned_scale: bool = False, rngs: nnx.Rngs) -> None:
        check_range(1, 10, degree=degree)
        if jnp.dtype(dims.dtype) == jnp.float16:
            raise ValueError("float16 is too small for the powers of this mixer: use float32 or bfloat16")
        super().__init__(dims, rngs=rngs)
        self.degree = degree
        self.scale = nnx.Param(jnp.ones(())) if learned_scale else None

    def attend(self, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None) -> Array:
        weights = polynomial_weights(q, k, mask, self.degree)
        if self.scale is not None:
            weights = weights * self.scale[...]
        weights = attention_dropout(weights, self.dims.dropout, rng_keys)
        return jnp.einsum("bhij,bjhv->bihv", weights.astype(v.dtype), v)
