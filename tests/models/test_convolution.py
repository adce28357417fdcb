"""Convolutions by FFT and sums of exponentials against their definitions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.convolution import exponential_kernel, fast_fft_length, long_convolution


def dense(x: jax.Array, forward: jax.Array, backward: jax.Array | None) -> jax.Array:
    """Compute `long_convolution` by a matrix [L, L] for each channel."""
    length = x.shape[1]
    lag = np.arange(length)[:, None] - np.arange(length)[None, :]
    matrix = jnp.where((lag >= 0) & (lag < forward.shape[1]), forward[:, lag % forward.shape[1]], 0)
    if backward is not None and backward.shape[1]:
        back = -lag - 1
        matrix += jnp.where((back >= 0) & (back < backward.shape[1]), backward[:, back % backward.shape[1]], 0)
    return jnp.einsum("dij,bjd->bid", matrix, x)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("length", "taps", "back"),
    [(1, 1, 0), (1, 1, None), (2, 2, 1), (17, 17, 16), (20, 3, 19), (20, 20, 4), (15, 15, None)],
)
def test_long_convolution_equals_the_dense_product(length: int, taps: int, back: int | None) -> None:
    rng = np.random.default_rng(length)
    x, forward = jnp.asarray(rng.normal(size=(2, length, 3))), jnp.asarray(rng.normal(size=(3, taps)))
    backward = None if back is None else jnp.asarray(rng.normal(size=(3, back)))
    probe = jnp.asarray(rng.normal(size=x.shape))

    def value_and_gradients(convolve: Any) -> Any:
        y, pull = jax.vjp(convolve, x, forward, backward)
        return y, pull(probe)

    got, want = (jax.jit(lambda c=c: value_and_gradients(c))() for c in (long_convolution, dense))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), got, want)


def test_long_convolution_in_float32_at_length_4000_and_bfloat16() -> None:
    rng = np.random.default_rng(0)
    x, forward = rng.normal(size=(1, 4000, 1)), rng.normal(size=(1, 4000)) * np.exp(-np.arange(4000) / 300)
    y = long_convolution(jnp.asarray(x, jnp.float32), jnp.asarray(forward, jnp.float32))
    want = np.convolve(x[0, :, 0], forward[0])[:4000]
    np.testing.assert_allclose(y[0, :, 0], want, atol=2e-6 * np.abs(want).max())
    assert long_convolution(jnp.ones((1, 5, 1), jnp.bfloat16), jnp.ones((1, 5))).dtype == jnp.float32


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("length", [1, 2, 3, 10, 49, 50])
@pytest.mark.parametrize("kind", [float, complex])
def test_exponential_kernel_equals_its_definition(length: int, kind: type) -> None:
    rng = np.random.default_rng(length)
    weights, rates = rng.normal(size=(2, 2, 3, 4)), rng.uniform(-0.3, 0, (2, 2, 4))
    if kind is complex:
        weights, rates = weights[0] + 1j * weights[1], rates[0] + 10j * rates[1]
    else:
        weights, rates = weights[0], rates[0]
    probe = jnp.asarray(rng.normal(size=(2, 3, length)))

    def table(weights: jax.Array, rates: jax.Array) -> jax.Array:
        powers = jnp.exp(rates[..., None] * jnp.arange(length)[None, None])
        return (weights[..., None] * powers[:, None]).sum(2).real

    def value_and_gradients(kernel: Any) -> Any:
        y, pull = jax.vjp(kernel, jnp.asarray(weights), jnp.asarray(rates))
        return y, pull(probe)

    got = jax.jit(lambda: value_and_gradients(lambda w, r: exponential_kernel(w, r, length)))()
    want = jax.jit(lambda: value_and_gradients(table))()
    assert got[0].dtype == jnp.float64
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), got, want)


def test_fast_fft_lengths_are_the_smallest_even_5_smooth_numbers() -> None:
    smooth = sorted(2 * 2**i * 3**j * 5**k for i in range(13) for j in range(8) for k in range(6))
    for length in [*range(1, 300), 1999, 2047, 2049, 7999]:
        assert fast_fft_length(length) == next(s for s in smooth if s >= length)
