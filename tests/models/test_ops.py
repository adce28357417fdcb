"""Masked softmax, the state of linear attention, and GELU against their definitions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr

from models.ops import gelu, kv_state, masked_softmax


def test_masked_softmax_equals_its_definition() -> None:
    rng = np.random.default_rng(0)
    logits, mask = 50 * rng.normal(size=(3, 4, 9)), rng.random((3, 1, 9)) < 0.6
    mask[0] = True
    weights = np.where(mask, np.exp(logits - np.where(mask, logits, -np.inf).max(-1, keepdims=True)), 0)
    expected = weights / weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(masked_softmax(jnp.array(logits), jnp.array(mask)), expected, rtol=2e-5, atol=1e-30)
    assert masked_softmax(jnp.ones((2, 3), jnp.bfloat16), jnp.ones((2, 3), bool)).dtype == jnp.float32


@pytest.mark.parametrize("bad", [0.0, 1e30, -1e30])
def test_masked_softmax_without_entries_is_zero_with_zero_gradient(bad: float) -> None:
    logits, mask = jnp.full((2, 5), bad), jnp.array([[False] * 5, [True] + [False] * 4])
    weights, pull = jax.vjp(lambda logits: masked_softmax(logits, mask), logits)
    np.testing.assert_array_equal(weights, [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(pull(jnp.arange(10.0).reshape(2, 5))[0], np.zeros((2, 5)))


def test_kv_state_and_its_custom_gradient_equal_the_plain_sum() -> None:
    k, v, weights = (
        jax.random.normal(jax.random.key(n), (2, 3, *tail)) for n, tail in enumerate([(7, 4), (7, 5), (4, 5)])
    )

    def plain(k: jax.Array, v: jax.Array) -> jax.Array:
        return (k[..., :, None] * v[..., None, :]).sum(2)

    want = jax.grad(lambda k, v: (plain(k, v) * weights).sum(), (0, 1))(k, v)
    got = jax.grad(lambda k, v: (kv_state(k, v) * weights).sum(), (0, 1))(k, v)
    for a, b in zip((kv_state(k, v), *got), (plain(k, v), *want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2**-6)])
def test_gelu_is_exact(dtype: str, tolerance: float) -> None:
    x = jnp.linspace(-8, 8, 1_001).astype(dtype)
    x64 = np.asarray(x, np.float64)
    np.testing.assert_allclose(np.asarray(gelu(x), np.float64), x64 * ndtr(x64), atol=tolerance)
    slope = ndtr(x64) + x64 * np.exp(-(x64**2) / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(np.asarray(jax.vmap(jax.grad(gelu))(x), np.float64), slope, atol=tolerance)
