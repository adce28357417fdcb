"""The long convolution against its sum, position by position in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.mixers.longconv import LongConv, squash
from tests.models.recurrent import assert_equal_to, of, sigmoid

DIMS = Dims(d_model=12, num_heads=3, qkv_dim=12, max_len=80, mlp_dim=12)


def reference(mixer: LongConv, x: np.ndarray) -> np.ndarray:
    """One example without padding, x [L, D]."""
    k = of(mixer.kernels)
    k = np.where(np.abs(k) > mixer.shrink, k - np.sign(k) * mixer.shrink, 0)
    y = x * of(mixer.d)
    for i in range(len(x)):
        for j in range(len(x)):
            if j <= i:
                y[i] += k[0, :, i - j] * x[j]
            elif len(k) == 2:
                y[i] += k[1, :, j - i - 1] * x[j]
    y = np.asarray(jax.nn.gelu(jnp.asarray(y), approximate=False)) @ of(mixer.output.kernel) + of(mixer.output.bias)
    return y[:, :12] * sigmoid(y[:, 12:])


@pytest.mark.parametrize("bidirectional", [True, False])
def test_it_is_the_sum(bidirectional: bool) -> None:
    mixer = LongConv(DIMS, shrink=0.001, bidirectional=bidirectional, rngs=nnx.Rngs(0))
    mixer.kernels[...] = 50 * mixer.kernels[...]  # so that a missing term is seen
    assert_equal_to(lambda x: reference(mixer, x), mixer)


def test_the_threshold() -> None:
    x = jnp.array([-0.5, -0.1, 0.0, 0.2, 0.3])
    np.testing.assert_allclose(squash(x, 0.2), [-0.3, 0, 0, 0, 0.1], atol=1e-7)
