"""S4D against its recurrence, HiPPO-LegS and the values of the code of S4."""

from __future__ import annotations

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.mixers import build
from models.mixers.s4d import S4D, initial_system, s4d_kernel
from tests.models.mixers.reference import largest_array

DIMS = Dims(d_model=6, num_heads=2, qkv_dim=6, max_len=40, mlp_dim=12)


def recurrence(dt: jax.Array, a: jax.Array, b: jax.Array, c: jax.Array, length: int) -> jax.Array:
    """Compute the impulse response step by step: h <- exp(dt a) h + (exp(dt a) - 1) / a b u, y = 2 Re(c h)."""
    step = jnp.exp(dt[:, None] * a)
    h, kernel = jnp.zeros_like(step), []
    for t in range(length):
        h = step * h + (step - 1) / a * b * (t == 0)
        kernel.append(2 * (c * h[:, None]).sum(-1).real)
    return jnp.stack(kernel, -1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("length", [1, 23])
def test_kernel_equals_the_impulse_response_of_the_recurrence(length: int) -> None:
    rng = np.random.default_rng(0)
    dt = jnp.asarray(rng.uniform(0.001, 0.1, 3))
    a = jnp.asarray(initial_system("lin", 8)[0][None] * rng.uniform(0.5, 2, (3, 1)))
    b, c = (jnp.asarray(rng.normal(size=s) + 1j * rng.normal(size=s)) for s in ((3, 4), (3, 2, 4)))
    probe = jnp.asarray(rng.normal(size=(3, 2, length)))

    def value_and_gradients(kernel: Any) -> Any:
        k, pull = jax.vjp(lambda *args: kernel(*args, length), dt, a, b, c)
        return k, pull(probe)

    got, want = (jax.jit(lambda k=k: value_and_gradients(k))() for k in (s4d_kernel, recurrence))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-11), got, want)


def test_kernel_is_precise_at_small_steps() -> None:
    a = jnp.full((1, 1), -0.5 + 0.3j, jnp.complex64)
    ones = jnp.ones((1, 1), jnp.complex64)
    kernel = jax.jit(s4d_kernel, static_argnums=4)(jnp.array([1e-6]), a, ones, ones[:, None], 4)
    np.testing.assert_allclose(kernel, np.full((1, 1, 4), 2e-6), rtol=2e-6)  # 2 dt to first order


def test_a_real_mode_gives_a_moving_average() -> None:
    decay = 0.8
    a = jnp.full((1, 1), np.log(decay) + 0j)
    kernel = jax.jit(s4d_kernel, static_argnums=4)(jnp.ones(1), a, -a, jnp.full((1, 1, 1), 0.5 + 0j), 30)
    np.testing.assert_allclose(kernel[0, 0], (1 - decay) * decay ** np.arange(30), rtol=1e-4)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("bidirectional", "systems"), [(False, 2), (True, None)])
def test_the_layer_equals_a_loop(bidirectional: bool, systems: int | None) -> None:
    layer = S4D(DIMS, state=4, systems=systems, bidirectional=bidirectional, dt_min=0.05, dt_max=0.5, rngs=nnx.Rngs(0))
    lengths = (11, 7)
    x = np.random.default_rng(1).normal(size=(2, 13, 6))
    mask = np.arange(13)[None] < np.array(lengths)[:, None]
    y = jax.jit(lambda x: layer(x, jnp.asarray(mask)))(x)
    assert y.dtype == jnp.float32  # dims.dtype
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


def test_initial_values_of_lin_and_inv() -> None:
    n = np.arange(4)
    for init, want in (("lin", -0.5 + 1j * np.pi * n), ("inv", -0.5 + 1j * 8 / np.pi * (8 / (2 * n + 1) - 1))):
        a, b = initial_system(init, 8)
        np.testing.assert_allclose(a, want)
        np.testing.assert_array_equal(b, np.ones(4))


def hippo_legs(state: int) -> tuple[np.ndarray, np.ndarray]:
    """Return A [N, N] and B [N] of HiPPO-LegS (Gu et al., 2020, arXiv:2008.07669, theorem 2)."""
    a = np.zeros((state, state))
    for n in range(state):
        for k in range(n + 1):
            a[n, k] = -(n + 1) if n == k else -math.sqrt((2 * n + 1) * (2 * k + 1))
    return a, np.array([math.sqrt(2 * n + 1) for n in range(state)])


@pytest.mark.parametrize("state", [2, 8, 64])
def test_legs_has_the_eigenvalues_of_the_normal_part_of_hippo(state: int) -> None:
    """Compare with the general eigenvalue solver for A + p p^T."""
    hippo, hippo_b = hippo_legs(state)
    p = np.sqrt(np.arange(state) + 0.5)
    eigenvalues, vectors = np.linalg.eig(hippo + np.outer(p, p))
    upper = np.flatnonzero(eigenvalues.imag > 0)
    upper = upper[np.argsort(eigenvalues[upper].imag)]
    a, b = initial_system("legs", state)
    np.testing.assert_allclose(a, eigenvalues[upper], rtol=1e-9, atol=1e-9)
    assert len(b) == state // 2
    for mode, index in enumerate(upper):
        vector = vectors[:, index] / np.linalg.norm(vectors[:, index])
        want = np.vdot(vector * np.exp(-1j * np.angle(vector[0])), hippo_b)
        np.testing.assert_allclose(b[mode], want.real + 1j * min(max(want.imag, -2), 2), rtol=1e-8, atol=1e-8)


def test_legs_has_the_values_of_the_code_of_s4() -> None:
    """Values of S4's code for N = 64; without the clip the largest would be 40.8."""
    size = np.abs(initial_system("legs", 64)[1])
    assert size.min() == pytest.approx(0.5945, abs=1e-4)
    assert size.max() == pytest.approx(2.0001, abs=1e-4)
    assert np.sqrt((size**2).mean()) == pytest.approx(1.5296, abs=1e-4)


def test_legs_without_the_clip_has_the_moments_of_hippo() -> None:
    """Modes and their conjugates span the whole state, so V V* B = B, and their moments are those of HiPPO."""
    state = 6
    hippo, hippo_b = hippo_legs(state)
    p = np.sqrt(np.arange(state) + 0.5)
    a, b = initial_system("legs", state)
    unclipped = np.abs(b.imag) < 2
    assert unclipped.sum() == state // 2 - 1
    moments = [np.linalg.matrix_power(hippo + np.outer(p, p), i) for i in range(3)]
    # B^T S^i B = 2 Re sum |b_n|^2 a_n^i: i = 0 determines the size of the one clipped b; i = 1 and 2 must agree.
    clipped = hippo_b @ hippo_b / 2 - (np.abs(b[unclipped]) ** 2).sum()
    size = np.where(unclipped, np.abs(b) ** 2, clipped)
    for i, moment in enumerate(moments):
        assert 2 * (size * a**i).real.sum() == pytest.approx(hippo_b @ moment @ hippo_b, rel=1e-9)


@pytest.mark.parametrize("init", ["lin", "inv", "legs"])
def test_initial_parameters_and_their_learning_rates(init: Literal["lin", "inv", "legs"]) -> None:
    layer = S4D(DIMS, init=init, dt_min=1e-4, dt_max=1e-2, rngs=nnx.Rngs(0))
    assert layer.frequency[...].shape == (6, 32)
    a, b = initial_system(init, 64)
    np.testing.assert_allclose(layer.frequency[...][3], a.imag, rtol=1e-6)
    np.testing.assert_allclose(jnp.exp(layer.log_decay[...]), 0.5, rtol=1e-6)
    np.testing.assert_allclose(
        layer.b[...], np.broadcast_to(np.stack([b.real, b.imag])[:, None], (2, 6, 32)), rtol=1e-6
    )
    dt = np.exp(layer.log_dt[...])
    assert (dt > 0.99e-4).all()
    assert (dt < 1.01e-2).all()
    for name in ("log_dt", "log_decay", "frequency", "b"):
        metadata = getattr(layer, name).get_metadata()
        assert (metadata["lr"], metadata["decay"]) == (1e-3, False)
        assert "lr_scale" not in metadata
    for parameter in (layer.c, layer.d):
        assert not {"lr", "decay"} & set(parameter.get_metadata())
    assert S4D(DIMS, lr=1e-4, rngs=nnx.Rngs(0)).b.get_metadata()["lr"] == 1e-4


def test_one_direction_does_not_depend_on_later_positions() -> None:
    x = jax.random.normal(jax.random.key(0), (1, 9, 6))
    other = x.at[:, 5:].add(1)
    for bidirectional in (False, True):
        layer = S4D(DIMS, bidirectional=bidirectional, rngs=nnx.Rngs(0))
        apply = jax.jit(lambda x, layer=layer: layer(x, jnp.ones((1, 9), bool)))
        changed = np.abs(apply(x) - apply(other)).max((0, 2))
        assert (changed[5:] > 1e-4).all()
        assert ((changed[:5] > 1e-4) == bidirectional).all()


def test_hidden_dropout_applies_inside_the_layer() -> None:
    layer = S4D(Dims(6, 2, 6, 40, 12, hidden_dropout=0.5), rngs=nnx.Rngs(0))
    x, mask = jax.random.normal(jax.random.key(0), (1, 9, 6)), jnp.ones((1, 9), bool)
    apply = jax.jit(lambda rng_keys: layer(x, mask, rng_keys=rng_keys))
    assert (apply(jax.random.split(jax.random.key(0), 1)) != apply(None)).mean() > 0.9


def test_no_array_of_all_modes_and_positions() -> None:
    length, width, modes = 2048, 6, 32
    graph, params = nnx.split(S4D(DIMS, state=2 * modes, rngs=nnx.Rngs(0)))
    x, mask = jnp.zeros((1, length, width)), jnp.ones((1, length), bool)
    gradient = jax.grad(lambda params: nnx.merge(graph, params)(x, mask).sum())
    assert largest_array(jax.make_jaxpr(gradient)(params).jaxpr) < length * width * modes / 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "hippo"}, "s4d: option init=hippo: not one of lin, inv, legs"),
        ({"state": 5}, "option state=5: must be even"),
        ({"state": 0}, "option state=0: must be a whole number from 2 to"),
        ({"systems": 4}, "option systems=4: must divide d_model 6; none gives"),
        ({"dt_min": 0.2}, "option dt_min=0.2: must be at most dt_max=0.1"),
        ({"lr": 0.0}, "option lr=0.0: must be a number from 1e-09"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(S4D, DIMS, options, nnx.Rngs(0))
