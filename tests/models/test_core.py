"""Sizes of a mixer and the projections of `QKVAttention`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Dims, QKVAttention


def test_qkv_dim_must_be_divisible_by_num_heads() -> None:
    assert Dims(d_model=64, num_heads=4, qkv_dim=32, max_len=10, mlp_dim=8).head_dim == 8
    with pytest.raises(ValueError, match="qkv_dim 30 is not divisible by num_heads 4"):
        Dims(d_model=64, num_heads=4, qkv_dim=30, max_len=10, mlp_dim=8)


class TakeValues(QKVAttention):
    """Attention that returns head h of the values multiplied by h + 1."""

    def attend(self, q, k, v, mask, rng_keys):  # type: ignore[no-untyped-def]
        assert q.shape == k.shape == v.shape == (2, 5, 3, 4)
        return v * jnp.arange(1.0, 4.0)[None, None, :, None]


@pytest.mark.parametrize("bias", [False, True])
def test_qkv_attention_projects_and_splits_into_heads(bias: bool) -> None:
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
