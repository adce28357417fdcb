"""What mixers over blocks of positions share: cut, gather, one softmax over what a block sees.

Blocks start at position 0, whatever the length: padding at the end moves none of them.
Dimensions beside those of `models.core`: N blocks, S positions of a block, T keys that a block sees.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from models.dropout import attention_dropout
from models.ops import boolean_mask, masked_softmax, scores


def cut(x: jax.Array, size: int) -> jax.Array:
    """[B, L, ...] -> [B, N, S, ...], N = ceil(L / size); zeros (False) beyond L."""
    b, length, *rest = x.shape
    count = -(-length // size)
    x = jnp.pad(x, [(0, 0), (0, count * size - length)] + [(0, 0)] * len(rest))
    return x.reshape(b, count, size, *rest)


def join(x: jax.Array, length: int) -> jax.Array:
    """[B, N, S, ...] -> [B, L, ...]: undoes `cut`."""
    b, count, size, *rest = x.shape
    return x.reshape(b, count * size, *rest)[:, :length]


def neighbourhood(x: jax.Array, before: int, after: int) -> jax.Array:
    """[B, N, S, ...] -> [B, N, (before + 1 + after) * S, ...]: each block between its neighbours, in order.

    Where there is no neighbour: zeros (False). Its keys must be masked, not only zero: gather the mask alike.
    """
    b, count, size, *rest = x.shape
    x = jnp.pad(x, [(0, 0), (before, after)] + [(0, 0)] * (1 + len(rest)))
    near = jnp.stack([x[:, i : i + count] for i in range(before + 1 + after)], 2)
    return near.reshape(b, count, (before + 1 + after) * size, *rest)


def block_weights(
    logits: jax.Array, visible: jax.Array, rate: float = 0.0, rng_keys: jax.Array | None = None
) -> jax.Array:
    """Softmax over the last axis of logits [B, N, H, S, T] where `visible` (broadcastable), and its dropout.

    A weight is dropped by (query's position, key's slot, head): neither N, S nor T moves the draw.
    """
    weights = masked_softmax(logits, visible)
    if rng_keys is None or not rate:
        return weights
    b, n, h, s, t = weights.shape
    rows = attention_dropout(weights.swapaxes(1, 2).reshape(b, h, n * s, t), rate, rng_keys)
    return rows.reshape(b, h, n, s, t).swapaxes(1, 2)


def block_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, visible: jax.Array, rate: float = 0.0, rng_keys: jax.Array | None = None
) -> jax.Array:
    """Softmax attention of each block's queries over the keys gathered for that block.

    Args:
      q:       [B, N, S, H, K]
      k:       [B, N, T, H, K]
      v:       [B, N, T, H, V]
      visible: bool, broadcastable to [B, N, H, S, T]; a query that sees nothing gives zeros
      rate:    of dropout of the weights
      rng_keys: [B], or None

    Returns:
      [B, N, S, H, V], dtype of v.
    """
    weights = block_weights(scores("bnshk,bnthk->bnhst", q, k), visible, rate, rng_keys)
    return jnp.einsum("bnhst,bnthv->bnshv", weights.astype(v.dtype), v)


def strided_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    stride: int,
    rate: float = 0.0,
    rng_keys: jax.Array | None = None,
) -> jax.Array:
    """Softmax attention of each position over the real positions equal to it modulo `stride`.

    q, k [B, L, H, K], v [B, L, H, V], mask [B, L], rng_keys [B] or None -> [B, L, H, V].
    """
    mask = boolean_mask(mask)
    b, length, h, _ = q.shape
    q, k, v = (cut(x, stride).reshape(b, 1, -1, stride * h, x.shape[-1]) for x in (q, k, v))  # a remainder: h heads
    visible = jnp.repeat(cut(mask, stride).swapaxes(1, 2), h, 1)[:, None, :, None]  # [B, 1, stride * H, 1, T]
    y = block_attention(q, k, v, visible, rate, rng_keys)
    return join(y.reshape(b, -1, stride, h, y.shape[-1]), length)
