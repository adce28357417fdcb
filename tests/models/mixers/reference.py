"""The definition that mixers over blocks are compared with, and how."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def dense(q: jax.Array, k: jax.Array, v: jax.Array, visible: jax.Array) -> jax.Array:
    """Softmax attention with its L x L weights: q, k, v [B, L, H, K], visible bool broadcastable to [B, H, L, L]."""
    return jnp.einsum("bhij,bjhv->bihv", dense_weights(q, k, visible), v)


def dense_weights(q: jax.Array, k: jax.Array, visible: jax.Array) -> jax.Array:
    """Those weights, [B, H, L, L]."""
    logits = jnp.einsum("bihk,bjhk->bhij", q, k) / math.sqrt(q.shape[-1])
    weights = jnp.exp(logits - logits.max(-1, keepdims=True)) * visible
    return weights / weights.sum(-1, keepdims=True)


def values_and_gradients(
    attend: Attend, q: jax.Array, k: jax.Array, v: jax.Array, cotangent: jax.Array
) -> list[jax.Array]:
    """[y, and the gradients of q, k, v] for a cotangent of y."""

    @jax.jit
    def both(q: jax.Array, k: jax.Array, v: jax.Array) -> list[jax.Array]:
        y, back = jax.vjp(attend, q, k, v)
        return [y, *back(cotangent)]

    return both(q, k, v)
