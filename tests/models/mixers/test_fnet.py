"""FNet against the transforms of numpy: values, gradients, precision and padding."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.mixers import build
from models.mixers.fnet import FNet, fourier, phase

LENGTHS = (40, 37, 12, 1, 0)
transform = jax.jit(fourier, static_argnums=2)


def dims(width: int, max_len: int) -> Dims:
    return Dims(d_model=width, num_heads=1, qkv_dim=width, max_len=max_len, mlp_dim=4)


def inputs(width: int, dtype: Any = np.float64) -> tuple[jax.Array, jax.Array]:
    """Return x with non-zero padding, and the lengths."""
    x = np.random.default_rng(width).normal(size=(len(LENGTHS), 40, width))
    return jnp.asarray(x, dtype), jnp.array(LENGTHS)


def reference(x: jax.Array, norm: Any = "ortho") -> np.ndarray:
    """Compute the transform of each example without padding by numpy."""
    y = np.zeros(x.shape)
    for b, n in enumerate(LENGTHS):
        if n:
            y[b, :n] = np.fft.fft2(np.asarray(x[b, :n], np.float64), norm=norm).real
    return y


@pytest.mark.parametrize("norm", ["ortho", "backward"])
@pytest.mark.parametrize("width", [1, 2, 7, 8])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equals_numpy_on_the_unpadded_example(dtype: str, width: int, norm: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        x, lengths = inputs(width, dtype)
        for padding in (0, 21):
            padded = jnp.pad(x, ((0, 0), (0, padding), (0, 0)))
            y = transform(padded, lengths, norm)
            assert y.dtype == dtype
            want = reference(padded, norm)
            np.testing.assert_allclose(y, want, atol=(1e-6 if dtype == "float32" else 1e-14) * np.abs(want).max())


def test_float32_is_exact_to_5e_7_at_4000() -> None:
    x = np.random.default_rng(0).normal(size=(2, 4000, 4)).astype(np.float32)
    y = transform(jnp.asarray(x), jnp.array([4000, 3989]), "ortho")
    for b, n in enumerate((4000, 3989)):
        want = np.fft.fft2(x[b, :n].astype(np.float64), norm="ortho").real
        assert np.abs(y[b, :n] - want).max() < 5e-7 * np.abs(want).max()


def test_the_gradient_equals_that_of_the_sum_of_cosines() -> None:
    with jax.enable_x64(True):
        x, lengths = inputs(6)
        probe = jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)

        def naive(x: jax.Array) -> jax.Array:
            position, column = jnp.arange(40), jnp.arange(6)
            total = jnp.zeros(())
            for b, n in enumerate(LENGTHS[:4]):
                over_length = 2 * jnp.pi * position[:n, None] * position[None, :n] / n
                over_width = 2 * jnp.pi * column[:, None] * column[None] / 6
                angle = over_length[:, None, :, None] + over_width[None, :, None, :]
                y = jnp.einsum("kdte,te->kd", jnp.cos(angle), x[b, :n]) / jnp.sqrt(6 * n)
                total += (y**2 * probe[b, :n]).sum()
            return total

        got = jax.jit(jax.grad(lambda x: (fourier(x, lengths) ** 2 * probe).sum()))(x)
        np.testing.assert_allclose(got, jax.jit(jax.grad(naive))(x), atol=1e-12)


def test_phase_does_not_overflow() -> None:
    rng = np.random.default_rng(0)
    n = np.concatenate([[1, 2, 46341, 65537, 2**20 - 1], rng.integers(1, 2**20, 200)])
    t = np.concatenate([[0, 1, 46341, 65536, 2**20 - 1], rng.integers(0, 2**20, 200)])
    got = phase(jnp.asarray(t, jnp.int32)[None, :], jnp.asarray(n, jnp.int32)[:, None])
    assert ((np.asarray(got, np.int64) - t.astype(np.int64)[None] ** 2) % (2 * n[:, None]) == 0).all()
    assert ((-n[:, None] <= got) & (got < n[:, None])).all()


def test_phases_of_long_inputs_are_exact() -> None:
    length = 50_000  # t^2 exceeds int32
    x = np.random.default_rng(0).normal(size=(1, length, 1)).astype(np.float32)
    want = np.fft.fft(x[0, :, 0].astype(np.float64), norm="ortho").real
    y = transform(jnp.asarray(x), jnp.array([length]), "ortho")[0, :, 0]
    assert np.abs(y - want).max() < 1e-6 * np.abs(want).max()


def test_the_padded_form_transforms_max_len_with_zeros() -> None:
    x, lengths = inputs(6, np.float32)
    mask = jnp.arange(40)[None, :] < lengths[:, None]
    y = jax.jit(FNet(dims(6, 64), length="padded", norm="backward", rngs=nnx.Rngs(0)))(x, mask)
    zeros = np.pad(np.where(mask[..., None], x, 0), ((0, 0), (0, 24), (0, 0)))
    want = np.fft.fft2(zeros.astype(np.float64), axes=(1, 2)).real[:, :40]
    np.testing.assert_allclose(y, want, atol=1e-6 * np.abs(want).max())
    full = jnp.ones((len(LENGTHS), 40), bool)
    padded = jax.jit(FNet(dims(6, 40), length="padded", rngs=nnx.Rngs(0)))(x, full)
    np.testing.assert_allclose(jax.jit(FNet(dims(6, 40), rngs=nnx.Rngs(0)))(x, full), padded, atol=1e-5)


def test_there_are_no_parameters_and_ortho_preserves_the_scale() -> None:
    mixer = FNet(dims(32, 100), rngs=nnx.Rngs(0))
    assert not jax.tree.leaves(nnx.split(mixer)[1])
    x = jax.random.normal(jax.random.key(0), (1, 100, 32))
    mask = jnp.ones((1, 100), bool)
    assert 0.6 < float(jax.jit(mixer)(x, mask).std()) < 0.8  # the real part has half of the energy
    assert 30 < float(jax.jit(FNet(dims(32, 100), norm="backward", rngs=nnx.Rngs(0)))(x, mask).std()) < 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "forward"}, "fnet: option norm=forward: not one of ortho, backward"),
        ({"length": "longest"}, "fnet: option length=longest: not one of own, padded"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(FNet, dims(6, 40), options, nnx.Rngs(0))
