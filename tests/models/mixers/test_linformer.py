"""Linformer against a naive form; sharing, initial values and options."""

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
from models.mixers import build, parse_options
from models.mixers.linformer import Linformer, linformer_attention, shorten

B, L, H, K, M = 2, 13, 3, 4, 5
DIMS = Dims(d_model=12, num_heads=3, qkv_dim=24, max_len=20, mlp_dim=24, dropout=0.3)
OFFICIAL: dict[str, Any] = {"rank": 16, "sharing": "key-value", "init": "xavier"}


def inputs() -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(B, L, H, K))) for _ in range(3))
    return q, k, v, jnp.arange(L)[None, :] < jnp.array([[L], [6]])


def naive(q: jax.Array, k: jax.Array, v: jax.Array, mask: np.ndarray, e: jax.Array, f: jax.Array) -> jax.Array:
    """Compute one example and one head at a time, without padding."""
    e, f = (jnp.broadcast_to(p, (H, *p.shape[-2:])) for p in (e, f))
    examples = []
    for b, n in enumerate(mask.sum(1)):
        heads = []
        for h in range(H):
            short_k, short_v = e[h, :n].T @ k[b, :n, h], f[h, :n].T @ v[b, :n, h]
            weights = jnp.exp(q[b, :, h] @ short_k.T / math.sqrt(K))
            heads.append(weights @ short_v / weights.sum(-1, keepdims=True))
        examples.append(jnp.stack(heads, 1))
    return jnp.stack(examples)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shape", [(L, M), (H, L, M)])
def test_equals_the_naive_form(shape: tuple[int, ...]) -> None:
    q, k, v, mask = inputs()
    real = np.asarray(mask)
    e, f = (jax.random.normal(jax.random.key(i), shape, jnp.float64) for i in range(2))
    probe = jax.random.normal(jax.random.key(2), q.shape, jnp.float64)

    @jax.jit
    def run(q: jax.Array, k: jax.Array, v: jax.Array, e: jax.Array, f: jax.Array) -> Any:
        y, pull = jax.vjp(lambda q, k, v, e, f: linformer_attention(q, k, v, mask, e, f), q, k, v, e, f)
        want, pull_want = jax.vjp(lambda q, k, v, e, f: naive(q, k, v, real, e, f), q, k, v, e, f)
        return (y, *pull(probe)), (want, *pull_want(probe))

    results, expected = run(q, k, v, e, f)
    for got, want in zip(results, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-11)
    assert all((gradient[1, 6:] == 0).all() for gradient in results[2:4])


@pytest.mark.usefixtures("x64")
def test_identity_projections_equal_softmax_attention_without_padding() -> None:
    q, k, v, _ = inputs()
    mask = jnp.ones((B, L), bool)

    def softmax(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        weights = jax.nn.softmax(jnp.einsum("bihk,bjhk->bhij", q, k) / math.sqrt(K))
        return jnp.einsum("bhij,bjhv->bihv", weights, v)

    eye = jnp.eye(L)
    y, pull = jax.vjp(lambda q, k, v: linformer_attention(q, k, v, mask, eye, eye), q, k, v)
    want, pull_want = jax.vjp(softmax, q, k, v)
    np.testing.assert_allclose(y, want, rtol=1e-10)
    for got, expected in zip(pull(v), pull_want(v), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_the_rank_of_the_output_is_at_most_that_of_the_projection() -> None:
    q, k, v, mask = inputs()
    e, f = (jax.random.normal(jax.random.key(i), (L, 2), jnp.float64) for i in range(2))
    y = linformer_attention(q, k, v, mask, e, f)
    assert int(jnp.linalg.matrix_rank(y[0, :, 0])) == 2
    assert shorten(k, mask, e).shape == (B, 2, H, K)


def sizes(**options: Any) -> dict[str, tuple[int, ...]]:
    mixer = Linformer(DIMS, **options, rngs=nnx.Rngs(0))
    projections = {name: getattr(mixer, name) for name in ("key_projection", "value_projection")}
    return {name: parameter.shape for name, parameter in projections.items() if parameter is not None}


def test_sharing_determines_the_projections() -> None:
    both = ("key_projection", "value_projection")
    assert sizes(rank=7) == dict.fromkeys(both, (20, 7))
    assert sizes(rank=7, sharing="none") == dict.fromkeys(both, (3, 20, 7))
    assert sizes(rank=7, sharing="key-value") == {"key_projection": (20, 7)}
    assert sizes() == dict.fromkeys(both, (20, 20))  # 256 exceeds max_len


def test_initial_values_of_the_projections() -> None:
    dims = dataclasses.replace(DIMS, max_len=1000)

    def initial(**options: Any) -> jax.Array:
        return Linformer(dims, **options, rngs=nnx.Rngs(1)).key_projection[...]

    for sharing in ("none", "headwise"):
        np.testing.assert_allclose(initial(rank=64, sharing=sharing).std(), 1 / 8, rtol=0.02)
        np.testing.assert_allclose(
            jnp.abs(initial(rank=64, sharing=sharing, init="xavier")).max(), math.sqrt(6 / 1064), rtol=0.01
        )
    official = Linformer(dims, **OFFICIAL, rngs=nnx.Rngs(1))
    assert official.value_projection is None
    assert official.key_projection.shape == (1000, 16)


def test_invalid_options_are_refused() -> None:
    with pytest.raises(ValueError, match="option rank=0: must be a whole number from 1 to"):
        build(Linformer, DIMS, {"rank": 0}, nnx.Rngs(0))
    with pytest.raises(ValueError, match="linformer: option sharing=layerwise: not one of none, headwise, key-value"):
        build(Linformer, DIMS, {"sharing": "layerwise"}, nnx.Rngs(0))
    assert parse_options(Linformer, ["rank=16", "sharing=key-value", "init=xavier"]) == OFFICIAL
