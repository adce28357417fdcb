"""Softmax attention (Vaswani et al., 2017, arXiv:1706.03762), computed in blocks of queries and chunks of keys.

    y_i = sum_j a_ij v_j,    a_i = softmax_j(q_i . k_j / sqrt(K)) over the real keys j

No L x L array exists. As in FlashAttention (Dao et al., 2022, arXiv:2205.14135), sums over keys are relative to the
largest logit so far. The backward pass recomputes the weights, and which of them are dropped, from the stored
logarithm of each query's sum. Memory is linear in L; time is quadratic.

Weights have the layout [B, H, J, S] for J keys and S queries. Every product is then a plain matrix product, and maximum
and sum reduce over rows; XLA executes these forms fastest on a CPU.

On a GPU, cuDNN computes attention where it can: in 16-bit dtypes and without dropout of the weights
(`models/fused_attention.py`). Otherwise blocks are larger on a GPU, where a small one takes no longer than the start of
its kernels.

Padded keys are masked, padded queries are not. The reference suite masks both, which changes only outputs at padded
positions. An example without real keys gives zeros.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from models.core import QKVAttention
from models.dropout import GOLDEN_RATIO_32, hash_dropout, row_dropout_seeds
from models.fused_attention import Implementation, choose_implementation, fused_attention, on_gpu
from models.ops import boolean_mask, matmul_precision, zero_padding

COMPLEXITY = ("L^2", "L")
BLOCK = 128  # queries per block; smaller blocks make matrix products inefficient
CHUNK = 1024  # keys per chunk; with many more, the weights of a block do not fit into a CPU's cache

# Largest size of the weights of a block on a GPU, unless those of 16 queries need more. Reading 1 GiB takes at least
# 0.2 ms at 5 TB/s, many times the 0.01 ms to start a kernel. The backward pass holds a few arrays of this size.
GPU_BYTES = 2**30


def softmax_attention(
    q: Array, k: Array, v: Array, mask: Array, *, dropout_rate: float = 0.0,
    rng_keys: Array | None = None, block: int | None = None, implementation: Implementation | None = None,
) -> Array:  # fmt: skip
    """Compute attention over the real keys in memory linear in Lq and Lk; logits and sums are in at least float32.

    The implementations "cudnn" and "xla" are those of `jax.nn.dot_product_attention`. They need q, k and v of one
    dtype, K = V and no dropout. "cudnn" runs on some GPUs only, see `choose_implementation`. "xla" runs everywhere and
    stores all Lq x Lk weights.

    Args:
      q:            [B, Lq, H, K]
      k:            [B, Lk, H, K]
      v:            [B, Lk, H, V]
      mask:         [B, Lk] bool, True = real key
      dropout_rate: dropout rate of the weights, which are dropped as by `attention_dropout` of the whole matrix
      rng_keys:     [B], or None for no dropout
      block:        queries per block, rounded up to a multiple of 16 if there are several blocks; None: 128, on a GPU
                    as many as `GPU_BYTES` allows
      implementation: "blocks", "cudnn" or "xla"; None: that of `choose_implementation`

    Returns:
      [B, Lq, H, V], dtype of v; zeros where an example has no real key

    Raises:
      ValueError: the implementation is unknown or cannot drop weights
    """
    mask = boolean_mask(mask)
    v = zero_padding(v, mask)
    dropout = rng_keys is not None and bool(dropout_rate)
    implementation = implementation or choose_implementation(q, k, v, dropout=dropout)
    if implementation == "blocks":
        default_block, chunk = _block_sizes(q, k)
        options = _Options(dropout_rate, block or default_block, chunk, matmul_precision())
        return _attend(options, q, k, v, mask, rng_keys)
    if implementation not in ("cudnn", "xla"):
        raise ValueError(f"implementation {implementation!r} is not one of blocks, cudnn, xla")
    if dropout:
        raise ValueError(f'implementation "{implementation}" cannot drop weights; use "blocks"')
    return fused_attention(implementation, q, k, v, mask)


def _block_sizes(q: Array, k: Array) -> tuple[int, int]:
    """Return queries per block and keys per chunk: on a GPU one chunk, and weights [B, H, J, S] of `GPU_BYTES`."""
    if not on_gpu():
        return BLOCK, CHUNK
    b, lk, h, _ = k.shape
    of_a_query = b * h * lk * jnp.promote_types(q.dtype, jnp.float32).itemsize
    return max(GPU_BYTES // max(of_a_query, 1) // 16, 1) * 16, lk


class _Options(NamedTuple):
    """Static arguments of forward and backward pass. block, chunk: most queries and keys computed together."""

    rate: float
    block: int
    chunk: int
    precision: Any


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(options: _Options, *arrays: Any) -> Array:
    return _forward(options, *arrays)[0]


def _forward(
    options: _Options, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None
) -> tuple[Array, tuple[Any, ...]]:
    """Return the output and the residuals of the backward pass, including log_sum [N, B, H, S]."""
    q_blocks, accum_dtype = _split_queries(q, options.block), jnp.promote_types(q.dtype, jnp.float32)
    count, b, h, _, size = q_blocks.shape
    block_seeds = _block_seeds(options.rate, rng_keys, q_blocks)

    def scan_key_chunks(carry: Any, chunk: _KeyChunk) -> tuple[Any, None]:
        value = chunk.value.swapaxes(2, 3)

        def scan_query_blocks(_: None, xs: tuple[Any, ...]) -> tuple[None, tuple[Array, ...]]:
            """Update the largest logit of each query and the sums relative to it."""
            q, seeds, (largest, total, y) = xs
            logits = _logits(chunk, q)
            new_largest = jnp.maximum(largest, logits.max(2))
            finite = jnp.where(new_largest == -jnp.inf, 0, new_largest)
            rescale, weights = jnp.exp(largest - finite), jnp.exp(logits - finite[:, :, None])
            y = y * rescale[:, :, None]
            y = y + _product("bhvj,bhji->bhvi", value, _dropout(weights, options.rate, seeds, chunk))
            return None, (new_largest, total * rescale + weights.sum(2), y)

        return _scan(scan_query_blocks, None, (q_blocks, block_seeds, carry))[1], None

    zeros = jnp.zeros((count, b, h, size), accum_dtype)
    init = zeros - jnp.inf, zeros, jnp.zeros((count, b, h, v.shape[-1], size), accum_dtype)
    (largest, total, y), _ = _scan(scan_key_chunks, init, _split_keys(k, v, mask, options.chunk))
    total = jnp.where(total == 0, 1, total)
    log_sum = jnp.where(largest == -jnp.inf, 0, largest) + jnp.log(total)
    y = _merge_queries(y / total[:, :, :, None], q.shape[1]).astype(v.dtype)
    return y, (q, k, v, mask, rng_keys, y, log_sum)


def _backward(options: _Options, residuals: tuple[Any, ...], dy: Array) -> tuple[Array | None, ...]:
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
            q, dy, mean, log_sum, seeds, dq = xs
            weights = jnp.exp(_logits(chunk, q) - log_sum[:, :, None])
            dropped = _dropout(weights, options.rate, seeds, chunk)
            dv = dv + _product("bhji,bhiv->bhjv", dropped, dy.swapaxes(2, 3))
            dlogits = dropped * _product("bhjv,bhvi->bhji", chunk.value, dy) - weights * mean[:, :, None]
            dk = dk + _product("bhji,bhik->bhjk", dlogits, q.swapaxes(2, 3))
            return (dk, dv), dq + _product("bhkj,bhji->bhki", key, dlogits)

        init = (jnp.zeros(chunk.key.shape, accum_dtype), jnp.zeros(chunk.value.shape, accum_dtype))
        dk_dv, dq = _scan(scan_query_blocks, init, (q_blocks, dy_blocks, means, log_sum, block_seeds, dq))
        return dq, dk_dv

    with jax.default_matmul_precision(options.precision):
        chunks = _split_keys(k, v, mask, options.chunk)
        dq, dk_dv = _scan(scan_key_chunks, jnp.zeros(q_blocks.shape, accum_dtype), chunks)
    dk, dv = (_merge_keys(x, k.shape[1]) for x in dk_dv)
    dq, dk = _merge_queries(dq * scale, q.shape[1]), dk * scale
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None, None


_attend.defvjp(_forward, _backward)


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


def _logits(chunk: _KeyChunk, q: Array) -> Array:
    """Compute the logits [B, H, J, S] of queries q [B, H, K, S]; -inf at masked keys."""
    logits = _product("bhjk,bhki->bhji", chunk.key, q) / math.sqrt(q.shape[2])
    return jnp.where(chunk.mask[:, None, :, None], logits, -jnp.inf)


def _dropout(weights: Array, rate: float, seeds: list[Array] | None, chunk: _KeyChunk) -> Array:
    """Drop the weights [B, H, J, S] that `attention_dropout` drops of the whole matrix."""
    if seeds is None:
        return weights
    first, second = (x[:, :, None] for x in seeds)
    return hash_dropout(weights, rate, [first + chunk.first * jnp.uint32(GOLDEN_RATIO_32), second], axis=2)


class Softmax(QKVAttention):
    """Scaled dot-product attention with dropout of the weights."""

    def attend(self, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None) -> Array:
        return softmax_attention(q, k, v, mask, dropout_rate=self.dims.dropout, rng_keys=rng_keys)
