"""Softmax attention in blocks of queries and chunks of keys, in memory linear in the length.

As in FlashAttention (Dao et al., 2022, arXiv:2205.14135), sums over keys are relative to the largest logit so far. The
backward pass recomputes the weights, and which of them are dropped, from the stored logarithm of each query's sum.

Weights have the layout [B, H, J, S] for J keys and S queries. Every product is then a plain matrix product, and maximum
and sum reduce over rows; XLA executes these forms fastest on a CPU.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from models.dropout import GOLDEN_RATIO_32, hash_dropout, row_dropout_seeds


class Options(NamedTuple):
    """Static arguments of forward and backward pass.

    rate:      dropout rate of the weights
    block:     most queries computed together
    chunk:     most keys computed together
    precision: of matrix products in the backward pass (`matmul_precision`)
    slopes:    of each head, H numbers: what a distance of 1 subtracts from the logits; None: nothing
    """

    rate: float
    block: int
    chunk: int
    precision: Any
    slopes: tuple[float, ...] | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def blockwise_softmax(options: Options, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None) -> Array:
    """Compute softmax attention over the real keys; sums are in at least float32.

    Args:
      q:        [B, Lq, H, K]
      k:        [B, Lk, H, K]
      v:        [B, Lk, H, V], zero where the mask is False
      mask:     [B, Lk] bool, True = real key
      rng_keys: [B], or None for no dropout

    Returns:
      [B, Lq, H, V], dtype of v; zeros where an example has no real key
    """
    return _forward(options, q, k, v, mask, rng_keys)[0]


def _forward(
    options: Options, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None
) -> tuple[Array, tuple[Any, ...]]:
    """Return the output and the residuals of the backward pass, including log_sum [N, B, H, S]."""
    q_blocks, accum_dtype = _split_queries(q, options.block), jnp.promote_types(q.dtype, jnp.float32)
    count, b, h, _, size = q_blocks.shape
    block_seeds = _block_seeds(options.rate, rng_keys, q_blocks)

    def scan_key_chunks(carry: Any, chunk: _KeyChunk) -> tuple[Any, None]:
        value = chunk.value.swapaxes(2, 3)

        def scan_query_blocks(_: None, xs: tuple[Any, ...]) -> tuple[None, tuple[Array, ...]]:
            """Update the largest logit of each query and the sums relative to it."""
            q, positions, seeds, (largest, total, y) = xs
            logits = _logits(chunk, q, positions, options.slopes)
            new_largest = jnp.maximum(largest, logits.max(2))
            finite = jnp.where(new_largest == -jnp.inf, 0, new_largest)
            rescale, weights = jnp.exp(largest - finite), jnp.exp(logits - finite[:, :, None])
            y = y * rescale[:, :, None]
            y = y + _product("bhvj,bhji->bhvi", value, _dropout(weights, options.rate, seeds, chunk))
            return None, (new_largest, total * rescale + weights.sum(2), y)

        return _scan(scan_query_blocks, None, (q_blocks, _positions(q_blocks), block_seeds, carry))[1], None

    zeros = jnp.zeros((count, b, h, size), accum_dtype)
    init = zeros - jnp.inf, zeros, jnp.zeros((count, b, h, v.shape[-1], size), accum_dtype)
    (largest, total, y), _ = _scan(scan_key_chunks, init, _split_keys(k, v, mask, options.chunk))
    total = jnp.where(total == 0, 1, total)
    log_sum = jnp.where(largest == -jnp.inf, 0, largest) + jnp.log(total)
    y = _merge_queries(y / total[:, :, :, None], q.shape[1]).astype(v.dtype)
    return y, (q, k, v, mask, rng_keys, y, log_sum)


def _backward(options: Options, residuals: tuple[Any, ...], dy: Array) -> tuple[Array | None, ...]:
    """With w = exp(logits - log_sum) and d = dropout(w): dv = d dy, dlogits = d (v . dy) - w (y . dy)."""
    q, k, v, mask, rng_keys, y, log_sum = residuals
    accum_dtype, scale = log_sum.dtype, 1 / math.sqrt(q.shape[-1])
    q_blocks, y_blocks, dy_blocks = (_split_queries(x, options.block) for x in (q, y, dy))
    means = (y_blocks.astype(accum_dtype) * dy_blocks.astype(accum_dtype)).sum(3)  # y . dy of each query
    block_seeds = _block_seeds(options.rate, rng_keys, q_blocks)

    def scan_key_chunks(dq: Array, chunk: _KeyChunk) -> tuple[Array, tuple[Array, Array]]:
        key = chunk.key.swapaxes(2, 3)

        def scan_query_blocks(carry: tuple[Array, Array], xs: tuple[Any, ...]) -> tuple[Any, Array]:
            dk, dv = carry
            q, dy, positions, mean, log_sum, seeds, dq = xs
            weights = jnp.exp(_logits(chunk, q, positions, options.slopes) - log_sum[:, :, None])
            dropped = _dropout(weights, options.rate, seeds, chunk)
            dv = dv + _product("bhji,bhiv->bhjv", dropped, dy.swapaxes(2, 3))
            dlogits = dropped * _product("bhjv,bhvi->bhji", chunk.value, dy) - weights * mean[:, :, None]
            dk = dk + _product("bhji,bhik->bhjk", dlogits, q.swapaxes(2, 3))
            return (dk, dv), dq + _product("bhkj,bhji->bhki", key, dlogits)

        xs = (q_blocks, dy_blocks, _positions(q_blocks), means, log_sum, block_seeds, dq)
        init = (jnp.zeros(chunk.key.shape, accum_dtype), jnp.zeros(chunk.value.shape, accum_dtype))
        dk_dv, dq = _scan(scan_query_blocks, init, xs)
        return dq, dk_dv

    with jax.default_matmul_precision(options.precision):
        chunks = _split_keys(k, v, mask, options.chunk)
        dq, dk_dv = _scan(scan_key_chunks, jnp.zeros(q_blocks.shape, accum_dtype), chunks)
    dk, dv = (_merge_keys(x, k.shape[1]) for x in dk_dv)
    dq, dk = _merge_queries(dq * scale, q.shape[1]), dk * scale
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None, None


blockwise_softmax.defvjp(_forward, _backward)


def _equal_parts(length: int, most: int) -> tuple[int, int]:
    """Return number and size of equal parts of at most about `most` positions; several parts are multiples of 16."""
    count = -(-length // most)
    return count, length if count == 1 else -(-length // (16 * count)) * 16


def _split_queries(x: Array, block: int) -> Array:
    """Reshape [B, L, H, K] to N blocks of S positions, [N, B, H, K, S], padded with zeros."""
    b, length, h, width = x.shape
    count, size = _equal_parts(length, block)
    x = jnp.pad(x, ((0, 0), (0, count * size - length), (0, 0), (0, 0)))
    return x.reshape(b, count, size, h, width).transpose(1, 0, 3, 4, 2)


def _merge_queries(x: Array, length: int) -> Array:
    """Reshape [N, B, H, K, S] to [B, L, H, K], the inverse of `_split_queries`."""
    count, b, h, width, size = x.shape
    return x.transpose(1, 0, 4, 2, 3).reshape(b, count * size, h, width)[:, :length]


class _KeyChunk(NamedTuple):
    """A chunk of J keys; stacked chunks have a leading axis of size C.

    key:   [B, H, J, K]
    value: [B, H, J, V]
    mask:  [B, J]
    first: index of the first key, uint32
    """

    key: Array
    value: Array
    mask: Array
    first: Array


def _split_keys(k: Array, v: Array, mask: Array, chunk: int) -> _KeyChunk:
    """Return all keys as stacked chunks of equal size."""
    length = k.shape[1]
    count, size = _equal_parts(length, chunk)

    def split(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, count * size - length), *[(0, 0)] * (x.ndim - 2)])
        return x.reshape(len(x), count, size, *x.shape[2:]).swapaxes(0, 1)

    key, value = (split(x).swapaxes(2, 3) for x in (k, v))
    return _KeyChunk(key, value, split(mask), size * jnp.arange(count, dtype=jnp.uint32))


def _merge_keys(x: Array, length: int) -> Array:
    """Reshape [C, B, H, J, K] to [B, L, H, K], the inverse of `_split_keys`."""
    count, b, h, size, width = x.shape
    return x.transpose(1, 0, 3, 2, 4).reshape(b, count * size, h, width)[:, :length]


def _block_seeds(rate: float, rng_keys: Array | None, q_blocks: Array) -> list[Array] | None:
    """Return the two dropout seeds of each query, [N, B, H, S], or None for no dropout."""
    if rng_keys is None or not rate:
        return None
    count, b, h, _, size = q_blocks.shape
    return [x.reshape(b, h, count, size).transpose(2, 0, 1, 3) for x in row_dropout_seeds(rng_keys, h, count * size)]


def _scan(step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, xs: Any) -> tuple[Any, Any]:
    """Call `jax.lax.scan`, or `step` directly if there is only one iteration."""
    if len(xs[0]) > 1:
        return jax.lax.scan(step, carry, xs)
    carry, y = step(carry, jax.tree.map(lambda x: x[0], xs))
    return carry, jax.tree.map(lambda x: x[None], y)


def _product(equation: str, a: Array, b: Array) -> Array:
    """Compute an einsum in the narrower of both dtypes, accumulated in at least float32."""
    narrow = min(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)
    accum_dtype = jnp.promote_types(narrow, jnp.float32)
    return jnp.einsum(equation, a.astype(narrow), b.astype(narrow), preferred_element_type=accum_dtype)


def _positions(q_blocks: Array) -> np.ndarray:
    """Return the position of each query of blocks [N, B, H, K, S], [N, S]."""
    count, size = len(q_blocks), q_blocks.shape[-1]
    return np.arange(count * size, dtype=np.int32).reshape(count, size)


def _logits(chunk: _KeyChunk, q: Array, positions: Array, slopes: tuple[float, ...] | None) -> Array:
    """Compute the logits [B, H, J, S] of queries q [B, H, K, S] at positions [S]; -inf at masked keys."""
    logits = _product("bhjk,bhki->bhji", chunk.key, q) / math.sqrt(q.shape[2])
    if slopes is not None:
        keys = chunk.first.astype(jnp.int32) + jnp.arange(chunk.mask.shape[1], dtype=jnp.int32)
        distances = jnp.abs(keys[:, None] - positions[None]).astype(logits.dtype)
        logits = logits - jnp.asarray(slopes, logits.dtype)[None, :, None, None] * distances[None, None]
    return jnp.where(chunk.mask[:, None, :, None], logits, -jnp.inf)


def _dropout(weights: Array, rate: float, seeds: list[Array] | None, chunk: _KeyChunk) -> Array:
    """Drop the weights [B, H, J, S] that `attention_dropout` drops of the whole matrix."""
    if seeds is None:
        return weights
    first, second = (x[:, :, None] for x in seeds)
    return hash_dropout(weights, rate, [first + chunk.first * jnp.uint32(GOLDEN_RATIO_32), second], axis=2)
