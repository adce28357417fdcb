"""Reference implementations and measurements shared by the tests of mixers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def dense(q: jax.Array, k: jax.Array, v: jax.Array, visible: jax.Array) -> jax.Array:
    """Compute softmax attention by its definition: q, k, v [B, L, H, K], visible bool broadcastable to [B, H, L, L]."""
    return jnp.einsum("bhij,bjhv->bihv", dense_weights(q, k, visible), v)


def dense_weights(q: jax.Array, k: jax.Array, visible: jax.Array) -> jax.Array:
    """Compute the attention weights of `dense`, [B, H, L, L]."""
    logits = jnp.einsum("bihk,bjhk->bhij", q, k) / math.sqrt(q.shape[-1])
    weights = jnp.exp(logits - logits.max(-1, keepdims=True)) * visible
    return weights / weights.sum(-1, keepdims=True)


def values_and_gradients(
    attend: Attend, q: jax.Array, k: jax.Array, v: jax.Array, cotangent: jax.Array
) -> list[jax.Array]:
    """Return y and the gradients of q, k and v for a cotangent of y."""

    @jax.jit
    def both(q: jax.Array, k: jax.Array, v: jax.Array) -> list[jax.Array]:
        y, back = jax.vjp(attend, q, k, v)
        return [y, *back(cotangent)]

    return both(q, k, v)


def largest_array(jaxpr: Any) -> int:
    """Return the number of elements of the largest array in a program, including loops and calls."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [v.aval.size for v in (*equation.invars, *equation.outvars) if hasattr(v.aval, "size")]
        for parameter in jax.tree.leaves(tuple(equation.params.values())):
            inner = getattr(parameter, "jaxpr", parameter)
            sizes += [largest_array(inner)] if hasattr(inner, "eqns") else []
    return max(sizes)
