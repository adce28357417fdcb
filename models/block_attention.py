"""What mixers over blocks of neighbouring positions share: cut, gather, one softmax over what a block sees.

Blocks start at position 0, whatever the length: padding at the end moves none of them.
Dimensions beside those of `models.core`: N blocks, S positions of a block, T keys that a block sees.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from models.core import dropout, masked_softmax


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


def block_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, visible: jax.Array, rate: float = 0.0, keys: jax.Array | None = None
) -> jax.Array:
    """Softmax attention of each block's queries over the keys gathered for that block.

    Args:
      q:       [B, N, S, H, K]
      k:       [B, N, T, H, K]
      v:       [B, N, T, H, V]
      visible: bool, broadcastable to [B, N, H, S, T]; a query that sees nothing gives zeros
      rate:    of dropout of the weights
      keys:    [B], or None

    Returns:
      [B, N, S, H, V], dtype of v.
    """
    logits = jnp.einsum("bnshk,bnthk->bnhst", q, k, preferred_element_type=jnp.promote_types(q.dtype, jnp.float32))
    weights = masked_softmax(logits / math.sqrt(q.shape[-1]), visible)
    b, n, h, s, t = weights.shape
    if keys is not None and rate:  # drawn at (query's position, key's slot): independent of the number of blocks
        rows = weights.transpose(0, 1, 3, 2, 4).reshape(b, n * s, h * t)
        weights = dropout(rows, rate, keys).reshape(b, n, s, h, t).transpose(0, 1, 3, 2, 4)
    return jnp.einsum("bnhst,bnthv->bnshv", weights.astype(v.dtype), v)
