"""Nystromformer against its definition and the code of its authors."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.mixers import build, parse_options
from models.mixers.nystromformer import Nystromformer, depthwise, nystrom_factors, nystrom_product, segments_of
from tests.models.mixers.reference import dense_weights

B, H, L, K = 3, 2, 23, 4
LENGTHS = (23, 13, 5)
DIMS = Dims(d_model=12, num_heads=2, qkv_dim=8, max_len=30, mlp_dim=24, dropout=0.3)
filtered = jax.jit(depthwise)
OFFICIAL: dict[str, Any] = {"landmarks": 4, "taps": 35, "segments": "padded", "drop_weights": False}


def inputs(scale: float = 1.5) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(B, H, L, K)) * s) for s in (scale, scale, 1))
    return q, k, v, jnp.arange(L)[None, :] < jnp.array(LENGTHS)[:, None]


def naive(q: jax.Array, k: jax.Array, v: jax.Array, count: int) -> jax.Array:
    """Compute one head of one example without padding, [n, K], by the definition with an exact inverse."""
    n = len(q)
    segments = [[t for t in range(n) if t * count // n == m] for m in range(count)]
    q_landmarks, k_landmarks = (jnp.stack([x[jnp.array(s)].mean(0) for s in segments if s]) for x in (q, k))
    f, a, g = (
        jax.nn.softmax(x @ y.T / jnp.sqrt(K))
        for x, y in ((q, k_landmarks), (q_landmarks, k_landmarks), (q_landmarks, k))
    )
    return f @ jnp.linalg.inv(a) @ g @ v


@pytest.mark.usefixtures("x64")
def test_equals_the_definition_on_unpadded_examples() -> None:
    count = 8  # more than the tokens of one example
    q, k, v, mask = inputs()
    probe = jnp.asarray(np.random.default_rng(1).normal(size=q.shape)) * mask[:, None, :, None]

    def fast(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return (nystrom_product(*nystrom_factors(q, k, mask, count), v, 20) * probe).sum()

    def slow(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        heads = jax.vmap(lambda q, k, v: naive(q, k, v, count))
        rows = [heads(q[b, :, :n], k[b, :, :n], v[b, :, :n]) for b, n in enumerate(LENGTHS)]
        return sum(((y * probe[b, :, : y.shape[1]]).sum() for b, y in enumerate(rows)), jnp.zeros(()))

    got = jax.jit(jax.value_and_grad(fast, (0, 1, 2)))(q, k, v)
    want = jax.jit(jax.value_and_grad(slow, (0, 1, 2)))(q, k, v)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("count", [1, 4, 7, 40])
def test_segments_cover_the_real_tokens_evenly(count: int) -> None:
    _, _, _, mask = inputs()
    members, size = segments_of(mask, count)
    assert (members.sum(2) == mask).all()
    for b, n in enumerate(LENGTHS):
        assert [int(members[b, t].argmax()) for t in range(n)] == [t * count // n for t in range(n)]
        assert (size[b] > 0).sum() == min(n, count)
        assert size[b].max() - size[b][size[b] > 0].min() <= 1


@pytest.mark.usefixtures("x64")
def test_as_many_landmarks_as_tokens_equal_softmax_attention() -> None:
    q, k, _, mask = inputs()
    f, a, g = jax.jit(nystrom_factors, static_argnums=3)(q, k, mask, L)
    weights = dense_weights(q.swapaxes(1, 2), k.swapaxes(1, 2), mask[:, None, None])
    exact = np.asarray(f) @ np.linalg.pinv(np.asarray(a), rcond=1e-13) @ np.asarray(g)
    identity = jnp.broadcast_to(jnp.eye(L)[None, None], (B, H, L, L))
    iterated = jax.jit(nystrom_product, static_argnums=4)(f, a, g, identity, 22)
    for got, tolerance in ((exact, 1e-6), (iterated, 1e-5)):
        real = np.asarray(mask[:, None, :, None])
        np.testing.assert_allclose(np.where(real, got, 0), np.where(real, weights, 0), atol=tolerance)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("width", [None, 6])
def test_weights_sum_to_one(width: int | None) -> None:
    q, k, v, mask = inputs()
    total = jax.jit(lambda: nystrom_product(*nystrom_factors(q, k, mask, 5, width), jnp.ones_like(v), 16))()
    np.testing.assert_allclose(jnp.where(mask[:, None, :, None], total, 1), 1, atol=1e-6)


@pytest.mark.parametrize("size", [1, 5, 33])
@pytest.mark.parametrize("length", [1, 23])
def test_depthwise_equals_a_correlation(length: int, size: int) -> None:
    rng = np.random.default_rng(length)
    x, taps = rng.normal(size=(B, length, H, K)), rng.normal(size=(H, size))
    got = filtered(jnp.asarray(x, jnp.float32), jnp.asarray(taps, jnp.float32))
    padded = np.pad(x, ((0, 0), (size // 2, size // 2), (0, 0), (0, 0)))
    want = sum(padded[:, s : s + length] * taps[:, s, None] for s in range(size))
    np.testing.assert_allclose(got, want, atol=1e-5)
    identity = jnp.zeros((H, size)).at[:, size // 2].set(1)
    np.testing.assert_allclose(filtered(jnp.asarray(x, jnp.float32), identity), x, atol=1e-5)


def official(q: np.ndarray, k: np.ndarray, v: np.ndarray, taps: np.ndarray, n: int, count: int, size: int) -> Any:
    """Compute one head of one example, [size, K], as the authors' LRA code but with its own scale of the inverse."""

    def softmax(x: np.ndarray) -> np.ndarray:
        return np.exp(x) / np.exp(x).sum(-1, keepdims=True)

    q, k, v = (np.pad(x[:n], ((0, size - n), (0, 0))) for x in (q, k, v))
    q, k = q * K**-0.25, k * K**-0.25
    q_landmarks, k_landmarks = (x.reshape(count, size // count, K).mean(1) for x in (q, k))
    a = softmax(q_landmarks @ k_landmarks.T)
    z, eye = a.T / a.sum(0).max(), np.eye(count)
    for _ in range(6):
        az = a @ z
        z = 0.25 * z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az)))
    values = softmax(q_landmarks @ k.T + np.where(np.arange(size) < n, 0, -np.inf)) @ v
    smooth = np.stack([np.convolve(v[:, c], taps[::-1])[len(taps) // 2 :][:size] for c in range(K)], 1)
    return softmax(q @ k_landmarks.T) @ z @ values + smooth


@pytest.mark.usefixtures("x64")
def test_the_official_form_equals_the_authors_code() -> None:
    given = parse_options(Nystromformer, [f"{name}={value}" for name, value in OFFICIAL.items()])
    assert given == OFFICIAL
    mixer = Nystromformer(dataclasses.replace(DIMS, dtype=jnp.float64), **given, rngs=nnx.Rngs(0))
    q, k, v, mask = inputs()
    rng_keys = jax.random.split(jax.random.key(0), B)
    got = jax.jit(mixer.attend)(q.swapaxes(1, 2), k.swapaxes(1, 2), v.swapaxes(1, 2), mask, rng_keys)
    assert mixer.taps is not None
    for b, n in enumerate(LENGTHS):
        for h in range(H):
            taps = np.asarray(mixer.taps[...], np.float64)[h]
            want = official(np.asarray(q[b, h]), np.asarray(k[b, h]), np.asarray(v[b, h]), taps, n, 4, 32)
            np.testing.assert_allclose(got[b, :n, h], want[:n], rtol=1e-8, atol=1e-10)


def test_dropout_and_filter_can_be_disabled() -> None:
    x = jax.random.normal(jax.random.key(0), (B, L, DIMS.d_model))
    _, _, _, mask = inputs()
    rng_keys = jax.random.split(jax.random.key(1), B)
    mixer = Nystromformer(DIMS, landmarks=8, rngs=nnx.Rngs(0))
    bare = Nystromformer(DIMS, landmarks=8, taps=None, drop_weights=False, rngs=nnx.Rngs(0))
    (y, dropped), (plain, not_dropped) = (run(m, x, mask, rng_keys) for m in (mixer, bare))
    assert jnp.abs(dropped - y).max() > 1e-2
    np.testing.assert_allclose(not_dropped, plain, atol=1e-6)
    assert mixer.taps is not None
    mixer.taps[...] = jnp.zeros_like(mixer.taps[...])
    np.testing.assert_allclose(run(mixer, x, mask, rng_keys)[0], plain, atol=1e-6)


def run(mixer: Nystromformer, x: jax.Array, mask: jax.Array, rng_keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the outputs in evaluation and in training."""
    graph, state = nnx.split(mixer)

    @jax.jit
    def both(state: nnx.State, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        merged = nnx.merge(graph, state)
        return merged(x, mask), merged(x, mask, rng_keys=rng_keys)

    return both(state, x)


def test_no_array_is_quadratic_in_the_length() -> None:
    length, count = 512, 8
    dims = dataclasses.replace(DIMS, max_len=length)
    graph, state = nnx.split(Nystromformer(dims, landmarks=count, rngs=nnx.Rngs(0)))
    x, mask = jnp.zeros((1, length, DIMS.d_model)), jnp.ones((1, length), bool)
    gradient = jax.grad(lambda state, x: nnx.merge(graph, state)(x, mask).sum(), (0, 1))
    text = jax.make_jaxpr(gradient)(state, x).pretty_print(source_info=False)
    assert f"{length},{length}" not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"landmarks": 0}, "option landmarks=0: must be a whole number from 1 to"),
        ({"taps": 34}, "option taps=34: must be odd"),
        ({"segments": "even"}, "nystromformer: option segments=even: not one of own, padded"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(Nystromformer, DIMS, options, nnx.Rngs(0))
