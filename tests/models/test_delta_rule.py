"""The gated delta rule against its recurrence in float64, and as an associative memory."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.delta_rule import gated_delta_rule, unit_triangular_inverse

B, H, K, V = 2, 3, 6, 5


def inputs(length: int, strength: float = 0.3, dtype: Any = np.float32) -> list[np.ndarray]:
    rng = np.random.RandomState(length)
    q, k, v = (rng.randn(B, length, H, width) for width in (K, K, V))
    k = k / np.linalg.norm(k, axis=-1, keepdims=True)
    beta, log_decay = rng.rand(B, length, H), -strength * rng.exponential(size=(B, length, H))
    return [x.astype(dtype) for x in (q, k, v, beta, log_decay)]


def recurrence(*arrays: np.ndarray) -> np.ndarray:
    q, k, v, beta, log_decay = (np.asarray(x, np.float64) for x in arrays)
    state, ys = np.zeros((*q.shape[:1], *q.shape[2:], v.shape[-1])), []
    for t in range(q.shape[1]):
        state = np.exp(log_decay[:, t])[..., None, None] * state
        error = v[:, t] - np.einsum("bhkv,bhk->bhv", state, k[:, t])
        state = state + np.einsum("bhk,bhv->bhkv", k[:, t], beta[:, t, :, None] * error)
        ys.append(np.einsum("bhkv,bhk->bhv", state, q[:, t]))
    return np.stack(ys, 1)


@pytest.mark.parametrize("length", [1, 7, 64, 65, 150])
@pytest.mark.parametrize("strength", [0.0, 0.3, 50.0])
def test_it_is_the_recurrence(length: int, strength: float) -> None:
    arrays = inputs(length, strength)
    np.testing.assert_allclose(gated_delta_rule(*arrays), recurrence(*arrays), rtol=1e-3, atol=2e-5)


def test_gradients_are_those_of_the_recurrence() -> None:
    """By finite differences in float64 along a random direction."""
    with jax.enable_x64(True):
        arrays = inputs(80, 0.3, np.float64)
        rng = np.random.RandomState(0)
        weights = rng.randn(B, 80, H, V)
        gradients = jax.grad(lambda *xs: (gated_delta_rule(*xs) * weights).sum(), argnums=(0, 1, 2, 3, 4))(
            *map(jnp.asarray, arrays)
        )
        for n, gradient in enumerate(gradients):
            direction = rng.randn(*arrays[n].shape)
            moved = [[x + s * 1e-6 * direction if m == n else x for m, x in enumerate(arrays)] for s in (1, -1)]
            difference = (np.subtract(*(recurrence(*xs) for xs in moved)) * weights).sum() / 2e-6
            np.testing.assert_allclose((np.asarray(gradient) * direction).sum(), difference, rtol=1e-6)


def test_with_orthonormal_keys_it_is_an_exact_memory_in_which_a_later_value_replaces_an_earlier_one() -> None:
    length = 2 * K
    keys = np.tile(np.eye(K, dtype=np.float32), (2, 1))[None, :, None]  # each key is written twice
    values = np.random.RandomState(0).randn(1, length, 1, V).astype(np.float32)
    ones, zeros = np.ones((1, length, 1), np.float32), np.zeros((1, length, 1), np.float32)
    y = gated_delta_rule(keys, keys, values, ones, zeros)
    np.testing.assert_allclose(y, values, atol=1e-5)  # what was written last is read
    reading = np.concatenate([keys, keys[:, :K]], 1)
    padded = [np.pad(x, ((0, 0), (0, K), (0, 0), (0, 0))[: x.ndim]) for x in (keys, values, ones, zeros)]
    np.testing.assert_allclose(gated_delta_rule(reading, *padded)[:, length:], values[:, K:], atol=1e-5)


def test_a_beta_of_zero_writes_nothing() -> None:
    q, k, v, beta, log_decay = inputs(70)
    assert not np.asarray(gated_delta_rule(q, k, v, 0 * beta, log_decay)).any()


def test_padding_leaves_the_state_as_it_is() -> None:
    arrays = inputs(90)
    middle = [np.insert(x, [20] * 13, 0, axis=1) for x in arrays]
    y = np.delete(gated_delta_rule(*middle), range(20, 33), 1)
    np.testing.assert_allclose(y, gated_delta_rule(*arrays), rtol=1e-3, atol=1e-5)


def test_long_inputs_and_strong_decay_are_finite() -> None:
    for arrays in (inputs(2_000, 0.0), inputs(300, 1e4)):
        y, gradients = jax.value_and_grad(lambda *xs: gated_delta_rule(*xs).sum(), argnums=(0, 1, 2, 3, 4))(*arrays)
        assert all(np.isfinite(x).all() for x in (y, *gradients))


def test_bfloat16_is_summed_in_float32() -> None:
    arrays = [jnp.asarray(x, jnp.bfloat16) for x in inputs(200, 0.01)]
    y = gated_delta_rule(*arrays)
    assert y.dtype == jnp.bfloat16
    expected = recurrence(*(np.asarray(x, np.float64) for x in arrays))
    assert np.sqrt(((np.asarray(y, np.float64) - expected) ** 2).mean() / (expected**2).mean()) < 0.01


@pytest.mark.parametrize("size", [1, 5, 32])
def test_the_inverse_is_precise_where_powers_of_the_matrix_are_not(size: int) -> None:
    """All keys equal and beta = 1: the inverse has ones and minus ones next to the diagonal, A^15 exceeds 1e8."""
    inverse = unit_triangular_inverse(jnp.tril(jnp.ones((2, size, size)), -1))
    np.testing.assert_allclose(inverse[1], np.eye(size) - np.eye(size, k=-1), atol=1e-6)


def test_the_gradient_of_the_inverse() -> None:
    with jax.enable_x64(True):
        rng = np.random.RandomState(0)
        a, weights = np.tril(rng.randn(7, 7), -1), rng.randn(7, 7)
        gradient = jax.grad(lambda x: (unit_triangular_inverse(x) * weights).sum())(jnp.asarray(a))
        expected = jax.grad(lambda x: (jnp.linalg.inv(jnp.eye(7) + jnp.tril(x, -1)) * weights).sum())(jnp.asarray(a))
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12)
