"""Mamba-2 in both directions against its recurrence, token by token in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.mixers.mamba2 import Mamba2
from tests.models.recurrent import assert_equal_to, of

DIMS = Dims(d_model=12, num_heads=3, qkv_dim=12, max_len=80, mlp_dim=12)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def reference(mixer: Mamba2, u: np.ndarray, state_rows: int, kernel: int) -> np.ndarray:
    """One example without padding, u [L, D]."""
    length, width, heads = len(u), mixer.width, mixer.heads

    y = u @ of(mixer.input.kernel)
    z, convolved, dts = np.split(y, [width, len(y[0]) - 2 * heads], 1)
    padded = np.pad(convolved, ((kernel // 2, kernel // 2), (0, 0)))
    convolved = silu(
        np.stack([(padded[t : t + kernel] * of(mixer.taps)).sum(0) for t in range(length)]) + of(mixer.taps_bias)
    )
    x = convolved[:, :width].reshape(length, heads, -1)
    parts = np.split(convolved[:, width:], 4, 1)
    out = x * (x.reshape(length, -1) @ of(mixer.d_layer.kernel) + of(mixer.d))[:, :, None]
    for direction in (0, 1):
        b, c = parts[2 * direction : 2 * direction + 2]
        dt = np.log1p(np.exp(dts[:, direction * heads : (direction + 1) * heads] + of(mixer.dt_bias)))
        state, before = np.zeros((heads, state_rows, x.shape[-1])), None
        for t in range(length) if direction == 0 else range(length - 1, -1, -1):
            if before is not None:
                out[t] += before
            state = np.exp(-np.exp(of(mixer.log_a)) * dt[t])[:, None, None] * state
            state = state + (dt[t][:, None] * x[t])[:, None, :] * b[t][None, :, None]
            before = np.einsum("n,hnp->hp", c[t], state)
    y = out.reshape(length, -1)
    y = y / np.sqrt((y * y).mean(-1, keepdims=True) + 1e-5) * of(mixer.norm_scale)
    return (y * silu(z)) @ of(mixer.output.kernel)


@pytest.mark.parametrize(("state", "kernel", "head_width"), [(5, 3, 8), (16, 7, 64)])
def test_it_is_the_recurrence(state: int, kernel: int, head_width: int) -> None:
    mixer = Mamba2(DIMS, state=state, kernel=kernel, head_width=head_width, rngs=nnx.Rngs(0))
    assert mixer.heads == 24 // 8
    mixer.d[...] = jnp.array([0.5, 1.0, -2.0])
    mixer.log_a[...] = jnp.array([0.0, 1.0, -1.0])
    assert_equal_to(lambda x: reference(mixer, x, state, kernel), mixer)


def test_initial_steps_and_decays_are_those_of_the_authors() -> None:
    dims = Dims(d_model=256, num_heads=4, qkv_dim=256, max_len=80, mlp_dim=12)
    mixer = Mamba2(dims, head_width=1, rngs=nnx.Rngs(0))
    steps = np.log1p(np.exp(np.asarray(mixer.dt_bias[...], np.float64)))
    assert steps.min() > 0.99e-3
    assert steps.max() < 0.101
    assert np.log(steps).mean() == pytest.approx((np.log(1e-3) + np.log(0.1)) / 2, abs=0.2)  # log-uniform
    for variable in (mixer.dt_bias, mixer.log_a, mixer.d):
        assert variable.get_metadata()["decay"] is False


def test_its_parameters_are_counted() -> None:
    dims = Dims(d_model=256, num_heads=4, qkv_dim=256, max_len=80, mlp_dim=12)
    parameters = sum(p.size for p in jax.tree.leaves(nnx.state(Mamba2(dims, rngs=nnx.Rngs(0)), nnx.Param)))
    assert parameters == pytest.approx(6 * 256**2 + 4 * 64 * 256, rel=0.05)


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="option kernel=4: must be odd"):
        Mamba2(DIMS, kernel=4, rngs=nnx.Rngs(0))
