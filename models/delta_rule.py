"""The gated delta rule in chunks (Yang et al., 2024, arXiv:2406.06484 and arXiv:2412.06464).

    S_t = a_t S_{t-1} + b_t k_t (v_t - a_t S_{t-1}^T k_t)^T        y_t = S_t^T q_t        a_t = exp(g_t)

Before v_t is written to the key k_t, the value that the state has for this key is removed, as far as b_t says: b = 0
writes nothing, and b = 1 replaces it if k has length 1. Within a chunk all corrections are the solution of one
triangular system (the WY form), between chunks the state passes on, so time and memory are linear in the length.

The system is solved by matrix products, which accelerators compute fast. XLA's own solver of triangular systems can
wait forever on a CPU when two programs use it at once (seen with jax 0.10).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

CHUNK = 32  # positions; the matrix products within a chunk take time proportional to its cube


def gated_delta_rule(q: Array, k: Array, v: Array, beta: Array, log_decay: Array) -> Array:
    """Compute the recurrence from left to right; sums are in at least float32.

    Positions with beta = 0 and log_decay = 0 leave the state as it is, so padding is set to these values.

    Args:
      q, k:      [B, L, H, K]; if the length of k exceeds sqrt(2 / beta), the state can grow without bound
      v:         [B, L, H, V]
      beta:      [B, L, H], 0 to 2
      log_decay: [B, L, H], at most 0

    Returns:
      [B, L, H, V], dtype of v
    """
    dtype, accum_dtype = v.dtype, jnp.promote_types(v.dtype, jnp.float32)
    b, length, h, width = q.shape
    size = min(length, CHUNK)
    count = -(-length // size)

    def chunks(x: Array) -> Array:  # [B, L, H, K] -> [N, B, H, C, K]
        x = jnp.pad(x.astype(accum_dtype), ((0, 0), (0, count * size - length), (0, 0), (0, 0)))
        return x.reshape(b, count, size, h, -1).transpose(1, 0, 3, 2, 4)

    later, seen = (jnp.tril(jnp.ones((1, 1, size, size), bool), offset) for offset in (-1, 0))  # i > j, i >= j

    @jax.checkpoint  # the backward pass stores the state of every chunk, not its weights
    def step(state: Array, chunk: tuple[Array, ...]) -> tuple[Array, Array]:
        q, k, v, beta, log_decay = chunk
        # The decay from j to i, [B, H, C, C]. A difference of two sums from the start would not be precise.
        steps = jnp.where(later, log_decay, 0)  # the decay of i, for all earlier j
        decay = jnp.exp(jnp.where(seen, jnp.cumsum(steps, 2), -jnp.inf))
        from_start = jnp.exp(jnp.cumsum(log_decay, 2))
        corrections = jnp.where(later, beta * jnp.einsum("bhik,bhjk->bhij", k, k) * decay, 0)
        wanted = beta * (v - jnp.einsum("bhik,bhkv->bhiv", k * from_start, state))
        written = jnp.einsum("bhij,bhjv->bhiv", unit_triangular_inverse(corrections), wanted)
        weights = jnp.einsum("bhik,bhjk->bhij", q, k) * decay
        y = jnp.einsum("bhij,bhjv->bhiv", weights, written) + jnp.einsum("bhik,bhkv->bhiv", q * from_start, state)
        added = jnp.einsum("bhjk,bhjv->bhkv", k * decay[:, :, -1, :, None], written)
        return state * from_start[:, :, -1:] + added, y

    state = jnp.zeros((b, h, width, v.shape[-1]), accum_dtype)
    arrays = (q, k, v, beta[..., None], log_decay[..., None])
    _, y = jax.lax.scan(step, state, tuple(map(chunks, arrays)))
    return y.transpose(1, 0, 3, 2, 4).reshape(b, count * size, h, -1)[:, :length].astype(dtype)


@jax.custom_vjp
def unit_triangular_inverse(a: Array) -> Array:
    """Compute (I + A)^-1 for strictly lower triangular matrices A, [..., C, C].

    The inverse of each diagonal block is made from those of its halves: the lower left part of
    [[P, 0], [R, Q]]^-1 is -Q^-1 R P^-1. It takes log2(C) steps, and is as precise as substitution.
    """
    size = a.shape[-1]
    index = jnp.arange(size)
    inverse = jnp.broadcast_to(jnp.eye(size, dtype=a.dtype), a.shape)
    half = 1
    while half < size:
        row, column = index[:, None] // half, index[None] // half
        lower_left = (row == column + 1) & (row % 2 == 1)
        inverse = inverse - inverse @ jnp.where(lower_left, a, 0) @ inverse
        half *= 2
    return inverse


def _inverse_forward(a: Array) -> tuple[Array, Array]:
    inverse = unit_triangular_inverse(a)
    return inverse, inverse


def _inverse_backward(inverse: Array, gradient: Array) -> tuple[Array]:
    transposed = inverse.swapaxes(-1, -2)
    return (-jnp.tril(transposed @ gradient @ transposed, -1),)


unit_triangular_inverse.defvjp(_inverse_forward, _inverse_backward)
