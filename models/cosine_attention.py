"""Attention with cosine re-weighting of given features: the three algorithms of `models/mixers/cosformer.py`.

Arrays have the layout [B, H, L, K], which is up to a third faster on a CPU. Queries and keys are features: they are not
negative, and keys are zero at padding. M is an int or an integer array [B].
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from models.decayed_attention import two_sided_attention
from models.ops import kv_state
from models.rotary import rotate

CHUNK = 128  # positions per chunk of the causal form: weights are CHUNK x CHUNK, one state is stored per chunk


def bidirectional(
    q: Array, k: Array, v: Array, max_len: int | Array, eps: float, angles: np.ndarray | None = None
) -> Array:
    """Attend to all keys by one state for cosines and one for sines.

    Cosines and sines multiply values instead of keys, and results instead of queries, which avoids arrays of width 2K.

    Args:
      q:      [B, H, Lq, K]
      k:      [B, H, Lk, K]
      v:      [B, H, Lk, V]
      angles: [K // 2], by which queries and keys of the numerator are rotated (`models.rotary`); None: they are not

    Returns:
      [B, H, Lq, V]
    """
    rotated_q, rotated_k = _rotated(q, k, angles)
    y, total = jnp.zeros_like(q, shape=(*q.shape[:3], v.shape[-1])), jnp.zeros_like(q[..., :1])
    for query_weight, key_weight in zip(cos_sin_weights(q, max_len), cos_sin_weights(k, max_len), strict=True):
        y += jnp.einsum("bhik,bhkv->bhiv", rotated_q, kv_state(rotated_k, v * key_weight)) * query_weight
        total += jnp.einsum("bhik,bhk->bhi", q, (k * key_weight).sum(2))[..., None] * query_weight
    return y / jnp.maximum(total, eps)


def decayed(
    q: Array,
    k: Array,
    v: Array,
    max_len: int | Array,
    eps: float,
    log_decay: Array,
    angles: np.ndarray | None = None,
) -> Array:
    """Attend to all keys with weights that decay with the distance, by a recurrence in each direction.

    Cosines and sines multiply values, so the weights within a chunk are computed once for both.

    Args:
      q, k, v:   [B, H, L, K], [B, H, L, K], [B, H, L, V]
      log_decay: logarithms of the decay per position, at most 0: [H, 1], or [H, K] for one of each channel
      angles:    as of `bidirectional`

    Returns:
      [B, H, L, V]
    """
    weights = cos_sin_weights(q, max_len)

    def weighted_sum(q: Array, k: Array, v: Array) -> Array:
        values = jnp.concatenate([v * weight for weight in weights], -1)
        q, k, values = (x.swapaxes(1, 2) for x in (q, k, values))  # [B, L, H, K]
        y = two_sided_attention(q, k, values, log_decay, log_decay).swapaxes(1, 2)
        cos_part, sin_part = jnp.split(y, 2, -1)
        return cos_part * weights[0] + sin_part * weights[1]

    ones = jnp.ones_like(v[..., :1])  # the sum of this column is the denominator
    if angles is None:
        y = weighted_sum(q, k, jnp.concatenate([v, ones], -1))
        return y[..., :-1] / jnp.maximum(y[..., -1:], eps)
    return weighted_sum(*_rotated(q, k, angles), v) / jnp.maximum(weighted_sum(q, k, ones), eps)


def _rotated(q: Array, k: Array, angles: np.ndarray | None) -> tuple[Array, Array]:
    """Return q and k rotated by their positions, [B, H, L, K]."""
    if angles is None:
        return q, k
    rotated_q, rotated_k = (rotate(x.swapaxes(1, 2), angles).swapaxes(1, 2) for x in (q, k))
    return rotated_q, rotated_k


def causal(q: Array, k: Array, v: Array, max_len: int | Array, eps: float) -> Array:
    """Attend to the keys j <= i: quadratic within a chunk, by a state across chunks. Shapes as of `bidirectional`."""
    b, h, length, width = q.shape
    size = min(CHUNK, length)
    count = -(-length // size)

    def chunks(x: Array) -> Array:  # [B, H, L, K] -> [N, B, H, C, K]
        x = jnp.pad(x, ((0, 0), (0, 0), (0, count * size - length), (0, 0)))
        return jnp.moveaxis(x.reshape(b, h, count, size, -1), 2, 0)

    v = jnp.concatenate([v, jnp.ones_like(v[..., :1])], -1)  # the sum of this column is the denominator
    causal_mask = jnp.tril(jnp.ones((1, 1, size, size), bool))

    @jax.checkpoint  # the backward pass stores the state of every chunk, not its weights
    def step(state: Array, chunk: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        q, k, v = chunk
        weights = jnp.where(causal_mask, jnp.einsum("bhik,bhjk->bhij", q, k), 0)
        y = jnp.einsum("bhij,bhjv->bhiv", weights, v) + jnp.einsum("bhik,bhkv->bhiv", q, state)
        return state + kv_state(k, v), y

    q, k = (jnp.concatenate([x * weight for weight in cos_sin_weights(x, max_len)], -1) for x in (q, k))
    state = jnp.zeros((b, h, 2 * width, v.shape[-1]), v.dtype)
    _, y = jax.lax.scan(step, state, (chunks(q), chunks(k), chunks(v)))
    y = jnp.moveaxis(y, 0, 2).reshape(b, h, count * size, -1)[:, :, :length]
    return y[..., :-1] / jnp.maximum(y[..., -1:], eps)


def cos_sin_weights(x: Array | jax.ShapeDtypeStruct, max_len: int | Array) -> list[Array | np.ndarray]:
    """Return cos(a_i) and sin(a_i) for the positions i = 1 .. L of x [B, H, L, K], each [1 or B, 1, L, 1]."""
    positions = np.arange(1, x.shape[2] + 1)
    if not isinstance(max_len, Array | np.ndarray):  # constants; XLA would compute them for each element of x
        angle = math.pi / 2 / max_len * positions[None, None, :, None]
        return [np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)]
    m = jnp.maximum(max_len, 1)[:, None]
    clipped = jnp.minimum(positions[None], m)
    # cos(a) = sin(pi/2 - a) is exactly 0 at position M, where rounding could make the cosine negative.
    weights = (jnp.sin(math.pi / 2 * part.astype(x.dtype) / m.astype(x.dtype)) for part in (m - clipped, clipped))
    return [weight[:, None, :, None] for weight in weights]
