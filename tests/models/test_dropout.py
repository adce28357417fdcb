"""Dropout: its hash, its rate, and that it depends on an example's key and an element's position only."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models.dropout
from models.dropout import fold_in_keys, hash_dropout, row_dropout_seeds, threefry

dropout = jax.jit(models.dropout.dropout, static_argnums=1)
attention_dropout = jax.jit(models.dropout.attention_dropout, static_argnums=1)


def keys_of(*seeds: int) -> jax.Array:
    return jnp.stack([jax.random.key(seed) for seed in seeds])


def test_threefry_equals_the_hash_of_jax_random() -> None:
    key = jax.random.key(7)
    word = jax.random.key_data(key)
    x0, x1 = jax.jit(threefry)(word[0], word[1], jnp.zeros(100, jnp.uint32), jnp.arange(100, dtype=jnp.uint32))
    with jax.threefry_partitionable(True):
        np.testing.assert_array_equal(x0 ^ x1, jax.random.bits(key, (100,)))


@pytest.mark.parametrize("shape", [(7,), (16,), (2, 5)])
def test_dropout_is_independent_of_length_and_batch(shape: tuple[int, ...]) -> None:
    rng_keys = keys_of(1, 2, 3)
    long = dropout(jnp.ones((3, 50, *shape)), 0.4, rng_keys)
    np.testing.assert_array_equal(dropout(jnp.ones((3, 23, *shape)), 0.4, rng_keys), long[:, :23])
    np.testing.assert_array_equal(dropout(jnp.ones((1, 50, *shape)), 0.4, rng_keys[1:2]), long[1:2])
    long = np.asarray(long)
    assert (long[0] != long[1]).any()
    assert (long[:, 0] != long[:, 1]).any()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_rate_and_scale(rate: float) -> None:
    shape = (4, 500, 64)
    y = np.asarray(dropout(jnp.ones(shape), rate, keys_of(1, 2, 3, 4)))
    kept = y != 0
    np.testing.assert_allclose(y[kept], 1 / (1 - rate), rtol=1e-6)
    assert abs(kept.mean() - (1 - rate)) < 5 * (rate * (1 - rate) / kept.size) ** 0.5


def test_elements_are_dropped_independently() -> None:
    """Correlations of columns, rows and examples, adjacent or a power of two apart, are those of fair coins."""
    kept = np.asarray(dropout(jnp.ones((64, 64, 256)), 0.5, jax.random.split(jax.random.key(0), 64))) != 0
    sign = np.where(kept, 1.0, -1.0)
    for axis in range(3):
        for offset in (1, 2, 3, 8, 32):
            pairs = sign.take(range(offset, sign.shape[axis]), axis) * sign.take(range(sign.shape[axis] - offset), axis)
            assert abs(pairs.mean()) < 5 / pairs.size**0.5, (axis, offset)
    for axes in ((0, 1), (0, 2), (1, 2)):  # no column, row or example is dropped more often than others
        means = sign.mean(axes)
        assert abs(means).max() < 5 / (sign.size / means.size) ** 0.5
        assert 0.5 < means.var() * sign.size / means.size < 1.6


def test_dropout_without_keys_or_rate_is_the_identity() -> None:
    x = jnp.ones((2, 3, 4))
    assert models.dropout.dropout(x, 0.5, None) is x
    assert models.dropout.dropout(x, 0.0, keys_of(1, 2)) is x
    assert models.dropout.attention_dropout(x, 0.5, None) is x
    assert fold_in_keys(None, 3) is None


def test_dropout_gradient_is_the_scaled_mask() -> None:
    x, rng_keys = jax.random.normal(jax.random.key(0), (2, 9, 6)), keys_of(1, 2)
    gradient = jax.jit(jax.grad(lambda x: dropout(x, 0.3, rng_keys).sum()))(x)
    np.testing.assert_allclose(gradient, dropout(jnp.ones_like(x), 0.3, rng_keys))
    assert dropout(x.astype(jnp.bfloat16), 0.3, rng_keys).dtype == jnp.bfloat16


def test_dropout_sites_are_independent() -> None:
    rng_keys = keys_of(1, 2)
    masks = [np.asarray(dropout(jnp.ones((2, 40, 8)), 0.5, fold_in_keys(rng_keys, site))) for site in range(3)]
    assert all((a != b).mean() > 0.4 for a, b in itertools.pairwise(masks))


@pytest.mark.parametrize("heads", [2, 6])
def test_attention_dropout_is_independent_of_both_lengths(heads: int) -> None:
    rng_keys = keys_of(5, 6)
    large = attention_dropout(jnp.ones((2, heads, 31, 40)), 0.3, rng_keys)
    np.testing.assert_array_equal(attention_dropout(jnp.ones((2, heads, 17, 23)), 0.3, rng_keys), large[:, :, :17, :23])
    np.testing.assert_array_equal(attention_dropout(jnp.ones((1, heads, 31, 40)), 0.3, rng_keys[1:]), large[1:])
    assert abs(float((large == 0).mean()) - 0.3) < 5 * 0.5 / large.size**0.5
    seeds = [seed[:, :, None, 11:20] for seed in row_dropout_seeds(rng_keys, heads, 31)]  # rows 11 to 19, transposed
    transposed = hash_dropout(jnp.ones((2, heads, 40, 9)), 0.3, seeds, axis=2)
    np.testing.assert_array_equal(transposed, large[:, :, 11:20].swapaxes(2, 3))
    flat = np.asarray(large).swapaxes(0, 1).reshape(heads, -1)
    assert len(np.unique(flat, axis=0)) == heads
