"""Decayed linear attention against its recurrence in float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.decayed_attention import both_directions, decayed_attention

B, H, K, V = 2, 3, 4, 5


def inputs(length: int, channels: int, strength: float = 1.0, dtype: Any = np.float32) -> list[np.ndarray]:
    rng = np.random.RandomState(length + channels)
    q, k, v = (rng.randn(B, length, H, width) for width in (K, K, V))
    log_decay = -strength * rng.exponential(size=(B, length, H, channels))
    return [x.astype(dtype) for x in (q, k, v, log_decay)]


def recurrence(q: np.ndarray, k: np.ndarray, v: np.ndarray, log_decay: np.ndarray) -> np.ndarray:
    q, k, v, log_decay = (x.astype(np.float64) for x in (q, k, v, log_decay))
    state, ys = np.zeros((B, H, K, V)), []
    for t in range(q.shape[1]):
        state = np.exp(log_decay[:, t])[..., None] * state + k[:, t, :, :, None] * v[:, t, :, None, :]
        ys.append(np.einsum("bhk,bhkv->bhv", q[:, t], state))
    return np.stack(ys, 1)


@pytest.mark.parametrize("channels", [1, K])
@pytest.mark.parametrize("length", [1, 7, 16, 64, 150])
@pytest.mark.parametrize("strength", [0.0, 0.3, 50.0])
def test_it_is_the_recurrence(length: int, channels: int, strength: float) -> None:
    arrays = inputs(length, channels, strength)
    np.testing.assert_allclose(decayed_attention(*arrays), recurrence(*arrays), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("channels", [1, K])
@pytest.mark.parametrize("length", [1, 7, 16, 64, 150])
@pytest.mark.parametrize("strength", [0.0, 0.3, 4.9])
def test_a_constant_decay_is_the_recurrence(length: int, channels: int, strength: float) -> None:
    q, k, v, _ = inputs(length, channels)
    decay = -strength * np.linspace(0.5, 1, H * channels, dtype=np.float32).reshape(H, channels)
    expected = recurrence(q, k, v, np.broadcast_to(decay, (B, length, H, channels)))
    np.testing.assert_allclose(decayed_attention(q, k, v, decay), expected, rtol=1e-4, atol=2e-5)


def test_a_strong_constant_decay_is_finite_with_finite_gradients() -> None:
    for channels in (1, K):
        q, k, v, _ = inputs(100, channels)
        decay = jnp.full((H, channels), -1e4)
        y, gradients = jax.value_and_grad(lambda *xs: decayed_attention(*xs).sum(), argnums=(0, 1, 2, 3))(
            q, k, v, decay
        )
        assert all(np.isfinite(x).all() for x in (y, *gradients))


@pytest.mark.parametrize("channels", [1, K])
def test_gradients_of_a_constant_decay_are_those_of_one_that_is_repeated(channels: int) -> None:
    q, k, v, _ = inputs(70, channels)
    decay = -np.linspace(0.1, 1, H * channels, dtype=np.float32).reshape(H, channels)

    def loss(decay: jax.Array, constant: bool) -> jax.Array:
        repeated = jnp.broadcast_to(decay, (B, 70, H, channels))
        return (decayed_attention(q, k, v, decay if constant else repeated) ** 2).sum()

    first, second = (jax.grad(loss)(jnp.asarray(decay), constant) for constant in (True, False))
    np.testing.assert_allclose(first, second, rtol=1e-3)


@pytest.mark.parametrize("channels", [1, K])
def test_gradients_are_those_of_the_recurrence(channels: int) -> None:
    """By finite differences in float64 along a random direction."""
    with jax.enable_x64(True):
        arrays = inputs(40, channels, 0.3, np.float64)
        rng = np.random.RandomState(0)
        directions = [rng.randn(*x.shape) for x in arrays]
        weights = rng.randn(B, 40, H, V)
        loss = lambda *xs: (decayed_attention(*xs) * weights).sum()  # noqa: E731
        gradients = jax.grad(loss, argnums=(0, 1, 2, 3))(*map(jnp.asarray, arrays))
        for n, (gradient, direction) in enumerate(zip(gradients, directions, strict=True)):
            moved = [[x + s * 1e-6 * direction if m == n else x for m, x in enumerate(arrays)] for s in (1, -1)]
            difference = (np.subtract(*(recurrence(*xs) for xs in moved)) * weights).sum() / 2e-6
            np.testing.assert_allclose((np.asarray(gradient) * direction).sum(), difference, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, K])
def test_strong_decay_is_finite_with_finite_gradients(channels: int) -> None:
    arrays = inputs(100, channels, 1e4)
    y, gradients = jax.value_and_grad(lambda *xs: decayed_attention(*xs).sum(), argnums=(0, 1, 2, 3))(*arrays)
    assert all(np.isfinite(x).all() for x in (y, *gradients))


@pytest.mark.parametrize("channels", [1, K])
def test_padding_leaves_the_state_as_it_is(channels: int) -> None:
    arrays = inputs(50, channels)
    padded = [np.pad(x, ((0, 0), (0, 30), (0, 0), (0, 0))) for x in arrays]
    np.testing.assert_allclose(decayed_attention(*padded)[:, :50], decayed_attention(*arrays), rtol=1e-5, atol=1e-6)
    middle = [np.insert(x, [20] * 13, 0, axis=1) for x in arrays]
    y = decayed_attention(*middle)
    np.testing.assert_allclose(np.delete(y, range(20, 33), 1), decayed_attention(*arrays), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, K])
def test_both_directions_are_the_recurrence_and_that_of_the_flipped_sequence(channels: int) -> None:
    first, second = inputs(37, channels), inputs(38, channels)
    second = [x[:, :37] for x in second]
    forward, backward = both_directions(tuple(first), tuple(second))  # type: ignore[arg-type]
    np.testing.assert_allclose(forward, recurrence(*first), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(backward, recurrence(*(x[:, ::-1] for x in second))[:, ::-1], rtol=1e-4, atol=1e-5)


def test_constant_decays_of_two_directions_must_be_one() -> None:
    q, k, v, _ = inputs(37, 1)
    decay = np.full((H, 1), -0.5, np.float32)
    forward, backward = both_directions((q, k, v, decay), (q, k, v, decay))  # type: ignore[arg-type]
    repeated = np.broadcast_to(decay, (B, 37, H, 1))
    np.testing.assert_allclose(forward, recurrence(q, k, v, repeated), rtol=1e-4, atol=1e-5)
    flipped = recurrence(*(x[:, ::-1] for x in (q, k, v, repeated)))[:, ::-1]
    np.testing.assert_allclose(backward, flipped, rtol=1e-4, atol=1e-5)
    for other in (2 * decay, repeated):
        with pytest.raises(ValueError, match="the same array"):
            both_directions((q, k, v, decay), (q, k, v, other))  # type: ignore[arg-type]


def test_bfloat16_is_summed_in_float32() -> None:
    arrays = [jnp.asarray(x, jnp.bfloat16) for x in inputs(200, 1, 0.01)]
    y = decayed_attention(*arrays)
    assert y.dtype == jnp.bfloat16
    expected = recurrence(*(np.asarray(x, np.float64) for x in arrays))
    assert np.sqrt(((np.asarray(y, np.float64) - expected) ** 2).mean() / (expected**2).mean()) < 0.01
