"""Sparse attention against dense masks of its patterns; limit cases, dropout and sizes."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.mixers import build
from models.mixers.softmax import Softmax
from models.mixers.sparse import Sparse, sparse_attention

LENGTH = 33
LENGTHS = (33, 14, 1)
FORMS = list(itertools.product(["fixed", "strided"], [False, True], [False, True]))
DIMS = Dims(d_model=8, num_heads=2, qkv_dim=8, max_len=LENGTH, mlp_dim=8, dropout=0.4)


def pattern(kind: str, stride: int, columns: int, causal: bool, global_first: bool) -> np.ndarray:
    """Return the visible keys of each query, bool [L, L], one pair at a time."""
    first = int(global_first)
    visible = np.zeros((LENGTH, LENGTH), bool)
    for i, j in itertools.product(range(LENGTH - first), repeat=2):
        if kind == "fixed":
            inside = i // stride == j // stride or j % stride >= stride - columns or (causal and j % stride == 0)
        else:
            inside = abs(i - j) <= stride or (i - j) % stride == 0
        visible[first + i, first + j] = inside and (j <= i or not causal)
    visible[:first] = True
    visible[:, :first] = True
    return visible


@pytest.mark.parametrize(("kind", "causal", "global_first"), FORMS)
def test_equals_the_dense_mask(kind: str, causal: bool, global_first: bool) -> None:
    q, k, v = jax.random.normal(jax.random.key(0), (3, len(LENGTHS), LENGTH, 2, 4))
    mask = jnp.arange(LENGTH)[None, :] < jnp.array(LENGTHS)[:, None]
    real = mask[..., None, None]
    options: dict[str, Any] = {
        "kind": kind, "stride": 6, "columns": 2, "causal": causal, "global_first": global_first
    }  # fmt: skip
    visible = jnp.array(pattern(**options))[None] & mask[:, None] | ~mask[:, :, None]

    def fast(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return jnp.where(real, sparse_attention(q, k, v, mask, **options), 0)

    def slow(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        weights = jnp.exp(jnp.einsum("bihk,bjhk->bhij", q, k) / 2) * visible[:, None]
        return jnp.where(real, jnp.einsum("bhij,bjhv->bihv", weights / weights.sum(-1, keepdims=True), v), 0)

    @jax.jit
    def both(q: jax.Array, k: jax.Array, v: jax.Array) -> Any:
        pairs = [jax.vjp(form, q, k, v) for form in (fast, slow)]
        return [(y, *back(jnp.sin(q))) for y, back in pairs]

    for got, want in zip(*both(q, k, v), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-6)


@pytest.mark.parametrize("kind", ["fixed", "strided"])
def test_one_block_equals_softmax_attention(kind: Literal["fixed", "strided"]) -> None:
    mixer = Sparse(DIMS, kind=kind, stride=LENGTH, rngs=nnx.Rngs(0))
    softmax = Softmax(DIMS, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (1, LENGTH, 8))
    mask = jnp.ones((1, LENGTH), bool)
    got, want = jax.jit(lambda x: (mixer(x, mask), softmax(x, mask)))(x)
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("kind", ["fixed", "strided"])
def test_two_layers_connect_all_positions(kind: str) -> None:
    """As the paper requires of a pattern, two steps connect any two positions."""
    one_layer = pattern(kind, 6, 2, False, False)[:30, :30].astype(int)  # whole blocks
    assert not one_layer.all()
    assert (one_layer @ one_layer).all()


@pytest.mark.parametrize(
    "options", [{"columns": 1}, {"columns": 1, "causal": True, "global_first": True}, {"kind": "strided"}]
)
def test_dropout_is_independent_of_padding(options: dict[str, Any], x64: None) -> None:
    dims, options = dataclasses.replace(DIMS, dtype=jnp.float64), {"stride": 4, "columns": 4} | options
    mixer = Sparse(dims, **options, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (2, LENGTH, 8))

    @jax.jit
    def results(rng_keys: jax.Array | None) -> list[jax.Array]:
        masks = [jnp.arange(length)[None, :] < jnp.array([14, 1])[:, None] for length in (LENGTH, 14)]
        pairs = [(mask, mixer(x[:, : mask.shape[1]], mask, rng_keys=rng_keys)) for mask in masks]
        return [jnp.where(mask[..., None], y, 0)[:, :14] for mask, y in pairs]

    padded, short = results(jax.random.split(jax.random.key(2), 2))
    np.testing.assert_allclose(padded, short, atol=1e-12)
    assert (short != results(None)[1]).any()


def test_sizes_and_refused_options() -> None:
    assert Sparse(DIMS, rngs=nnx.Rngs(0)).stride == 6
    official = Sparse(DIMS, stride=50, columns=10, causal=True, rngs=nnx.Rngs(0))
    assert (official.stride, official.columns) == (33, 10)
    with pytest.raises(ValueError, match="option columns=10: must not exceed stride=4"):
        build(Sparse, DIMS, {"stride": 4, "columns": 10}, nnx.Rngs(0))
    with pytest.raises(ValueError, match="option stride=0: must be a whole number from 1 to"):
        build(Sparse, DIMS, {"stride": 0}, nnx.Rngs(0))
    with pytest.raises(ValueError, match="sparse: option kind=random: not one of fixed, strided"):
        build(Sparse, DIMS, {"kind": "random"}, nnx.Rngs(0))
