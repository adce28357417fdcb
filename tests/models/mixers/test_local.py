"""Local attention in both layouts against a dense mask; visible positions and dropout."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.block_attention import strided_attention
from models.core import Dims
from models.mixers import build
from models.mixers.local import Local, local_attention

DIMS = Dims(d_model=8, num_heads=2, qkv_dim=8, max_len=23, mlp_dim=8, dropout=0.4)
LENGTHS = (23, 9, 1)


def inputs(length: int = 23) -> tuple[jax.Array, ...]:
    q, k, v = jax.random.normal(jax.random.key(0), (3, len(LENGTHS), length, 2, 4))
    return q, k, v, jnp.arange(length)[None, :] < jnp.array(LENGTHS)[:, None]


def dense(q: jax.Array, k: jax.Array, v: jax.Array, visible: jax.Array) -> jax.Array:
    """Compute softmax attention where `visible` [B, L, L] is True, by its definition."""
    weights = jnp.exp(jnp.einsum("bihk,bjhk->bhij", q, k) / 2) * visible[:, None]
    return jnp.einsum("bhij,bjhv->bihv", weights / weights.sum(-1, keepdims=True), v)


@pytest.mark.parametrize("window", [1, 5, 23, 50])
@pytest.mark.parametrize("layout", ["local", "strided"])
def test_equals_the_dense_mask(layout: str, window: int) -> None:
    q, k, v, mask = inputs()
    i = np.arange(23)
    stride = 23 // window + 1
    group = i // window if layout == "local" else i % stride
    visible = jnp.array(group[:, None] == group[None, :])[None] & mask[:, None, :]
    real = mask[..., None, None]  # a padded query may have no key

    def fast(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        form = local_attention if layout == "local" else strided_attention
        return jnp.where(real, form(q, k, v, mask, window if layout == "local" else stride), 0)

    def slow(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return jnp.where(real, dense(q, k, v, visible | jnp.eye(23, dtype=bool)[None] & ~mask[:, :, None]), 0)

    @jax.jit
    def both(q: jax.Array, k: jax.Array, v: jax.Array) -> list[tuple[jax.Array, ...]]:
        pairs = [jax.vjp(form, q, k, v) for form in (fast, slow)]
        return [(y, *back(jnp.sin(q))) for y, back in pairs]

    for got, want in zip(*both(q, k, v), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_lra_strided_equals_the_reshape_of_the_reference_suite() -> None:
    """Reshape [B, L, ...] to [B, w, n, ...] and attend over w, as the suite does, without keys beyond the length."""
    length, window = 23, 6
    q, k, v, _ = inputs()
    count = length // window + 1
    fill = window * count - length
    blocks = [np.pad(x, ((0, 0), (0, fill), (0, 0), (0, 0))).reshape(3, window, count, 2, 4) for x in (q, k, v)]
    weights = np.exp(np.einsum("binhk,bjnhk->bnhij", blocks[0], blocks[1]) / 2)
    beyond = np.arange(window * count).reshape(window, count) >= length
    weights = weights * ~beyond.T[None, :, None, None, :]
    want = np.einsum("bnhij,bjnhv->binhv", weights / weights.sum(-1, keepdims=True), blocks[2])
    got = jax.jit(lambda: strided_attention(q, k, v, jnp.ones((3, length), bool), count))()
    np.testing.assert_allclose(got, want.reshape(3, -1, 2, 4)[:, :length], atol=1e-6)


@pytest.mark.parametrize(("layout", "visible"), [("local", {10, 11, 12, 13, 14}), ("lra_strided", {2, 7, 12, 17, 22})])
def test_positions_that_influence_an_output(layout: Literal["local", "lra_strided"], visible: set[int]) -> None:
    mixer = Local(DIMS, window=5, layout=layout, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (1, 23, 8))
    gradient = jax.jit(jax.grad(lambda x: mixer(x, jnp.ones((1, 23), bool))[0, 12].sum()))(x)
    assert set(np.flatnonzero(np.abs(gradient[0]).max(-1))) == visible


@pytest.mark.parametrize(("layout", "window"), [("local", 5), ("local", 50), ("lra_strided", 5)])
def test_dropout_is_independent_of_padding(layout: Literal["local", "lra_strided"], window: int) -> None:
    mixer = Local(DIMS, window=window, layout=layout, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (2, 23, 8))

    @jax.jit
    def results(rng_keys: jax.Array | None) -> list[jax.Array]:
        masks = [jnp.arange(length)[None, :] < jnp.array([9, 8])[:, None] for length in (23, 9)]
        return [mixer(x[:, : mask.shape[1]], mask, rng_keys=rng_keys)[:, :8] for mask in masks]

    padded, short = results(jax.random.split(jax.random.key(2), 2))
    np.testing.assert_allclose(padded, short, atol=1e-6)
    assert (short != results(None)[1]).any()


def test_invalid_options_are_refused() -> None:
    with pytest.raises(ValueError, match="option window=0: must be a whole number from 1 to 65,536"):
        build(Local, DIMS, {"window": 0}, nnx.Rngs(0))
    with pytest.raises(ValueError, match="local: option layout=ring: not one of local, lra_strided"):
        build(Local, DIMS, {"layout": "ring"}, nnx.Rngs(0))
