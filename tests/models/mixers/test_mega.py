"""Mega against a reference with loops; its parts, padding and parameters."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.mixers import build
from models.mixers.mega import Mega, damped_ema, laplace, toeplitz

DIMS = Dims(d_model=6, num_heads=2, qkv_dim=6, max_len=20, mlp_dim=10)
LENGTHS = (13, 7, 0)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def silu(x: Any) -> Any:
    return x * sigmoid(x)


def ema_loop(x: np.ndarray, alpha: np.ndarray, delta: np.ndarray, beta: np.ndarray, eta: np.ndarray) -> np.ndarray:
    """Compute the sum of a left and a right average: x [L, D], parameters [2, D, N]."""
    y = np.zeros_like(x)
    for side, positions in enumerate((range(len(x)), reversed(range(len(x))))):
        state = np.zeros(alpha.shape[1:])
        for t in positions:
            state = (1 - alpha[side] * delta[side]) * state + alpha[side] * beta[side] * x[t][:, None]
            y[t] += (eta[side] * state).sum(-1)
    return y


def reference(layer: Mega, x: np.ndarray, attention: str, chunk: int, norm: str, ema: str) -> np.ndarray:
    """Compute the output for one example without padding, [L, D], with loops over positions."""
    p = {
        "/".join(map(str, path)): np.asarray(leaf[...], np.float64)
        for path, leaf in nnx.to_flat_state(nnx.state(layer))
    }

    def layer_norm(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * p[f"{name}/scale"] + p[f"{name}/bias"]

    pre, n = norm == "pre", len(x)
    inner = layer_norm(x, "attention_norm") if pre else x
    eta = p["eta"] / (math.sqrt(p["eta"].shape[-1]) if ema == "code" else 1)
    smooth = ema_loop(inner, sigmoid(p["alpha"]), sigmoid(p["delta"]), p["beta"], eta)
    smooth = silu(smooth + p["omega"] * inner) if ema == "code" else smooth
    d, z, v = x.shape[1], p["kappa"].shape[1], p["value/kernel"].shape[1]
    gates = smooth @ p["gates/kernel"] + p["gates/bias"]
    update, shared, gate, hidden = np.split(gates, [d, d + z, d + z + v], -1)
    q, k = (p["kappa"][i] * silu(shared) + (p["mu"][i] if i < len(p["mu"]) else 0) for i in (0, 1))
    value = silu(inner @ p["value/kernel"] + p["value/bias"])
    attended = np.zeros((n, v))
    for i in range(n):
        near = range(i // chunk * chunk, min(n, (i // chunk + 1) * chunk))
        bias = [p["bias"][len(p["bias"]) // 2 + i - j] for j in near]
        if attention == "softmax":
            weights = np.exp([q[i] @ k[j] / math.sqrt(z) + b for j, b in zip(near, bias, strict=True)])
            weights = weights / weights.sum()
        else:
            logits = [q[i] @ k[j] / len(near) + b for j, b in zip(near, bias, strict=True)]
            f = [0.5 * (1 + math.erf((x - math.sqrt(1 / 2)) / math.sqrt(2 / (4 * math.pi)))) for x in logits]
            weights = np.array(f)
        attended[i] = sum(w * value[j] for w, j in zip(weights, near, strict=True))
    hidden = silu(hidden + (silu(gate) * attended) @ p["hidden/kernel"])
    x = sigmoid(update) * hidden + (1 - sigmoid(update)) * x
    x = x if pre else layer_norm(x, "attention_norm")
    inner = layer_norm(x, "mlp_norm") if pre else x
    x = x + silu(inner @ p["expand/kernel"] + p["expand/bias"]) @ p["contract/kernel"] + p["contract/bias"]
    return x if pre else layer_norm(x, "mlp_norm")


def with_large_parameters(layer: Mega) -> Mega:
    """Enlarge parameters that are initialised near zero, so that an error in them changes the output."""
    for i, name in enumerate(("kappa", "mu", "bias")):
        parameter = getattr(layer, name)
        parameter[...] = jax.random.normal(jax.random.key(i), parameter[...].shape)
    return layer


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("attention", "chunk", "norm", "ema"),
    [
        ("softmax", None, "pre", "paper"),
        ("softmax", 4, "post", "code"),
        ("laplace", None, "post", "paper"),
        ("laplace", 4, "pre", "code"),
    ],
)
def test_the_block_equals_a_reference_with_loops(attention: Any, chunk: int | None, norm: Any, ema: Any) -> None:
    dims = dataclasses.replace(DIMS, dtype=jnp.float64)
    layer = with_large_parameters(
        Mega(dims, attention=attention, chunk=chunk, norm=norm, ema=ema, z_dim=5, v_dim=7, ema_dim=3, rngs=nnx.Rngs(0))
    )
    x = np.random.default_rng(1).normal(size=(3, 14, 6))
    mask = jnp.arange(14)[None] < jnp.array(LENGTHS)[:, None]
    y = jax.jit(lambda x: layer(x, mask))(x)
    assert np.isfinite(y).all()
    for e, n in enumerate(LENGTHS[:2]):
        np.testing.assert_allclose(y[e, :n], reference(layer, x[e, :n], attention, chunk or 20, norm, ema), atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_ema_and_its_taps_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 11, 3))
    alpha, delta = rng.uniform(0.05, 0.95, (2, 2, 3, 4))
    beta, eta = rng.normal(size=(2, 2, 3, 4))
    ema = jax.jit(damped_ema, static_argnums=5)
    for e in range(2):
        np.testing.assert_allclose(
            ema(x, alpha, delta, beta, eta, 11)[e], ema_loop(x[e], alpha, delta, beta, eta), atol=1e-10
        )
    impulse = np.zeros((1, 11, 3))
    impulse[0, 5] = 1
    full, short = (np.asarray(ema(impulse, alpha, delta, beta, eta, taps)) for taps in (11, 3))
    near = np.abs(np.arange(11) - 5) < 3
    np.testing.assert_allclose(short, full * near[None, :, None], atol=1e-12)
    ones = np.ones_like(alpha)  # alpha delta = 1 keeps no state; log(1 - alpha delta) must not be -inf
    without_state = ema(x, ones, ones, beta, eta, 11)
    np.testing.assert_allclose(without_state, x * (beta * eta).sum((0, -1)), atol=1e-4)


def test_laplace_has_value_and_slope_of_squared_relu() -> None:
    value, slope = jax.value_and_grad(lambda x: laplace(x))(jnp.float32(math.sqrt(0.5)))
    np.testing.assert_allclose((value, slope), (0.5, math.sqrt(2)), rtol=1e-6)  # as relu(x)^2
    np.testing.assert_allclose(laplace(jnp.float32(0)), 0.5 * (1 + math.erf(-math.sqrt(math.pi))), rtol=1e-3)


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_toeplitz_equals_its_definition(size: int) -> None:
    table = np.random.default_rng(0).normal(size=15).astype(np.float32)
    want = [[table[7 + i - j] for j in range(size)] for i in range(size)]
    np.testing.assert_array_equal(toeplitz(jnp.asarray(table), size), want)


def test_closed_update_gates_give_the_identity() -> None:
    layer = Mega(DIMS, rngs=nnx.Rngs(0))
    layer.gates.bias[...] = layer.gates.bias[...].at[:6].set(-50.0)  # type: ignore[index]
    x, mask = jax.random.normal(jax.random.key(0), (2, 15, 6)), jnp.ones((2, 15), bool)
    np.testing.assert_allclose(jax.jit(lambda x: layer.gated(x, x, mask, None))(x), x, atol=1e-6)


@pytest.mark.slow
def test_padding_does_not_change_outputs_of_chunks_with_dropout() -> None:
    dims = dataclasses.replace(DIMS, dropout=0.4, hidden_dropout=0.3)
    layer = Mega(dims, attention="laplace", norm="post", chunk=6, ema="code", taps=5, rngs=nnx.Rngs(0))
    graph, params = nnx.split(with_large_parameters(layer))
    rng_keys = jax.random.split(jax.random.key(2), 3)
    x = jax.random.normal(jax.random.key(1), (3, 20, 6))

    @jax.jit
    def run(params: nnx.State, x: jax.Array, rng_keys: jax.Array) -> Any:
        mask = jnp.arange(x.shape[1])[None] < jnp.array(LENGTHS)[:, None]

        def loss(params: nnx.State, x: jax.Array) -> Any:
            y = jnp.where(mask[..., None], nnx.merge(graph, params)(x, mask, rng_keys=rng_keys), 0)
            return (y**3).sum(), y

        (_, y), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
        return y, *gradients

    y, d_params, d_x = run(params, x[:, :13], rng_keys)  # two chunks and one position
    other, other_d_params, other_d_x = run(params, x.at[0, 13:].set(50.0), rng_keys)
    np.testing.assert_allclose(other[:, :13], y, atol=1e-5)
    np.testing.assert_allclose(other_d_x[:, :13], d_x, atol=1e-4 * np.abs(d_x).max())
    assert (other_d_x[:, 13:] == 0).all()
    for got, want in zip(jax.tree.leaves(other_d_params), jax.tree.leaves(d_params), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())
        assert np.abs(want).max() > 1e-6


def shapes(dims: Dims = DIMS, **options: Any) -> Any:
    return nnx.eval_shape(lambda: Mega(dims, **options, rngs=nnx.Rngs(0)))


def test_parameter_counts_follow_the_paper() -> None:
    d, z, v, h, mlp, max_len = 8, 4, 16, 16, 10, 20
    want = {
        "ema": 4 * 2 * d * h, "bias": 2 * max_len - 1, "kappa, mu": 3 * z, "norms": 4 * d, "value": (d + 1) * v,
        "gates": (d + 1) * (2 * d + z + v), "hidden": v * d, "mlp": (d + 1) * mlp + (mlp + 1) * d,
    }  # fmt: skip
    sizes = [leaf.size for leaf in jax.tree.leaves(nnx.state(shapes(dataclasses.replace(DIMS, d_model=8))))]
    assert sum(sizes) == sum(want.values())
    assert shapes(attention="laplace").mu.shape == (2, 3)
    assert shapes(chunk=4).bias.shape == (7,)
    assert shapes(chunk=500).chunk == shapes().chunk == 20  # at most max_len
    assert shapes(dataclasses.replace(DIMS, d_model=1)).kappa.shape == (2, 1)


def test_memory_of_chunks_is_linear_in_the_length() -> None:
    def largest(length: int, chunk: int | None) -> int:
        graph, params = nnx.split(shapes(dataclasses.replace(DIMS, max_len=length), chunk=chunk, ema_dim=2))
        x, mask = jax.ShapeDtypeStruct((1, length, 6), jnp.float32), jnp.ones((1, length), bool)
        gradient = jax.grad(lambda params, x: nnx.merge(graph, params)(x, mask).sum())
        jaxpr = jax.make_jaxpr(gradient)(params, x)
        return max(v.aval.size for e in jaxpr.eqns for v in (*e.invars, *e.outvars) if hasattr(v.aval, "size"))

    assert largest(1024, 32) == 2 * largest(512, 32)
    assert largest(1024, None) >= 1024**2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "relu"}, "mega: option attention=relu: not one of softmax, laplace"),
        ({"norm": "none"}, "mega: option norm=none: not one of pre, post"),
        ({"ema": "exact"}, "mega: option ema=exact: not one of paper, code"),
        *(
            ({name: -1}, f"option {name}=-1: must be a whole number from 1")
            for name in ("chunk", "z_dim", "v_dim", "ema_dim", "taps")
        ),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(Mega, DIMS, options, nnx.Rngs(0))
