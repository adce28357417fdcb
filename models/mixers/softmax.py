"""Softmax attention (Vaswani et al., 2017, arXiv:1706.03762), computed in blocks of queries.

    y_i = sum_j a_ij v_j,    a_i = softmax_j(q_i . k_j / sqrt(K)) over the real keys j

A block of queries sees all keys at once, so its softmax is the plain one. No L x L array exists: as in FlashAttention
(Dao et al., 2022, arXiv:2205.14135) the backward pass keeps the logarithm of each query's sum and computes the
weights anew, the dropped ones too. Memory is linear in L; time is not.

Within a block weights are [B, H, Lk, S], queries last: then every product is one of rows by columns, and maximum and
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

from models.core import QKVAttention, drop, row_seeds

COMPLEXITY = ("L^2", "L")
BLOCK = 128  # queries: weights that a CPU's cache holds at lengths of some thousands; fewer make products thin


def softmax_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    *,
    dropout_rate: float = 0.0,
    keys: jax.Array | None = None,
    block: int = BLOCK,
) -> jax.Array:
    """Attention over the real keys, in memory linear in Lq and Lk; logits and sums in float32 or wider.

    Args:
      q:            [B, Lq, H, K]
      k:            [B, Lk, H, K]
      v:            [B, Lk, H, V]
      mask:         [B, Lk] bool, True = real key
      dropout_rate: of the weights; those drop that `attention_dropout` drops of the whole matrix
      keys:         [B], or None: nothing is dropped
      block:        queries at a time, rounded up to 16 where one block does not do

    Returns:
      [B, Lq, H, V], dtype of v. Zeros where an example has no real key.
    """
    # The backward pass is traced when the caller's `jax.default_matmul_precision` is over: it takes it along.
    how = _How(dropout_rate, block, jax.config.jax_default_matmul_precision)  # type: ignore[attr-defined]
    return _attend(how, q, k, v, mask, keys)


class _How(NamedTuple):
    rate: float
    block: int
    precision: Any


Pair = tuple[jax.Array, jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(how: _How, *arrays: Any) -> jax.Array:
    return _forward(how, *arrays)[0]


def _forward(
    how: _How, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, keys: jax.Array | None
) -> tuple[jax.Array, tuple[Any, ...]]:
    """The result, and what the backward pass needs, among it log_sum [N, B, H, S]."""
    key, value = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 3, 1)  # [B, H, Lk, K], [B, H, V, Lk]
    blocks = _cut(q, how.block)

    def step(carry: None, now: tuple[jax.Array, Any]) -> tuple[None, Pair]:
        q, seeds = now
        logits = _logits(key, q, mask)
        top = logits.max(2)
        top = jnp.where(top == -jnp.inf, 0, top)
        weights = jnp.exp(logits - top[:, :, None])
        total = weights.sum(2)
        total = jnp.where(total == 0, 1, total)
        y = _product("bhvj,bhji->bhvi", value, _drop(weights, how.rate, seeds)) / total[:, :, None]
        return carry, (y, top + jnp.log(total))

    _, (y, log_sum) = _scan(step, None, (blocks, _seeds(how.rate, keys, blocks)))
    y = _join(y, q.shape[1]).astype(v.dtype)
    return y, (q, k, v, mask, keys, y, log_sum)


def _backward(how: _How, kept: tuple[Any, ...], dy: jax.Array) -> tuple[jax.Array | None, ...]:
    """With w = exp(logits - log_sum) and its dropped form d: dv = d dy; dlogits = d (v . dy) - w (y . dy)."""
    q, k, v, mask, keys, y, log_sum = kept
    key, value = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    key_columns = key.swapaxes(2, 3)
    wide, scale = log_sum.dtype, 1 / math.sqrt(q.shape[-1])
    blocks = _cut(q, how.block)

    def step(carry: Pair, now: tuple[Any, ...]) -> tuple[Pair, jax.Array]:
        dk, dv = carry
        q, y, dy, log_sum, seeds = now
        weights = jnp.exp(_logits(key, q, mask) - log_sum[:, :, None])
        dropped = _drop(weights, how.rate, seeds)
        dv = dv + _product("bhji,bhiv->bhjv", dropped, dy.swapaxes(2, 3))
        mean = (y.astype(wide) * dy.astype(wide)).sum(2)  # of a query's v . dy under its weights
        dlogits = dropped * _product("bhjv,bhvi->bhji", value, dy) - weights * mean[:, :, None]
        dk = dk + _product("bhji,bhik->bhjk", dlogits, q.swapaxes(2, 3))
        return (dk, dv), _product("bhkj,bhji->bhki", key_columns, dlogits)

    with jax.default_matmul_precision(how.precision):
        nothing = (jnp.zeros(key.shape, wide), jnp.zeros(value.shape, wide))
        inputs = (blocks, _cut(y, how.block), _cut(dy, how.block), log_sum, _seeds(how.rate, keys, blocks))
        (dk, dv), dq = _scan(step, nothing, inputs)
    dq, dk, dv = _join(dq * scale, q.shape[1]), (dk * scale).swapaxes(1, 2), dv.swapaxes(1, 2)
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None, None


_attend.defvjp(_forward, _backward)


def _cut(x: jax.Array, block: int) -> jax.Array:
    """[B, L, H, K] -> [N, B, H, K, S]: N blocks of S positions, zeros beyond L."""
    b, length, h, width = x.shape
    count = -(-length // block)
    size = length if count == 1 else -(-length // (16 * count)) * 16  # whole vectors
    x = jnp.pad(x, ((0, 0), (0, count * size - length), (0, 0), (0, 0)))
    return x.reshape(b, count, size, h, width).transpose(1, 0, 3, 4, 2)


def _seeds(rate: float, keys: jax.Array | None, blocks: jax.Array) -> list[jax.Array] | None:
    """Two [N, B, H, S], what the weights of the queries of each block are dropped by; None: they are not."""
    if keys is None or not rate:
        return None
    count, b, h, _, size = blocks.shape
    return [x.reshape(b, h, count, size).transpose(2, 0, 1, 3) for x in row_seeds(keys, h, count * size)]


def _join(x: jax.Array, length: int) -> jax.Array:
    """[N, B, H, K, S] -> [B, L, H, K]: undoes `_cut`."""
    count, b, h, width, size = x.shape
    return x.transpose(1, 0, 4, 2, 3).reshape(b, count * size, h, width)[:, :length]


def _scan(step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, blocks: tuple[Any, ...]) -> tuple[Any, Any]:
    """`jax.lax.scan`; one block needs no loop."""
    if len(blocks[0]) > 1:
        return jax.lax.scan(step, carry, blocks)
    carry, made = step(carry, jax.tree.map(lambda x: x[0], blocks))
    return carry, jax.tree.map(lambda x: x[None], made)


def _product(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """In the narrower of both types, accumulated in float32 or wider."""
    narrow = min(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)
    wide = jnp.promote_types(narrow, jnp.float32)
    return jnp.einsum(equation, a.astype(narrow), b.astype(narrow), preferred_element_type=wide)


def _logits(key: jax.Array, q: jax.Array, mask: jax.Array) -> jax.Array:
    """key [B, H, Lk, K], q [B, H, K, S], mask [B, Lk] -> [B, H, Lk, S], -inf at masked keys: there exp gives 0."""
    logits = _product("bhjk,bhki->bhji", key, q) / math.sqrt(q.shape[2])
    return jnp.where(mask[:, None, :, None], logits, -jnp.inf)


def _drop(weights: jax.Array, rate: float, seeds: list[jax.Array] | None) -> jax.Array:
    """weights [B, H, Lk, S] without those that `attention_dropout` drops."""
    return weights if seeds is None else drop(weights, rate, [x[:, :, None] for x in seeds], axis=2)


class Softmax(QKVAttention):
    """Scaled dot-product attention, with dropout of the weights."""

    def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, keys: jax.Array | None) -> jax.Array:
        return softmax_attention(q, k, v, mask, dropout_rate=self.dims.dropout, keys=keys)
