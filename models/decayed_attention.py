"""Linear attention with decay, in chunks: the recurrence that gated linear attention, RetNet, Mamba-2 and others share.

    S_t = exp(g_t) S_{t-1} + k_t v_t^T        y_t = q_t S_t

The state S is a matrix K x V. The logarithm g_t <= 0 of the decay is a number for each head, or a vector that decays
each row of the state by its own factor. Within a chunk the recurrence is computed by its quadratic form, between chunks
by the state, so time and memory are linear in the length.

A decay that depends on the position is computed for every pair of positions of a chunk. Then no exponent is positive,
whatever the decay. A constant decay needs matrix products alone, which is several times faster.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

CHUNK = 64  # positions per chunk if heads have one decay; the weights of a chunk are CHUNK x CHUNK
VECTOR_CHUNK = 16  # if each channel of a key has its own: then a chunk has CHUNK x CHUNK x K products
MAX_RATE = 5.0  # of a constant decay for each channel: exp(MAX_RATE VECTOR_CHUNK) must not overflow float32


def decayed_attention(q: Array, k: Array, v: Array, log_decay: Array) -> Array:
    """Compute the recurrence from left to right; sums are in at least float32.

    Positions with k = v = 0 and log_decay = 0 leave the state as it is, so padding is set to these values. A constant
    decay acts at padding too, which changes nothing where padding follows or precedes all real positions.

    Args:
      q:         [B, L, H, K]
      k:         [B, L, H, K]
      v:         [B, L, H, V]
      log_decay: at most 0, [B, L, H, 1], or [B, L, H, K] for a decay of each channel; a constant decay is [H, 1] or
                 [H, K]. A constant decay of each channel is at least exp(-MAX_RATE) per position

    Returns:
      [B, L, H, V], dtype of v
    """
    dtype, accum_dtype = v.dtype, jnp.promote_types(v.dtype, jnp.float32)
    b, length, h, width = q.shape
    is_vector = log_decay.shape[-1] > 1
    size = min(length, VECTOR_CHUNK if is_vector else CHUNK)
    count = -(-length // size)

    def chunks(x: Array) -> Array:  # [B, L, H, K] -> [N, B, H, C, K]
        x = jnp.pad(x.astype(accum_dtype), ((0, 0), (0, count * size - length), (0, 0), (0, 0)))
        return x.reshape(x.shape[0], count, size, *x.shape[2:]).transpose(1, 0, 3, 2, 4)

    arrays = tuple(map(chunks, (q, k, v)))
    if log_decay.ndim == 2:
        step = _constant_decay_step(log_decay.astype(accum_dtype), size)
    else:
        step, arrays = _decay_step(size, is_vector=is_vector), (*arrays, chunks(log_decay))
    state = jnp.zeros((b, h, width, v.shape[-1]), accum_dtype)
    _, y = jax.lax.scan(jax.checkpoint(step), state, arrays)  # the backward pass stores the state of every chunk
    return y.transpose(1, 0, 3, 2, 4).reshape(b, count * size, h, -1)[:, :length].astype(dtype)


Step = Callable[[Array, tuple[Array, ...]], tuple[Array, Array]]


def _decay_step(size: int, *, is_vector: bool) -> Step:
    """Return the step of a chunk (q, k, v, log_decay), each [B, H, C, ...], which maps and returns the state."""
    later = jnp.tril(jnp.ones((size, size), bool), -1)[:, :, None]  # i > j
    seen = jnp.tril(jnp.ones((size, size), bool))[:, :, None]

    def step(state: Array, chunk: tuple[Array, ...]) -> tuple[Array, Array]:
        q, k, v, log_decay = chunk
        # The decay from j to i, [B, H, C, C, 1 or K]. A difference of two sums from the start would not be precise.
        decay = jnp.exp(jnp.where(seen, jnp.cumsum(jnp.where(later, log_decay[:, :, :, None], 0), 2), -jnp.inf))
        from_start = jnp.exp(jnp.cumsum(log_decay, 2))
        if is_vector:
            weights = jnp.einsum("bhik,bhjk,bhijk->bhij", q, k, decay)
        else:
            weights = jnp.einsum("bhik,bhjk->bhij", q, k) * decay[..., 0]
        y = jnp.einsum("bhij,bhjv->bhiv", weights, v) + jnp.einsum("bhik,bhkv->bhiv", q * from_start, state)
        added = jnp.einsum("bhjk,bhjv->bhkv", k * decay[:, :, -1], v)
        return state * from_start[:, :, -1:].swapaxes(2, 3) + added, y

    return step


def _constant_decay_step(log_decay: Array, size: int) -> Step:
    """Return the step of a chunk (q, k, v), each [B, H, C, ...], with the logarithm of a decay [H, 1] or [H, K]."""
    is_vector = log_decay.shape[-1] > 1
    rate = jnp.maximum(log_decay, -MAX_RATE)[:, None] if is_vector else log_decay[:, None]  # [H, 1, 1 or K]
    position = jnp.arange(size, dtype=rate.dtype)[None, :, None]
    distance = position - position.swapaxes(1, 2)  # i - j
    from_start, to_end = jnp.exp(rate * (position + 1)), jnp.exp(rate * (size - 1 - position))
    seen = distance >= 0
    if is_vector:  # exp(g (i - j)) = exp(g (i + 1)) exp(-g (j + 1)) multiplies queries and keys
        since_start = jnp.exp(-rate * (position + 1))
    else:
        decay = jnp.exp(jnp.where(seen, rate * jnp.maximum(distance, 0), -jnp.inf))

    def step(state: Array, chunk: tuple[Array, ...]) -> tuple[Array, Array]:
        q, k, v = chunk
        decayed_q = q * from_start[None]
        if is_vector:
            weights = jnp.where(seen[None], jnp.einsum("bhik,bhjk->bhij", decayed_q, k * since_start[None]), 0)
        else:
            weights = jnp.einsum("bhik,bhjk->bhij", q, k) * decay[None]
        y = jnp.einsum("bhij,bhjv->bhiv", weights, v) + jnp.einsum("bhik,bhkv->bhiv", decayed_q, state)
        added = jnp.einsum("bhjk,bhjv->bhkv", k * to_end[None], v)
        return state * from_start[None, :, -1:].swapaxes(2, 3) + added, y

    return step


def both_directions(
    forward: tuple[Array, Array, Array, Array], backward: tuple[Array, Array, Array, Array]
) -> tuple[Array, Array]:
    """Compute the recurrence from left to right with the first arrays, and from right to left with the second.

    Both run in one call, as one batch of twice the size. A constant decay must be the same array for both.

    Returns:
      The outputs of both directions, [B, L, H, V] each; both contain the position itself.

    Raises:
      ValueError: only one decay is constant, or both are and differ
    """
    if 2 in (forward[3].ndim, backward[3].ndim) and forward[3] is not backward[3]:
        raise ValueError("a constant decay must be the same array for both directions")
    pairs = zip(forward, backward, strict=True)
    arrays = (a if a.ndim == 2 else jnp.concatenate([a, b[:, ::-1]]) for a, b in pairs)
    y = decayed_attention(*arrays)
    first, second = jnp.split(y, 2)
    return first, second[:, ::-1]


def two_sided_attention(q: Array, k: Array, v: Array, forward_decay: Array, backward_decay: Array | None) -> Array:
    """Add the recurrences of both directions; each position is counted once.

    Args:
      q, k, v:        [B, L, H, K], [B, L, H, K], [B, L, H, V]
      forward_decay:  `log_decay` of the recurrence from left to right
      backward_decay: of that from right to left; None: only the first

    Returns:
      [B, L, H, V]
    """
    if backward_decay is None:
        return decayed_attention(q, k, v, forward_decay)
    forward, backward = both_directions((q, k, v, forward_decay), (q, k, v, backward_decay))
    return forward + backward - jnp.einsum("blhk,blhk->blh", q, k)[..., None] * v
