"""The convolution against its sum, position by position in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.mixers.conv import Conv
from tests.models.recurrent import assert_equal_to, of

DIMS = Dims(d_model=12, num_heads=3, qkv_dim=12, max_len=80, mlp_dim=12, bias=True)


def reference(mixer: Conv, x: np.ndarray) -> np.ndarray:
    """One example without padding, x [L, D]."""
    hidden = x @ of(mixer.input.kernel) + of(mixer.input.bias)
    taps = of(mixer.taps)
    y = np.zeros_like(hidden)
    for i in range(len(x)):
        for t, tap in enumerate(taps):
            j = i + t - len(taps) // 2
            if 0 <= j < len(x):
                y[i] += tap * hidden[j]
    y = np.asarray(jax.nn.gelu(jnp.asarray(y), approximate=False))
    return y @ of(mixer.output.kernel) + of(mixer.output.bias)


@pytest.mark.parametrize("kernel", [1, 5, 61, 79])
def test_it_is_the_sum(kernel: int) -> None:
    mixer = Conv(DIMS, kernel=kernel, rngs=nnx.Rngs(0))
    assert_equal_to(lambda x: reference(mixer, x), mixer)


@pytest.mark.parametrize("kernel", [5, 61])
def test_no_output_depends_on_a_position_farther_away_than_half_the_kernel(kernel: int) -> None:
    mixer = Conv(DIMS, kernel=kernel, rngs=nnx.Rngs(0))
    x, mask = jax.random.normal(jax.random.key(0), (1, 80, 12)), jnp.ones((1, 80), bool)
    gradient = jax.grad(lambda x: mixer(x, mask)[0, 40].sum())(x)
    sizes = np.abs(np.asarray(gradient)).max((0, 2))
    near = np.abs(np.arange(80) - 40) <= kernel // 2
    assert sizes[near].min() > 1e-4
    assert sizes[~near].max() < 1e-6


@pytest.mark.parametrize("kernel", [5, 61])
def test_its_parameters_are_about_those_of_attention(kernel: int) -> None:
    dims = Dims(d_model=64, num_heads=4, qkv_dim=64, max_len=80, mlp_dim=12)
    count = sum(x.size for x in jax.tree.leaves(nnx.state(Conv(dims, kernel=kernel, rngs=nnx.Rngs(0)), nnx.Param)))
    assert abs(count / (4 * 64 * 64) - 1) < 0.01


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="option kernel=4: must be odd"):
        Conv(DIMS, kernel=4, rngs=nnx.Rngs(0))
