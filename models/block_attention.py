"""Softmax attention between blocks of positions.

Blocks start at position 0 for every length, so padding at the end does not shift them.
Array dimensions in addition to those of `models.core`: N blocks, S positions per block, T keys that a block sees.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from models.dropout import attention_dropout
from models.ops import boolean_mask, masked_softmax, scores, zero_padding


def split_blocks(x: Array, size: int) -> Array:
    """Reshape [B, L, ...] to [B, N, S, ...] with S = size and N = ceil(L / size), padded with zeros (False)."""
    b, length, *rest = x.shape
    count = -(-length // size)
    x = jnp.pad(x, [(0, 0), (0, count * size - length)] + [(0, 0)] * len(rest))
    return x.reshape(b, count, size, *rest)


def merge_blocks(x: Array, length: int) -> Array:
    """Reshape [B, N, S, ...] to [B, L, ...], the inverse of `split_blocks`."""
    b, count, size, *rest = x.shape
    return x.reshape(b, count * size, *rest)[:, :length]


def with_neighbours(x: Array, before: int, after: int) -> Array:
    """Concatenate each block with its neighbours: [B, N, S, ...] -> [B, N, (before + 1 + after) * S, ...].

    Missing neighbours are zeros (False), so the caller must mask them by applying this function to the mask as well.
    """
    b, count, size, *rest = x.shape
    x = jnp.pad(x, [(0, 0), (before, after)] + [(0, 0)] * (1 + len(rest)))
    stacked = jnp.stack([x[:, i : i + count] for i in range(before + 1 + after)], 2)
    return stacked.reshape(b, count, (before + 1 + after) * size, *rest)


def block_weights(logits: Array, visible: Array, rate: float = 0.0, rng_keys: Array | None = None) -> Array:
    """Compute softmax over the last axis of logits [B, N, H, S, T] where `visible` is True, with dropout.

    Dropout depends on the query's position, the key's index in T and the head, and not on N, S or T.
    """
    weights = masked_softmax(logits, visible)
    if rng_keys is None or not rate:
        return weights
    b, n, h, s, t = weights.shape
    rows = attention_dropout(weights.swapaxes(1, 2).reshape(b, h, n * s, t), rate, rng_keys)
    return rows.reshape(b, h, n, s, t).swapaxes(1, 2)


def block_attention(
    q: Array, k: Array, v: Array, visible: Array, rate: float = 0.0, rng_keys: Array | None = None
) -> Array:
    """Compute softmax attention of each block's queries over the keys gathered for that block.

    Args:
      q:        [B, N, S, H, K]
      k:        [B, N, T, H, K]
      v:        [B, N, T, H, V]
      visible:  bool, broadcastable to [B, N, H, S, T]; a query that sees no key gets zeros
      rate:     dropout rate of the weights
      rng_keys: [B], or None for no dropout

    Returns:
      [B, N, S, H, V], dtype of v
    """
    weights = block_weights(scores("bnshk,bnthk->bnhst", q, k), visible, rate, rng_keys)
    return jnp.einsum("bnhst,bnthv->bnshv", weights.astype(v.dtype), v)


def strided_attention(
    q: Array, k: Array, v: Array, mask: Array, stride: int, rate: float = 0.0, rng_keys: Array | None = None
) -> Array:
    """Compute softmax attention of each position over the real positions with the same remainder modulo `stride`.

    Args:
      q, k:     [B, L, H, K]
      v:        [B, L, H, V]
      mask:     [B, L] bool, True = real token
      rate:     dropout rate of the weights
      rng_keys: [B], or None for no dropout

    Returns:
      [B, L, H, V], dtype of v
    """
    mask = boolean_mask(mask)
    v = zero_padding(v, mask)
    b, length, h, _ = q.shape
    # Each pair of remainder and head acts as one head.
    q, k, v = (split_blocks(x, stride).reshape(b, 1, -1, stride * h, x.shape[-1]) for x in (q, k, v))
    visible = jnp.repeat(split_blocks(mask, stride).swapaxes(1, 2), h, 1)[:, None, :, None]  # [B, 1, stride * H, 1, T]
    y = block_attention(q, k, v, visible, rate, rng_keys)
    return merge_blocks(y.reshape(b, -1, stride, h, y.shape[-1]), length)
