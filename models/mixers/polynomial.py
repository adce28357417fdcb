"""Polynomial attention (Saratchandran, Zheng, Ji, Zhang, Lucey, 2024, arXiv:2410.18613).

    y_i = sum_j phi(q_i . k_j / sqrt(K)) v_j,    phi(x) = x^p / sqrt(N)

Weights are neither positive nor normalised; 1 / sqrt(N) keeps the Frobenius norm of their matrix at the sqrt(N) that
bounds softmax's. N is the number of the example's real tokens, where the paper has the one length of its inputs,
and padded keys have weight zero. The first version was called "Rethinking Softmax: Self-Attention with Polynomial
Activations", the later ones "Rethinking Attention: Polynomial Alternatives to Softmax in Transformers".

The paper's experiments are about p = 2 and 3, with the scale fixed or learned; no code of theirs was found, nor which
p they took on this suite's tasks. The default 3, which keeps the sign of a score, is this file's choice. Weights
grow without bound with p, q and k: clip gradients.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from models.core import Dims, QKVAttention
from models.dropout import attention_dropout
from models.ops import boolean_mask, scores

COMPLEXITY = ("L^2", "L^2")


def polynomial_weights(q: jax.Array, k: jax.Array, mask: jax.Array, degree: int) -> jax.Array:
    """q [B, Lq, H, K], k [B, Lk, H, K], mask [B, Lk] -> phi [B, H, Lq, Lk], at least float32; N = mask.sum(1)."""
    mask = boolean_mask(mask)
    k = jnp.where(mask[:, :, None, None], k, 0)  # phi(0) = 0: this masks the weights, and no power of padding overflows
    x = scores("bihk,bjhk->bhij", q, k)
    n = jnp.maximum(mask.sum(1), 1).astype(x.dtype)
    return x**degree / jnp.sqrt(n)[:, None, None, None]


class Polynomial(QKVAttention):
    """Attention with the power `degree` in softmax's place, and dropout of the weights.

    `learned_scale` multiplies phi by a parameter, one for the layer, that starts at 1.
    """

    def __init__(self, dims: Dims, *, degree: int = 3, learned_scale: bool = False, rngs: nnx.Rngs) -> None:
        super().__init__(dims, rngs=rngs)
        if degree < 1:
            raise ValueError(f"Polynomial: degree {degree} is not at least 1; the paper takes 2 or 3")
        self.degree = degree
        self.scale = nnx.Param(jnp.ones(())) if learned_scale else None

    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: jax.Array | None
    ) -> jax.Array:
        weights = polynomial_weights(q, k, mask, self.degree)
        if self.scale is not None:
            weights = weights * self.scale[...]
        weights = attention_dropout(weights, self.dims.dropout, rng_keys)
        return jnp.einsum("bhij,bjhv->bihv", weights.astype(v.dtype), v)
