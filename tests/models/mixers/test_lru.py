"""LRU against loops and convolutions; initial values, learning rates and directions."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.convolution import exponential_kernel, long_convolution
from models.core import Dims
from models.diagonal_recurrence import linear_recurrence
from models.mixers.lru import LRU

DIMS = Dims(d_model=6, num_heads=2, qkv_dim=6, max_len=40, mlp_dim=12)
STATE = 400  # for tests of distributions


def loop(decay: jax.Array, inputs: jax.Array) -> jax.Array:
    x, states = jnp.zeros_like(inputs[:, 0]), []
    for t in range(inputs.shape[1]):
        x = decay[None] * x + inputs[:, t]
        states.append(x)
    return jnp.stack(states, 1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("length", "kind"), [(1, complex), (2, float), (3, complex), (16, float), (19, complex)])
def test_recurrence_equals_a_loop(length: int, kind: type) -> None:
    rng = np.random.default_rng(length)
    decay, inputs = rng.uniform(0.3, 0.99, 3), rng.normal(size=(2, length, 3))
    if kind is complex:
        decay = decay * np.exp(1j * rng.uniform(0, 6, 3))
        inputs = inputs + 1j * rng.normal(size=inputs.shape)
    probe = jnp.asarray(rng.normal(size=inputs.shape) * inputs)

    def value_and_gradients(recurrence: Any) -> Any:
        x, pull = jax.vjp(recurrence, jnp.asarray(decay), jnp.asarray(inputs))
        return x, pull(probe)

    got, want = (jax.jit(lambda r=r: value_and_gradients(r))() for r in (linear_recurrence, loop))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), got, want)


@pytest.mark.usefixtures("x64")
def test_recurrence_equals_its_convolution() -> None:
    rng = np.random.default_rng(0)
    rates = jnp.asarray(-rng.uniform(0.01, 1, 4) + 6j * rng.uniform(size=4))
    u = jnp.asarray(rng.normal(size=(2, 50, 4)))
    x = linear_recurrence(jnp.exp(rates), u + 0j)
    for part, one in ((x.real, 1), (x.imag, -1j)):  # Im z = Re(-i z)
        kernel = exponential_kernel(jnp.full((4, 1, 1), one, complex), rates[:, None], 50)[:, 0]
        np.testing.assert_allclose(part, long_convolution(u, kernel), atol=1e-11)


def parts(layer: LRU) -> tuple[np.ndarray, ...]:
    """Return lambda [N], gamma [N], B [D, N] and C [directions, N, D]."""
    nu, theta, gamma, b, c = (
        np.asarray(p[...], np.float64) for p in (layer.nu, layer.theta, layer.log_gamma, layer.b, layer.c)
    )
    return np.exp(-np.exp(nu) + 1j * np.exp(theta)), np.exp(gamma), b[0] + 1j * b[1], c[:, 0] + 1j * c[:, 1]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_layer_equals_a_loop(bidirectional: bool) -> None:
    layer = LRU(DIMS, state=5, bidirectional=bidirectional, rngs=nnx.Rngs(0))
    lengths = (12, 7)
    x = np.random.default_rng(1).normal(size=(2, 13, 6))
    mask = np.arange(13)[None] < np.array(lengths)[:, None]
    y = jax.jit(lambda x: layer(x, jnp.asarray(mask)))(x)
    decay, gamma, b, c = parts(layer)
    weights, bias = (np.asarray(leaf) for leaf in (layer.output.kernel, layer.output.bias))
    for e, n in enumerate(lengths):
        y_ref = np.asarray(layer.d[...]) * x[e, :n]
        for direction in range(1 + bidirectional):
            state = np.zeros(5, complex)
            for t in range(n) if direction == 0 else reversed(range(n)):
                state = decay * state + gamma * (x[e, t] @ b)
                y_ref[t] += (state @ c[direction]).real
        hidden = np.asarray(jax.nn.gelu(y_ref, approximate=False), np.float32)
        value, gate = np.split(hidden @ weights + bias[None], 2, -1)
        np.testing.assert_allclose(y[e, :n], value / (1 + np.exp(-gate)), atol=2e-6)


def test_initial_eigenvalues_are_uniform_in_the_ring() -> None:
    decay, gamma, _, _ = parts(LRU(DIMS, state=STATE, r_min=0.5, r_max=0.9, max_phase=1.0, rngs=nnx.Rngs(0)))
    square = np.abs(decay) ** 2
    assert square.min() > 0.2499
    assert square.max() < 0.8101
    assert abs(square.mean() - (0.25 + 0.81) / 2) < 0.03  # uniform in area
    phase = np.angle(decay)
    assert phase.min() > 0
    assert phase.max() <= 1.0001
    assert abs(phase.mean() - 0.5) < 0.05
    np.testing.assert_allclose(gamma, np.sqrt(1 - square), rtol=1e-4)
    decay, gamma, _, _ = parts(LRU(DIMS, state=STATE, r_min=0.999, r_max=0.999, rngs=nnx.Rngs(0)))
    np.testing.assert_allclose(np.abs(decay), 0.999, rtol=1e-6)
    np.testing.assert_allclose(gamma, math.sqrt(1 - 0.999**2), rtol=1e-3)


def test_states_have_the_variance_of_their_input() -> None:
    decay, gamma, b, _ = parts(LRU(DIMS, state=STATE, r_min=0.5, r_max=0.9, rngs=nnx.Rngs(0)))
    bu = np.random.default_rng(0).normal(size=(4, 500, 6)) @ b
    x = jax.jit(linear_recurrence)(decay.astype(np.complex64), (gamma * bu).astype(np.complex64))
    ratio = (np.abs(x[:, 100:]) ** 2).mean() / (np.abs(bu) ** 2).mean()
    assert 0.9 < ratio < 1.1


def test_gradients_are_finite_on_the_whole_disk() -> None:
    layer = LRU(DIMS, state=STATE, r_min=0.0, r_max=1.0, rngs=nnx.Rngs(0))
    graph, params = nnx.split(layer)
    x, mask = jax.random.normal(jax.random.key(0), (1, 30, 6)), jnp.ones((1, 30), bool)
    gradients = jax.jit(jax.grad(lambda params: nnx.merge(graph, params)(x, mask).sum()))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params, gradients)))


def test_one_direction_does_not_depend_on_later_positions() -> None:
    x = jax.random.normal(jax.random.key(0), (1, 9, 6))
    other = x.at[:, 5:].add(1)
    for bidirectional in (False, True):
        layer = LRU(DIMS, state=5, r_min=0.9, bidirectional=bidirectional, rngs=nnx.Rngs(0))
        apply = jax.jit(lambda x, layer=layer: layer(x, jnp.ones((1, 9), bool)))
        changed = np.abs(apply(x) - apply(other)).max((0, 2))
        assert (changed[5:] > 1e-4).all()
        assert ((changed[:5] > 1e-4) == bidirectional).all()


def test_learning_rates_parameter_count_and_dropout() -> None:
    layer = LRU(
        Dims(6, 2, 6, 40, 12, hidden_dropout=0.5), state=5, bidirectional=False, lr_scale=0.25, rngs=nnx.Rngs(0)
    )
    params = nnx.state(layer, nnx.Param)
    for name in ("nu", "theta", "log_gamma", "b"):
        assert getattr(layer, name).get_metadata()["lr_scale"] == 0.25
        assert getattr(layer, name).get_metadata()["decay"] is False
    assert "lr_scale" not in layer.c.get_metadata()
    n, d = 5, 6
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 3 * n + 4 * n * d + d + 2 * (d * d + d)
    x, mask = jax.random.normal(jax.random.key(0), (1, 9, 6)), jnp.ones((1, 9), bool)
    apply = jax.jit(lambda rng_keys: layer(x, mask, rng_keys=rng_keys))
    assert (apply(jax.random.split(jax.random.key(0), 1)) != apply(None)).mean() > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state": 0}, "option state=0: must be a whole number from 1 to"),
        ({"r_min": 0.9, "r_max": 0.5}, "option r_min=0.9: must be at most r_max=0.5 and below 1"),
        ({"r_min": 1.0, "r_max": 1.0}, "option r_min=1.0: must be at most r_max=1.0 and below 1"),
        ({"max_phase": 7.0}, "option max_phase=7.0: must be a number from"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LRU(DIMS, **options, rngs=nnx.Rngs(0))
