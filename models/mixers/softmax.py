"""Softmax attention (Vaswani et al., 2017, arXiv:1706.03762), computed in blocks of queries and chunks of keys.

    y_i = sum_j a_ij v_j,    a_i = softmax_j(q_i . k_j / sqrt(K)) over the real keys j

No L x L array exists: as in FlashAttention (Dao et al., 2022, arXiv:2205.14135) sums over the keys are kept relative to
the largest logit so far, and the backward pass keeps the logarithm of each query's sum and computes the weights anew,
the dropped ones too. Memory is linear in L; time is not.

Weights are [B, H, J, S], J keys by S queries: then every product is one of rows by columns, and maximum and
sum go over rows, the forms in which XLA is fastest on a CPU.

Padded keys are masked, padded queries are not (the reference suite masks both, which makes the rows of
padded queries uniform; no real position sees the difference). An example without real keys gives zeros.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from models.core import QKVAttention
from models.dropout import GOLDEN_RATIO_32, hash_dropout, row_dropout_seeds
from models.ops import boolean_mask, matmul_precision

COMPLEXITY = ("L^2", "L")
BLOCK = 128  # queries; fewer make products thin
CHUNK = 1024  # keys; the weights of a block for many more of them leave a CPU's cache


def softmax_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    *,
    dropout_rate: float = 0.0,
    rng_keys: jax.Array | None = None,
    block: int = BLOCK,
) -> jax.Array:
    """Attention over the real keys, in memory linear in Lq and Lk; logits and sums in float32 or wider.

    Args:
      q:            [B, Lq, H, K]
      k:            [B, Lk, H, K]
      v:            [B, Lk, H, V]
      mask:         [B, Lk] bool, True = real key
      dropout_rate: of the weights; those drop that `attention_dropout` drops of the whole matrix
      rng_keys: [B], or None: nothing is dropped
      block:        queries at a time, rounded up to 16 where one block does not do

    Returns:
      [B, Lq, H, V], dtype of v. Zeros where an example has no real key.
    """
    mask = boolean_mask(mask)
    return _attend(_How(dropout_rate, block, matmul_precision()), q, k, v, mask, rng_keys)


class _How(NamedTuple):
    rate: float
    block: int
    precision: Any


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(how: _How, *arrays: Any) -> jax.Array:
    return _forward(how, *arrays)[0]


def _forward(
    how: _How, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: jax.Array | None
) -> tuple[jax.Array, tuple[Any, ...]]:
    """The result, and what the backward pass needs, among it log_sum [N, B, H, S]."""
    blocks, accum_dtype = _cut(q, how.block), jnp.promote_types(q.dtype, jnp.float32)
    count, b, h, _, size = blocks.shape
    seeds = _seeds(how.rate, rng_keys, blocks)

    def over(carry: Any, chunk: _Keys) -> tuple[Any, None]:
        value = chunk.value.swapaxes(2, 3)

        def step(_: None, now: tuple[Any, ...]) -> tuple[None, tuple[jax.Array, ...]]:
            """The largest logit so far, and what is summed relative to it."""
            q, seeds, (top, total, y) = now
            logits = _logits(chunk, q)
            largest = jnp.maximum(top, logits.max(2))
            finite = jnp.where(largest == -jnp.inf, 0, largest)
            fade, weights = jnp.exp(top - finite), jnp.exp(logits - finite[:, :, None])
            y = y * fade[:, :, None] + _product("bhvj,bhji->bhvi", value, _drop(weights, how.rate, seeds, chunk))
            return None, (largest, total * fade + weights.sum(2), y)

        return _scan(step, None, (blocks, seeds, carry))[1], None

    none = jnp.zeros((count, b, h, size), accum_dtype)
    begin = none - jnp.inf, none, jnp.zeros((count, b, h, v.shape[-1], size), accum_dtype)
    (top, total, y), _ = _scan(over, begin, _chunks(k, v, mask))
    total = jnp.where(total == 0, 1, total)
    log_sum = jnp.where(top == -jnp.inf, 0, top) + jnp.log(total)
    y = _join(y / total[:, :, :, None], q.shape[1]).astype(v.dtype)
    return y, (q, k, v, mask, rng_keys, y, log_sum)


def _backward(how: _How, kept: tuple[Any, ...], dy: jax.Array) -> tuple[jax.Array | None, ...]:
    """With w = exp(logits - log_sum) and its dropped form d: dv = d dy; dlogits = d (v . dy) - w (y . dy)."""
    q, k, v, mask, rng_keys, y, log_sum = kept
    accum_dtype, scale = log_sum.dtype, 1 / math.sqrt(q.shape[-1])
    blocks, y_blocks, dy_blocks = (_cut(x, how.block) for x in (q, y, dy))
    means = (y_blocks.astype(accum_dtype) * dy_blocks.astype(accum_dtype)).sum(
        3
    )  # of a query's v . dy under its weights
    seeds = _seeds(how.rate, rng_keys, blocks)

    def over(dq: jax.Array, chunk: _Keys) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        columns = chunk.key.swapaxes(2, 3)

        def step(carry: tuple[jax.Array, jax.Array], now: tuple[Any, ...]) -> tuple[Any, jax.Array]:
            dk, dv = carry
            q, dy, mean, log_sum, seeds, dq = now
            weights = jnp.exp(_logits(chunk, q) - log_sum[:, :, None])
            dropped = _drop(weights, how.rate, seeds, chunk)
            dv = dv + _product("bhji,bhiv->bhjv", dropped, dy.swapaxes(2, 3))
            dlogits = dropped * _product("bhjv,bhvi->bhji", chunk.value, dy) - weights * mean[:, :, None]
            dk = dk + _product("bhji,bhik->bhjk", dlogits, q.swapaxes(2, 3))
            return (dk, dv), dq + _product("bhkj,bhji->bhki", columns, dlogits)

        nothing = (jnp.zeros(chunk.key.shape, accum_dtype), jnp.zeros(chunk.value.shape, accum_dtype))
        of_keys, dq = _scan(step, nothing, (blocks, dy_blocks, means, log_sum, seeds, dq))
        return dq, of_keys

    with jax.default_matmul_precision(how.precision):
        dq, of_keys = _scan(over, jnp.zeros(blocks.shape, accum_dtype), _chunks(k, v, mask))
    dk, dv = (_whole(x, k.shape[1]) for x in of_keys)
    dq, dk = _join(dq * scale, q.shape[1]), dk * scale
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None, None


_attend.defvjp(_forward, _backward)


def _parts(length: int, most: int) -> tuple[int, int]:
    """Number and size of equal parts: whole vectors, unless one is enough."""
    count = -(-length // most)
    return count, length if count == 1 else -(-length // (16 * count)) * 16


def _cut(x: jax.Array, block: int) -> jax.Array:
    """[B, L, H, K] -> [N, B, H, K, S]: N blocks of S positions, zeros beyond L."""
    b, length, h, width = x.shape
    count, size = _parts(length, block)
    x = jnp.pad(x, ((0, 0), (0, count * size - length), (0, 0), (0, 0)))
    return x.reshape(b, count, size, h, width).transpose(1, 0, 3, 4, 2)


class _Keys(NamedTuple):
    """Some keys: key [B, H, J, K], value [B, H, J, V], mask [B, J], and the place of the first; or C times all that."""

    key: jax.Array
    value: jax.Array
    mask: jax.Array
    first: jax.Array


def _chunks(k: jax.Array, v: jax.Array, mask: jax.Array) -> _Keys:
    """All keys, in chunks of equal size."""
    length = k.shape[1]
    count, size = _parts(length, CHUNK)

    def cut(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, 0), (0, count * size - length), *[(0, 0)] * (x.ndim - 2)])
        return x.reshape(len(x), count, size, *x.shape[2:]).swapaxes(0, 1)

    key, value = (cut(x).swapaxes(2, 3) for x in (k, v))
    return _Keys(key, value, cut(mask), size * jnp.arange(count, dtype=jnp.uint32))


def _whole(x: jax.Array, length: int) -> jax.Array:
    """[C, B, H, J, K] -> [B, L, H, K]: undoes `_chunks`."""
    count, b, h, size, width = x.shape
    return x.transpose(1, 0, 3, 2, 4).reshape(b, count * size, h, width)[:, :length]


def _seeds(rate: float, rng_keys: jax.Array | None, blocks: jax.Array) -> list[jax.Array] | None:
    """Two [N, B, H, S], what the weights of the queries of each block are dropped by; None: they are not."""
    if rng_keys is None or not rate:
        return None
    count, b, h, _, size = blocks.shape
    return [x.reshape(b, h, count, size).transpose(2, 0, 1, 3) for x in row_dropout_seeds(rng_keys, h, count * size)]


def _join(x: jax.Array, length: int) -> jax.Array:
    """[N, B, H, K, S] -> [B, L, H, K]: undoes `_cut`."""
    count, b, h, width, size = x.shape
    return x.transpose(1, 0, 4, 2, 3).reshape(b, count * size, h, width)[:, :length]


def _scan(step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, parts: Any) -> tuple[Any, Any]:
    """`jax.lax.scan`; one part needs no loop."""
    if len(parts[0]) > 1:
        return jax.lax.scan(step, carry, parts)
    carry, made = step(carry, jax.tree.map(lambda x: x[0], parts))
    return carry, jax.tree.map(lambda x: x[None], made)


def _product(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """In the narrower of both types, accumulated in float32 or wider."""
    narrow = min(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)
    accum_dtype = jnp.promote_types(narrow, jnp.float32)
    return jnp.einsum(equation, a.astype(narrow), b.astype(narrow), preferred_element_type=accum_dtype)


def _logits(chunk: _Keys, q: jax.Array) -> jax.Array:
    """q [B, H, K, S] -> [B, H, J, S], -inf at masked keys: there exp gives 0."""
    logits = _product("bhjk,bhki->bhji", chunk.key, q) / math.sqrt(q.shape[2])
    return jnp.where(chunk.mask[:, None, :, None], logits, -jnp.inf)


def _drop(weights: jax.Array, rate: float, seeds: list[jax.Array] | None, chunk: _Keys) -> jax.Array:
    """weights [B, H, J, S] without those that `attention_dropout` drops of the whole matrix."""
    if seeds is None:
        return weights
    first, second = (x[:, :, None] for x in seeds)
    return hash_dropout(weights, rate, [first + chunk.first * jnp.uint32(GOLDEN_RATIO_32), second], axis=2)


class Softmax(QKVAttention):
    """Scaled dot-product attention, with dropout of the weights."""

    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: jax.Array | None
    ) -> jax.Array:
        return softmax_attention(q, k, v, mask, dropout_rate=self.dims.dropout, rng_keys=rng_keys)
