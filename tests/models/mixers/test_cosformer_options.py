"""The options of cosFormer against the quadratic form: feature maps, decay, rotation and their combinations."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.decayed_attention import CHUNK, VECTOR_CHUNK
from models.mixers import build
from models.mixers.cosformer import CosFormer, cosformer_attention
from tests.models.mixers.reference import largest_array, values_and_gradients

H, K, V = 3, 5, 4  # an odd width: with rotation one channel has no partner
LENGTHS = (2 * CHUNK + 9, VECTOR_CHUNK + 4)
MAX_LEN = 170
LOG_DECAY = {
    "none": None,
    "scalar": np.array([[-1.2], [-0.03], [0.0]]),
    "vector": -np.exp(np.random.default_rng(0).uniform(-6, 1, (H, K))),
}
FEATURES = {
    "relu": lambda x: jnp.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + jnp.exp(-x)),
    "silu": lambda x: (y := x / (1 + jnp.exp(-x)) + 0.5) / jnp.sqrt((y**2).sum(-1, keepdims=True)),
    "elu": lambda x: jnp.where(x > 0, x + 1, jnp.exp(jnp.minimum(x, 0))),
}
FORMS = [
    *itertools.product(FEATURES, LOG_DECAY, [False], ["max_len"]),
    *itertools.product(["relu"], LOG_DECAY, [False], ["own"]),
    *itertools.product(["relu", "silu"], LOG_DECAY, [True], ["own"]),
]


def quadratic(
    q: jax.Array, k: jax.Array, v: jax.Array, *, feature_map: str, log_decay: Any, rope: bool, max_len: int
) -> jax.Array:
    """Compute one example without padding, [L, H, K], with all L x L weights; rotations are complex products."""
    length, pairs = len(q), q.shape[-1] // 2
    q, k = FEATURES[feature_map](q), FEATURES[feature_map](k)
    distance = jnp.arange(length)[:, None] - jnp.arange(length)[None]
    rates = jnp.zeros((q.shape[1], 1)) if log_decay is None else jnp.asarray(log_decay)
    kernel = jnp.exp(rates[None, None] * jnp.abs(distance)[:, :, None, None])  # [L, L, H, 1 or K]
    kernel = kernel * jnp.cos(jnp.pi / 2 * distance / max_len)[:, :, None, None]
    total = (q[:, None] * k[None] * kernel).sum(-1)

    def turned(x: jax.Array) -> jax.Array:
        angle = jnp.arange(length)[:, None, None] * 10_000.0 ** (-2 * jnp.arange(pairs) / x.shape[-1])[None, None]
        z = (x[..., :pairs] + 1j * x[..., pairs : 2 * pairs]) * jnp.exp(1j * angle)
        return jnp.concatenate([z.real, z.imag, x[..., 2 * pairs :]], -1)

    weights = (turned(q)[:, None] * turned(k)[None] * kernel).sum(-1) if rope else total
    return jnp.einsum("ijh,jhv->ihv", weights, v) / jnp.maximum(total.sum(1), 1e-6)[..., None]


def inputs() -> tuple[jax.Array, ...]:
    """Return q, k, v, a cotangent that is zero at padding, and the mask."""
    rng = np.random.default_rng(1)
    q, k, v, dy = (jnp.asarray(rng.standard_normal((2, LENGTHS[0], H, width))) for width in (K, K, V, V))
    mask = jnp.asarray(np.arange(LENGTHS[0]) < np.array(LENGTHS)[:, None])
    return q, k, v, jnp.where(mask[..., None, None], dy, 0), mask


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("feature_map", "decay", "rope", "m"), FORMS)
def test_equals_the_quadratic_form(feature_map: Any, decay: str, rope: bool, m: str) -> None:
    """Values and gradients of a padded batch are those of each example without padding."""
    q, k, v, dy, mask = inputs()
    log_decay = None if LOG_DECAY[decay] is None else jnp.asarray(LOG_DECAY[decay])
    options = {"feature_map": feature_map, "log_decay": log_decay, "rope": rope}
    max_len: Any = mask.sum(1) if m == "own" else MAX_LEN
    wild = [jnp.where(mask[..., None, None], x, 1e3) for x in (q, k, v)]
    attend = functools.partial(cosformer_attention, mask=mask, max_len=max_len, **options)
    got = values_and_gradients(attend, *wild, dy)
    for i, n in enumerate(LENGTHS):
        reference = functools.partial(quadratic, max_len=n if m == "own" else MAX_LEN, **options)
        want = values_and_gradients(reference, q[i, :n], k[i, :n], v[i, :n], dy[i, :n])
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a[i, :n], b, rtol=1e-8, atol=1e-10 * float(jnp.abs(b).max()))
        assert not any(a[i, n:].any() for a in got[1:])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("decay", ["scalar", "vector"])
def test_the_gradient_of_the_decay_is_that_of_the_quadratic_form(decay: str) -> None:
    q, k, v, dy, _ = inputs()
    given = jnp.asarray(LOG_DECAY[decay])

    def loss(log_decay: jax.Array, form: str) -> jax.Array:
        if form == "linear":
            y = cosformer_attention(q, k, v, max_len=MAX_LEN, log_decay=log_decay, rope=True)
        else:
            attend = functools.partial(quadratic, feature_map="relu", log_decay=log_decay, rope=True, max_len=MAX_LEN)
            y = jax.vmap(attend)(q, k, v)
        return (y * dy).sum()

    got, want = (jax.jit(jax.grad(loss), static_argnums=1)(given, form) for form in ("linear", "quadratic"))
    np.testing.assert_allclose(got, want, rtol=1e-7)


DIMS = Dims(d_model=6, num_heads=H, qkv_dim=H * K, max_len=MAX_LEN, mlp_dim=12)


def mixer(**options: Any) -> CosFormer:
    return build(CosFormer, DIMS, options, nnx.Rngs(0))  # type: ignore[return-value]


@pytest.mark.parametrize("decay", ["none", "scalar", "vector"])
@pytest.mark.parametrize("rope", [False, True])
def test_options_of_the_mixer(decay: Any, rope: bool) -> None:
    """The mixer computes the function with the decay that its parameters define, by their equations."""
    made = mixer(feature_map="sigmoid", decay=decay, rope=rope, m="own")
    q, k, v, _, mask = inputs()
    log_decay = None
    if decay == "scalar":
        log_decay = -np.log1p(np.exp(-np.asarray(made.decay_logit[...])))[:, None]
    if decay == "vector":
        rates = np.exp(np.asarray(made.log_rates[...]))
        steps = rates[:, :1]
        assert ((steps > 0.001) & (steps < 0.1)).all()
        np.testing.assert_allclose(rates, steps * np.arange(1, 4 if rope else 6), rtol=1e-5)
        log_decay = -rates[:, [0, 1, 0, 1, 2]] if rope else -rates
    y = made.attend(q, k, v, mask, None)
    for i, n in enumerate(LENGTHS):
        arrays = (x[i, :n] for x in (q, k, v))
        want = quadratic(*arrays, feature_map="sigmoid", log_decay=log_decay, rope=rope, max_len=n)
        np.testing.assert_allclose(y[i, :n], want, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("decay", ["none", "scalar", "vector"])
def test_rotated_weights_depend_on_the_distance_alone(decay: Any) -> None:
    """Queries and keys are equal at all positions; one-hot values and a large eps make the weights visible."""
    length, eps = 40, 1e6
    q, k = (jnp.broadcast_to(jnp.array(x), (1, length, H, K)) for x in ([3.0, 1, 2, 4, 1], [1, 2, 0.5, 3, 4.0]))
    values = jnp.broadcast_to(jnp.eye(length)[None, :, None], (1, length, H, length))
    log_decay = mixer(decay=decay, rope=True)._log_decay()
    y = cosformer_attention(q, k, values, max_len=MAX_LEN, eps=eps, log_decay=log_decay, rope=True)
    weights = eps * np.asarray(y)[0].swapaxes(0, 1)
    assert np.ptp(weights[:, 0]) > 1
    for distance in range(1 - length, length):
        diagonal = np.diagonal(weights, distance, 1, 2)
        np.testing.assert_allclose(diagonal, np.broadcast_to(diagonal[:, :1], diagonal.shape), atol=1e-9)


def test_parameters_are_added_only_by_decay() -> None:
    def shapes(**options: Any) -> dict[str, tuple[int, ...]]:
        paths = jax.tree_util.tree_leaves_with_path(nnx.state(mixer(**options), nnx.Param))
        return {jax.tree_util.keystr(path): leaf.shape for path, leaf in paths}

    plain = shapes()
    assert shapes(feature_map="silu", rope=True, m="own") == plain
    for options, shape in (
        ({"decay": "scalar"}, (H,)),
        ({"decay": "vector"}, (H, K)),
        ({"decay": "vector", "rope": True}, (H, K - K // 2)),
    ):
        added = shapes(**options)
        assert [added[name] for name in added.keys() - plain.keys()] == [shape]
        assert plain.items() <= added.items()


@pytest.mark.parametrize("decay", ["none", "scalar", "vector"])
@pytest.mark.parametrize("rope", [False, True])
def test_memory_is_linear(decay: str, rope: bool) -> None:
    log_decay = None if decay == "none" else jnp.full((1, 8 if decay == "vector" else 1), -0.1)

    def largest(length: int) -> int:
        x = jnp.zeros((1, length, 1, 8))
        attention = lambda q, k, v: cosformer_attention(q, k, v, log_decay=log_decay, rope=rope).sum()  # noqa: E731
        return largest_array(jax.make_jaxpr(jax.grad(attention, (0, 1, 2)))(x, x, x).jaxpr)

    assert largest(4096) <= 2.01 * largest(2048) < 2048 * 100


def test_what_does_not_exist_is_refused() -> None:
    q, k, v, _, _ = inputs()
    refused: list[tuple[str, dict[str, Any]]] = [
        ("the causal form has neither decay nor rotation", {"causal": True, "rope": True}),
        ("the causal form has neither decay nor rotation", {"causal": True, "log_decay": LOG_DECAY["scalar"]}),
        ("has ReLU features without decay or rotation", {"implementation": "pallas", "rope": True}),
        ("has ReLU features without decay or rotation", {"implementation": "pallas", "feature_map": "elu"}),
        (r"log_decay \(3, 2\) is neither \[H, 1\] = \(3, 1\) nor \[H, K\]", {"log_decay": np.zeros((H, 2))}),
        ("feature_map 'exp' is not one of relu, sigmoid, silu, elu", {"feature_map": "exp"}),
    ]
    for message, options in refused:
        with pytest.raises(ValueError, match=message):
            cosformer_attention(q, k, v, **options)
    with pytest.raises(ValueError, match="decay needs as many queries as keys, not 7 and"):
        cosformer_attention(q[:, :7], k, v, log_decay=jnp.asarray(LOG_DECAY["scalar"]))
    with pytest.raises(ValueError, match=r"^cosformer: option rope=True: needs heads of width 2 or more, not 1$"):
        build(CosFormer, Dims(8, 8, 8, max_len=9, mlp_dim=8), {"rope": True}, nnx.Rngs(0))
