"""mLSTM against its recurrence, token by token in float64, with the authors' running maximum of the exponents."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.mixers.mlstm import MLSTM
from tests.models.recurrent import assert_equal_to, of

DIMS = Dims(d_model=12, num_heads=3, qkv_dim=12, max_len=80, mlp_dim=12)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def reference(mixer: MLSTM, x: np.ndarray) -> np.ndarray:
    """One example without padding, x [L, D]."""
    length, heads, width = len(x), mixer.heads, mixer.width
    u, z = np.split(x @ of(mixer.input.kernel), 2, 1)
    padded = np.pad(u, ((2, 2), (0, 0)))
    c = silu(np.stack([(padded[t : t + 5] * of(mixer.taps)).sum(0) for t in range(length)]))
    block = of(mixer.blocks).shape[-1]
    dense = [np.zeros((width, width)) for _ in range(3)]
    for matrix, blocks in zip(dense, of(mixer.blocks), strict=True):
        for n, values in enumerate(blocks):
            matrix[n * block : (n + 1) * block, n * block : (n + 1) * block] = values
    q, k, v = (y @ matrix for y, matrix in zip((c, c, u), dense, strict=True))
    gates = np.concatenate([q, k, v], 1) @ of(mixer.gate_weights) + of(mixer.gate_biases)
    q, k, v = (y.reshape(length, heads, -1) for y in (q, k, v))
    k = k / np.sqrt(k.shape[-1])
    h = np.zeros_like(v)
    for direction in (0, 1):
        i, f = np.split(gates[:, 2 * heads * direction : 2 * heads * (direction + 1)], 2, 1)
        log_f = -np.log1p(np.exp(-f))
        memory, normaliser, largest = (
            np.zeros((heads, k.shape[-1], v.shape[-1])),
            np.zeros(k.shape[1:]),
            np.zeros(heads),
        )
        for t in range(length) if direction == 0 else range(length - 1, -1, -1):
            new = np.maximum(log_f[t] + largest, i[t])
            keep, write = np.exp(log_f[t] + largest - new), np.exp(i[t] - new)
            memory = keep[:, None, None] * memory + (write[:, None] * k[t])[:, :, None] * v[t][:, None]
            normaliser = keep[:, None] * normaliser + write[:, None] * k[t]
            bound = np.maximum(np.abs((normaliser * q[t]).sum(-1)), np.exp(-new))
            h[t] += np.einsum("hkv,hk->hv", memory, q[t]) / bound[:, None]
            largest = new
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
    h = h.reshape(length, -1) * of(mixer.norm_scale)
    return ((h + of(mixer.skip) * c) * silu(z)) @ of(mixer.output.kernel)


@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_it_is_the_recurrence(strength: float) -> None:
    mixer = MLSTM(DIMS, rngs=nnx.Rngs(0))
    rng = np.random.RandomState(0)
    mixer.gate_weights[...] = jnp.asarray(strength * rng.randn(*mixer.gate_weights.shape), jnp.float32)
    assert_equal_to(lambda x: reference(mixer, x), mixer, rtol=5e-3, atol=5e-4)


def test_a_gate_of_any_size_is_finite() -> None:
    mixer = MLSTM(DIMS, rngs=nnx.Rngs(0))
    mixer.gate_biases[...] = jnp.full_like(mixer.gate_biases[...], 1e4)
    x = jax.random.normal(jax.random.key(0), (1, 80, 12))
    y, gradient = jax.value_and_grad(lambda x: mixer(x, jnp.ones((1, 80), bool)).sum())(x)
    assert np.isfinite(y)
    assert np.isfinite(gradient).all()


def test_it_has_about_six_squares_of_parameters() -> None:
    dims = Dims(d_model=256, num_heads=4, qkv_dim=256, max_len=80, mlp_dim=12)
    parameters = sum(p.size for p in jax.tree.leaves(nnx.state(MLSTM(dims, rngs=nnx.Rngs(0)), nnx.Param)))
    assert parameters == pytest.approx(6 * 256**2, rel=0.1)
