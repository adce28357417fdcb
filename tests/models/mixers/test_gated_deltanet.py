"""Gated DeltaNet against its recurrence, token by token in float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.mixers.gated_deltanet import GatedDeltaNet

DIMS = Dims(d_model=16, num_heads=2, qkv_dim=16, max_len=80, mlp_dim=12)
LENGTHS = (70, 33)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def of(variable: Any) -> np.ndarray:
    return np.asarray(variable[...], np.float64)


def reference(mixer: GatedDeltaNet, x: np.ndarray) -> np.ndarray:
    """One example without padding, x [L, D]."""
    length, heads, width = len(x), 2, mixer.key_width
    qkv = x @ np.concatenate([of(layer.kernel) for layer in (mixer.query, mixer.key, mixer.value)], 1)
    padded = np.pad(qkv, ((2, 2), (0, 0)))
    qkv = np.stack([(padded[t : t + 5] * of(mixer.taps)).sum(0) for t in range(length)])
    qkv = qkv * sigmoid(qkv)
    q, k, v = (y.reshape(length, heads, -1) for y in np.split(qkv, [heads * width, 2 * heads * width], 1))
    q, k = (y / np.sqrt((y * y).sum(-1, keepdims=True) + 1e-6) for y in (q, k))
    betas = sigmoid(x @ of(mixer.beta.kernel))
    decays = np.ones_like(betas)
    if mixer.decay is not None:
        step = np.log1p(np.exp(x @ of(mixer.decay.kernel) + of(mixer.step_bias)))
        decays = np.exp(-np.exp(of(mixer.log_a)) * step)
    y = np.zeros_like(v)
    for direction in range(mixer.directions):
        beta, decay = (z[:, direction * heads : (direction + 1) * heads] for z in (betas, decays))
        state = np.zeros((heads, width, 2 * width))
        for t in range(length) if direction == 0 else range(length - 1, -1, -1):
            state = decay[t][:, None, None] * state
            error = v[t] - np.einsum("hkv,hk->hv", state, k[t])
            state = state + np.einsum("hk,hv->hkv", k[t], beta[t][:, None] * error)
            y[t] += np.einsum("hkv,hk->hv", state, q[t]) / np.sqrt(width)
    y = y / np.sqrt((y * y).mean(-1, keepdims=True) + 1e-5) * of(mixer.norm_scale)
    y = y.reshape(length, -1)
    if mixer.gate is not None:
        gate = x @ of(mixer.gate.kernel)
        y = y * gate * sigmoid(gate)
    return y @ of(mixer.output.kernel)


@pytest.mark.parametrize("options", [{}, {"decay": False}, {"bidirectional": False, "output_gate": False}])
def test_it_is_the_recurrence(options: dict[str, bool]) -> None:
    mixer = GatedDeltaNet(DIMS, **options, rngs=nnx.Rngs(0))
    x = np.random.RandomState(0).randn(2, LENGTHS[0], 16).astype(np.float32)
    mask = np.arange(LENGTHS[0]) < np.array(LENGTHS)[:, None]
    y = mixer(jnp.asarray(x), jnp.asarray(mask))
    for example, length in enumerate(LENGTHS):
        expected = reference(mixer, x[example, :length].astype(np.float64))
        np.testing.assert_allclose(y[example, :length], expected, rtol=2e-3, atol=2e-4)


def test_it_has_six_squares_of_parameters() -> None:
    dims = Dims(d_model=256, num_heads=4, qkv_dim=256, max_len=80, mlp_dim=12)
    parameters = sum(p.size for p in jax.tree.leaves(nnx.state(GatedDeltaNet(dims, rngs=nnx.Rngs(0)), nnx.Param)))
    assert parameters == pytest.approx(6 * 256**2, rel=0.05)


def test_initial_decays_are_those_of_the_authors() -> None:
    dims = Dims(d_model=256, num_heads=256, qkv_dim=256, max_len=80, mlp_dim=12)
    mixer = GatedDeltaNet(dims, rngs=nnx.Rngs(0))
    a, step = np.exp(of(mixer.log_a)), np.log1p(np.exp(of(mixer.step_bias)))
    assert 0 < a.min() < 1 < 15 < a.max() < 16
    assert 0.99e-3 < step.min() < step.max() < 0.101
    for variable in (mixer.log_a, mixer.step_bias):
        assert variable.get_metadata()["decay"] is False
