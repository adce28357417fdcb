from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import ndtr

from models import core
from models.core import Dims, QKVAttention, fold, masked_softmax, threefry

dropout = jax.jit(core.dropout, static_argnums=1)
attention_dropout = jax.jit(core.attention_dropout, static_argnums=1)


def keys_of(*seeds: int) -> jax.Array:
    return jnp.stack([jax.random.key(seed) for seed in seeds])


def test_dims_divide_their_heads() -> None:
    assert Dims(d_model=64, num_heads=4, qkv_dim=32, max_len=10, mlp_dim=8).head_dim == 8
    with pytest.raises(ValueError, match="qkv_dim 30 is not divisible by num_heads 4"):
        Dims(d_model=64, num_heads=4, qkv_dim=30, max_len=10, mlp_dim=8)


def test_threefry_is_the_hash_of_jax_random() -> None:
    key = jax.random.key(7)
    word = jax.random.key_data(key)
    x0, x1 = jax.jit(threefry)(word[0], word[1], jnp.zeros(100, jnp.uint32), jnp.arange(100, dtype=jnp.uint32))
    with jax.threefry_partitionable(True):
        np.testing.assert_array_equal(x0 ^ x1, jax.random.bits(key, (100,)))


@pytest.mark.parametrize("shape", [(7,), (16,), (2, 5)])
def test_dropout_does_not_see_length_or_batch(shape: tuple[int, ...]) -> None:
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


def test_places_are_dropped_independently() -> None:
    """Columns, rows and keys that are neighbours, or a power of two apart: correlations as of a fair coin."""
    kept = np.asarray(dropout(jnp.ones((64, 64, 256)), 0.5, jax.random.split(jax.random.key(0), 64))) != 0
    sign = np.where(kept, 1.0, -1.0)
    for axis in range(3):
        for apart in (1, 2, 3, 8, 32):
            pairs = sign.take(range(apart, sign.shape[axis]), axis) * sign.take(range(sign.shape[axis] - apart), axis)
            assert abs(pairs.mean()) < 5 / pairs.size**0.5, (axis, apart)
    for axes in ((0, 1), (0, 2), (1, 2)):  # no column, row or example is dropped more often than others
        means = sign.mean(axes)
        assert abs(means).max() < 5 / (sign.size / means.size) ** 0.5
        assert 0.5 < means.var() * sign.size / means.size < 1.6


def test_dropout_without_keys_or_rate_is_the_identity() -> None:
    x = jnp.ones((2, 3, 4))
    assert core.dropout(x, 0.5, None) is x
    assert core.dropout(x, 0.0, keys_of(1, 2)) is x
    assert core.attention_dropout(x, 0.5, None) is x
    assert fold(None, 3) is None


def test_dropout_gradient_is_its_mask() -> None:
    x, rng_keys = jax.random.normal(jax.random.key(0), (2, 9, 6)), keys_of(1, 2)
    gradient = jax.jit(jax.grad(lambda x: dropout(x, 0.3, rng_keys).sum()))(x)
    np.testing.assert_allclose(gradient, dropout(jnp.ones_like(x), 0.3, rng_keys))
    assert dropout(x.astype(jnp.bfloat16), 0.3, rng_keys).dtype == jnp.bfloat16


def test_sites_have_keys_of_their_own() -> None:
    rng_keys = keys_of(1, 2)
    masks = [np.asarray(dropout(jnp.ones((2, 40, 8)), 0.5, fold(rng_keys, site))) for site in range(3)]
    assert all((a != b).mean() > 0.4 for a, b in itertools.pairwise(masks))


@pytest.mark.parametrize("heads", [2, 6])
def test_attention_dropout_does_not_see_either_length(heads: int) -> None:
    rng_keys = keys_of(5, 6)
    large = attention_dropout(jnp.ones((2, heads, 31, 40)), 0.3, rng_keys)
    np.testing.assert_array_equal(attention_dropout(jnp.ones((2, heads, 17, 23)), 0.3, rng_keys), large[:, :, :17, :23])
    np.testing.assert_array_equal(attention_dropout(jnp.ones((1, heads, 31, 40)), 0.3, rng_keys[1:]), large[1:])
    assert abs(float((large == 0).mean()) - 0.3) < 5 * 0.5 / large.size**0.5
    seeds = [seed[:, :, None, 11:20] for seed in core.row_seeds(rng_keys, heads, 31)]  # some rows, columns first
    turned = core.drop(jnp.ones((2, heads, 40, 9)), 0.3, seeds, axis=2)
    np.testing.assert_array_equal(turned, large[:, :, 11:20].swapaxes(2, 3))
    flat = np.asarray(large).swapaxes(0, 1).reshape(heads, -1)
    assert len(np.unique(flat, axis=0)) == heads


def test_masked_softmax() -> None:
    rng = np.random.default_rng(0)
    logits, mask = 50 * rng.normal(size=(3, 4, 9)), rng.random((3, 1, 9)) < 0.6
    mask[0] = True
    weights = np.where(mask, np.exp(logits - np.where(mask, logits, -np.inf).max(-1, keepdims=True)), 0)
    expected = weights / weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(masked_softmax(jnp.array(logits), jnp.array(mask)), expected, rtol=2e-5, atol=1e-30)
    assert masked_softmax(jnp.ones((2, 3), jnp.bfloat16), jnp.ones((2, 3), bool)).dtype == jnp.float32


@pytest.mark.parametrize("bad", [0.0, 1e30, -1e30])
def test_masked_softmax_of_nothing_is_zero_with_zero_gradient(bad: float) -> None:
    logits, mask = jnp.full((2, 5), bad), jnp.array([[False] * 5, [True] + [False] * 4])
    weights, pull = jax.vjp(lambda logits: masked_softmax(logits, mask), logits)
    np.testing.assert_array_equal(weights, [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(pull(jnp.arange(10.0).reshape(2, 5))[0], np.zeros((2, 5)))


class TakeValues(QKVAttention):
    """Head h of the result is head h of the values, times its number."""

    def attend(self, q, k, v, mask, rng_keys):  # type: ignore[no-untyped-def]
        assert q.shape == k.shape == v.shape == (2, 5, 3, 4)
        return v * jnp.arange(1.0, 4.0)[None, None, :, None]


def test_state_of_keys_and_values_has_the_gradient_of_its_sum() -> None:
    k, v, weights = (
        jax.random.normal(jax.random.key(n), (2, 3, *tail)) for n, tail in enumerate([(7, 4), (7, 5), (4, 5)])
    )

    def plain(k: jax.Array, v: jax.Array) -> jax.Array:
        return (k[..., :, None] * v[..., None, :]).sum(2)

    want = jax.grad(lambda k, v: (plain(k, v) * weights).sum(), (0, 1))(k, v)
    got = jax.grad(lambda k, v: (core.state_of(k, v) * weights).sum(), (0, 1))(k, v)
    for a, b in zip((core.state_of(k, v), *got), (plain(k, v), *want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2**-6)])
def test_gelu_is_the_exact_one(dtype: str, tolerance: float) -> None:
    x = jnp.linspace(-8, 8, 1_001).astype(dtype)
    wide = np.asarray(x, np.float64)
    np.testing.assert_allclose(np.asarray(core.gelu(x), np.float64), wide * ndtr(wide), atol=tolerance)
    slope = ndtr(wide) + wide * np.exp(-(wide**2) / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(np.asarray(jax.vmap(jax.grad(core.gelu))(x), np.float64), slope, atol=tolerance)


@pytest.mark.parametrize("bias", [False, True])
def test_qkv_attention_projects_and_splits(bias: bool) -> None:
    dims = Dims(d_model=8, num_heads=3, qkv_dim=12, max_len=5, mlp_dim=8, bias=bias)
    mixer = TakeValues(dims, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    scale = np.repeat([1.0, 2.0, 3.0], 4)
    expected = (np.asarray(x) @ np.asarray(mixer.value.kernel[...]) * scale) @ np.asarray(mixer.output.kernel[...])
    np.testing.assert_allclose(mixer(x, jnp.ones((2, 5), bool)), expected, rtol=1e-5, atol=1e-5)
    leaves = jax.tree.leaves(nnx.state(mixer, nnx.Param))
    assert sum(p.size for p in leaves) == 4 * 8 * 12 + bias * (3 * 12 + 8)
    bound = (6 / (8 + 12)) ** 0.5
    assert 0.8 * bound < float(jnp.abs(mixer.query.kernel[...]).max()) <= bound
    with pytest.raises(NotImplementedError, match="QKVAttention has no attend"):
        QKVAttention(dims, rngs=nnx.Rngs(0))(x, jnp.ones((2, 5), bool))
