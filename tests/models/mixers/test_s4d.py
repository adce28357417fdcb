from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.mixers.s4d import S4D, initial_rates, s4d_kernel

DIMS = Dims(d_model=6, num_heads=2, qkv_dim=6, max_len=40, mlp_dim=12)


def recurrence(dt: jax.Array, a: jax.Array, b: jax.Array, c: jax.Array, length: int) -> jax.Array:
    """The response to an impulse, step by step: h <- exp(dt a) h + (exp(dt a) - 1) / a b u, y = 2 Re(c h)."""
    step = jnp.exp(dt[:, None] * a)
    h, kernel = jnp.zeros_like(step), []
    for t in range(length):
        h = step * h + (step - 1) / a * b * (t == 0)
        kernel.append(2 * (c * h[:, None]).sum(-1).real)
    return jnp.stack(kernel, -1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("length", [1, 23])
def test_kernel_is_the_response_of_the_recurrence(length: int) -> None:
    rng = np.random.default_rng(0)
    dt = jnp.asarray(rng.uniform(0.001, 0.1, 3))
    a = jnp.asarray(initial_rates("lin", 8)[None] * rng.uniform(0.5, 2, (3, 1)))
    b, c = (jnp.asarray(rng.normal(size=s) + 1j * rng.normal(size=s)) for s in ((3, 4), (3, 2, 4)))
    probe = jnp.asarray(rng.normal(size=(3, 2, length)))

    def value_and_gradients(kernel: Any) -> Any:
        k, pull = jax.vjp(lambda *args: kernel(*args, length), dt, a, b, c)
        return k, pull(probe)

    got, want = (jax.jit(lambda k=k: value_and_gradients(k))() for k in (s4d_kernel, recurrence))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-11), got, want)


def test_kernel_keeps_its_precision_at_small_steps() -> None:
    a = jnp.full((1, 1), -0.5 + 0.3j, jnp.complex64)
    ones = jnp.ones((1, 1), jnp.complex64)
    kernel = jax.jit(s4d_kernel, static_argnums=4)(jnp.array([1e-6]), a, ones, ones[:, None], 4)
    np.testing.assert_allclose(kernel, np.full((1, 1, 4), 2e-6), rtol=2e-6)  # 2 dt to first order


def test_a_real_mode_is_a_moving_average() -> None:
    keep = 0.8
    a = jnp.full((1, 1), np.log(keep) + 0j)
    kernel = jax.jit(s4d_kernel, static_argnums=4)(jnp.ones(1), a, -a, jnp.full((1, 1, 1), 0.5 + 0j), 30)
    np.testing.assert_allclose(kernel[0, 0], (1 - keep) * keep ** np.arange(30), rtol=1e-4)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("bidirectional", "systems"), [(False, 2), (True, None)])
def test_the_layer_against_loops(bidirectional: bool, systems: int | None) -> None:
    layer = S4D(DIMS, state=4, systems=systems, bidirectional=bidirectional, dt_min=0.05, dt_max=0.5, rngs=nnx.Rngs(0))
    lengths = (11, 7)
    x = np.random.default_rng(1).normal(size=(2, 13, 6))
    mask = np.arange(13)[None] < np.array(lengths)[:, None]
    y = jax.jit(lambda x: layer(x, jnp.asarray(mask)))(x)
    assert y.dtype == jnp.float32  # of dims.dtype, as the projection
    dt, decay, frequency, b, c, d = (
        np.asarray(p[...], np.float64)
        for p in (layer.log_dt, layer.log_decay, layer.frequency, layer.b, layer.c, layer.d)
    )
    rows = np.arange(6) % (6 if systems is None else systems)
    a = (-np.exp(decay) + 1j * frequency)[rows]
    kernel = np.asarray(
        jax.jit(recurrence, static_argnums=4)(np.exp(dt), a, (b[0] + 1j * b[1])[rows], c[0] + 1j * c[1], 13)
    )
    weights, bias = (np.asarray(leaf) for leaf in (layer.output.kernel, layer.output.bias))
    for e, n in enumerate(lengths):
        conv = d * x[e, :n]
        for i in range(n):
            for j in range(i + 1):
                conv[i] += kernel[:, 0, i - j] * x[e, j]
            for j in range(i + 1, n if bidirectional else 0):
                conv[i] += kernel[:, 1, j - i - 1] * x[e, j]
        hidden = np.asarray(jax.nn.gelu(conv, approximate=False), np.float32)
        value, gate = np.split(hidden @ weights + bias[None], 2, -1)
        np.testing.assert_allclose(y[e, :n], value / (1 + np.exp(-gate)), atol=2e-6)


def test_initial_rates() -> None:
    n = np.arange(4)
    np.testing.assert_allclose(initial_rates("lin", 8), -0.5 + 1j * np.pi * n)
    np.testing.assert_allclose(initial_rates("inv", 8), -0.5 + 1j * 8 / np.pi * (8 / (2 * n + 1) - 1))
    hippo = np.array(
        [[(i > j) * np.sqrt((2 * i + 1) * (2 * j + 1)) + (i == j) * (i + 1) for j in range(8)] for i in range(8)]
    )
    p = np.sqrt(np.arange(8) + 0.5)  # LegS plus this of rank 1 is normal
    eigenvalues = np.linalg.eigvals(np.outer(p, p) - hippo)
    want = sorted(eigenvalues[eigenvalues.imag > 0], key=lambda e: e.imag)
    np.testing.assert_allclose(initial_rates("legs", 8), want, atol=1e-8)


@pytest.mark.parametrize("init", ["lin", "inv", "legs"])
def test_parameters_at_the_start_and_their_rates(init: Literal["lin", "inv", "legs"]) -> None:
    layer = S4D(DIMS, init=init, dt_min=1e-4, dt_max=1e-2, rngs=nnx.Rngs(0))
    assert layer.frequency[...].shape == (6, 32)
    np.testing.assert_allclose(layer.frequency[...][3], initial_rates(init, 64).imag, rtol=1e-6)
    np.testing.assert_allclose(jnp.exp(layer.log_decay[...]), 0.5, rtol=1e-6)
    dt = np.exp(layer.log_dt[...])
    assert (dt > 0.99e-4).all()
    assert (dt < 1.01e-2).all()
    slow = {
        name
        for name in ("log_dt", "log_decay", "frequency", "b")
        if getattr(layer, name).get_metadata()["lr_scale"] == 0.1
    }
    assert slow == {"log_dt", "log_decay", "frequency", "b"}
    assert not any(getattr(layer, name).get_metadata()["decay"] for name in slow)
    assert "lr_scale" not in layer.c.get_metadata()


def test_one_direction_does_not_see_the_future() -> None:
    x = jax.random.normal(jax.random.key(0), (1, 9, 6))
    other = x.at[:, 5:].add(1)
    for bidirectional in (False, True):
        layer = S4D(DIMS, bidirectional=bidirectional, rngs=nnx.Rngs(0))
        apply = jax.jit(lambda x, layer=layer: layer(x, jnp.ones((1, 9), bool)))
        changed = np.abs(apply(x) - apply(other)).max((0, 2))
        assert (changed[5:] > 1e-4).all()
        assert ((changed[:5] > 1e-4) == bidirectional).all()


def test_dropout_in_the_layer_is_the_protocols() -> None:
    layer = S4D(Dims(6, 2, 6, 40, 12, hidden_dropout=0.5), rngs=nnx.Rngs(0))
    x, mask = jax.random.normal(jax.random.key(0), (1, 9, 6)), jnp.ones((1, 9), bool)
    apply = jax.jit(lambda keys: layer(x, mask, keys=keys))
    assert (apply(jax.random.split(jax.random.key(0), 1)) != apply(None)).mean() > 0.9


def largest_array(jaxpr: Any) -> int:
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [v.aval.size for v in (*equation.invars, *equation.outvars) if hasattr(v.aval, "size")]
        for parameter in jax.tree.leaves(tuple(equation.params.values())):
            inner = getattr(parameter, "jaxpr", parameter)
            sizes += [largest_array(inner)] if hasattr(inner, "eqns") else []
    return max(sizes)


def test_no_table_of_modes_by_length() -> None:
    length, width, modes = 2048, 6, 32
    graph, params = nnx.split(S4D(DIMS, state=2 * modes, rngs=nnx.Rngs(0)))
    x, mask = jnp.zeros((1, length, width)), jnp.ones((1, length), bool)
    gradient = jax.grad(lambda params: nnx.merge(graph, params)(x, mask).sum())
    assert largest_array(jax.make_jaxpr(gradient)(params).jaxpr) < length * width * modes / 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "hippo"}, "init 'hippo' is not one of lin, inv, legs"),
        ({"state": 5}, "state 5 is not an even number"),
        ({"state": 0}, "state 0 is not an even number"),
        ({"systems": 4}, "systems 4 does not divide d_model 6; None gives"),
        ({"dt_min": 0.2}, "dt_min 0.2 and dt_max 0.1 are not"),
    ],
)
def test_senseless_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        S4D(DIMS, **options, rngs=nnx.Rngs(0))
