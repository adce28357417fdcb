"""Longformer against a masked matrix; visible keys, global projections and padding."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.mixers.longformer import Longformer, sliding_window_attention
from models.mixers.softmax import Softmax
from tests.models.mixers.reference import dense, values_and_gradients

B, H, K = 2, 2, 3
DIMS = Dims(d_model=12, num_heads=2, qkv_dim=16, max_len=40, mlp_dim=24)


def run(mixer: nnx.Module, x: jax.Array, mask: jax.Array, rng_keys: jax.Array | None = None) -> jax.Array:
    return jax.jit(lambda x, mask, rng_keys: mixer(x, mask, rng_keys=rng_keys))(x, mask, rng_keys)


def pattern(length: int, left: int, right: int, num_global: int) -> np.ndarray:
    """Return the visible keys of each query, bool [L, L]."""
    i, j = np.arange(length)[:, None], np.arange(length)[None, :]
    return (i - left <= j) & (j <= i + right) | (j < num_global)


def tokens(length: int, lengths: tuple[int, ...], dtype: Any = np.float32) -> tuple[jax.Array, jax.Array]:
    x = np.random.default_rng(length).normal(size=(len(lengths), length, DIMS.d_model))
    return jnp.asarray(x, dtype), jnp.arange(length)[None] < jnp.array(lengths)[:, None]


@pytest.mark.parametrize(
    ("left", "right", "num_global", "length"),
    [
        (4, 4, 1, 45),
        (3, 4, 0, 45),
        (0, 0, 0, 17),
        (17, 17, 3, 50),
        (16, 16, 2, 48),
        (44, 44, 0, 45),  # all positions
        (2, 2, 9, 5),  # more global tokens than tokens
        (130, 130, 2, 300),  # more than one block on each side
    ],
)
def test_equals_the_masked_matrix(left: int, right: int, num_global: int, length: int) -> None:
    with jax.enable_x64(True):
        rng = np.random.default_rng(length)
        q, k, v, cotangent = (jnp.asarray(rng.normal(size=(B, length, H, K))) for _ in range(4))
        mask = jnp.arange(length)[None] < jnp.array([length, max(1, length * 2 // 3)])[:, None]
        visible = jnp.asarray(pattern(length, left, right, num_global))[None] & mask[:, None]
        visible = visible | jnp.eye(length, dtype=bool)[None]  # padded queries may have any finite output
        keep = mask[:, :, None, None]

        def blocked(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            return jnp.where(keep, sliding_window_attention(q, k, v, mask, left, right, num_global), 0)

        def naive(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            return jnp.where(keep, dense(q, k, v, visible[:, None]), 0)

        for got, want in zip(
            *(values_and_gradients(form, q, k, v, cotangent) for form in (blocked, naive)), strict=True
        ):
            np.testing.assert_allclose(got, want, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "left", "right", "num_global"),
    [
        ({"window": 8}, 4, 4, 1),
        ({"window": 7, "num_global": 2}, 3, 3, 2),
        ({"window": 8, "num_global": 0, "window_counts_query": True}, 3, 4, 0),  # the reference suite
        ({"window": 7, "num_global": 0, "window_counts_query": True}, 3, 3, 0),
        ({"window": 1, "num_global": 0}, 0, 0, 0),
        ({}, 39, 39, 1),
    ],
)
def test_visible_keys_equal_the_pattern(options: dict[str, Any], left: int, right: int, num_global: int) -> None:
    mixer = Longformer(DIMS, **options, rngs=nnx.Rngs(0))
    x, mask = tokens(40, (40,))
    jacobian = jax.jit(jax.jacobian(lambda x: mixer(x[None], mask)[0].sum(-1)))(x[0])  # [L, L, D]
    expected = pattern(40, left, right, num_global)
    expected[:num_global] = True
    np.testing.assert_array_equal(jnp.abs(jacobian).max(-1) > 0, expected)


def like_softmax(**options: Any) -> tuple[Longformer, Softmax]:
    mixer, softmax = Longformer(DIMS, **options, rngs=nnx.Rngs(0)), Softmax(DIMS, rngs=nnx.Rngs(1))
    for name in ("query", "key", "value", "output"):
        setattr(softmax, name, getattr(mixer, name))
    return mixer, softmax


@pytest.mark.parametrize("num_global", [0, 1, 40])
def test_a_window_over_all_positions_equals_softmax_attention(num_global: int) -> None:
    """This includes the global rows, whose projections are initialised as copies."""
    mixer, softmax = like_softmax(num_global=num_global)
    x, mask = tokens(33, (33, 12))
    np.testing.assert_allclose(run(mixer, x, mask), run(softmax, x, mask), atol=1e-6)


def test_global_rows_use_separate_projections() -> None:
    mixer, softmax = like_softmax(window=6, num_global=2)
    other = Softmax(DIMS, rngs=nnx.Rngs(7))
    for name in ("query", "key", "value"):
        old = getattr(mixer, f"{name}_global").kernel
        np.testing.assert_array_equal(old[...], getattr(mixer, name).kernel[...])
        assert old[...].unsafe_buffer_pointer() != getattr(mixer, name).kernel[...].unsafe_buffer_pointer()
    x, mask = tokens(33, (33, 12))
    before = run(mixer, x, mask)
    np.testing.assert_allclose(before[:, :2], run(softmax, x, mask)[:, :2], atol=1e-6)
    for name in ("query", "key", "value"):
        setattr(mixer, f"{name}_global", getattr(other, name))
    other.output = mixer.output
    after = run(mixer, x, mask)
    np.testing.assert_array_equal(after[:, 2:], before[:, 2:])
    np.testing.assert_allclose(after[:, :2], run(other, x, mask)[:, :2], atol=1e-6)

    all_global = Longformer(DIMS, num_global=1000, rngs=nnx.Rngs(0))  # the local projections have no effect
    for name in ("query_global", "key_global", "value_global", "output"):
        setattr(all_global, name, getattr(mixer, name))
    np.testing.assert_allclose(run(all_global, x, mask), run(other, x, mask), atol=1e-6)


def test_global_tokens_add_three_projections() -> None:
    def count(mixer: nnx.Module) -> int:
        return sum(x.size for x in jax.tree.leaves(nnx.state(mixer, nnx.Param)))

    plain, extra = count(Softmax(DIMS, rngs=nnx.Rngs(0))), 3 * DIMS.d_model * DIMS.qkv_dim
    assert count(Longformer(DIMS, num_global=0, rngs=nnx.Rngs(0))) == plain
    assert count(Longformer(DIMS, rngs=nnx.Rngs(0))) == plain + extra


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_padding_does_not_change_outputs_of_blocks(training: bool) -> None:
    """The checks of the mixer contract use sizes within the default window, which this test does not."""
    mixer = Longformer(dataclasses.replace(DIMS, dropout=0.4), window=6, num_global=2, rngs=nnx.Rngs(0))
    padded, _ = tokens(40, (23, 9, 1))
    rng_keys = jax.random.split(jax.random.key(1), 3) if training else None

    @jax.jit
    def step(x: jax.Array, mask: jax.Array) -> Any:
        def loss(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            y = jnp.where(mask[..., None], mixer(x, mask, rng_keys=rng_keys), 0)
            return (y**2).sum(), y

        return jax.grad(loss, has_aux=True)(x)

    mask = jnp.arange(40)[None] < jnp.array([23, 9, 1])[:, None]
    gradient, y = step(padded[:, :23], mask[:, :23])
    for other in (padded, jnp.where(mask[..., None], padded, 1e3)):
        other_gradient, other_y = step(other, mask)
        np.testing.assert_allclose(other_y[:, :23], y, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(other_gradient[:, :23], gradient, rtol=1e-5, atol=1e-6)
        assert (jnp.where(mask[..., None], 0, other_gradient) == 0).all()
    if training:
        changed = (y != jnp.where(mask[..., None], run(mixer, padded, mask), 0)[:, :23]).any((0, 2))
        assert changed[:2].any()  # global rows
        assert changed[2:].any()


def test_no_array_of_length_by_length() -> None:
    length = 2048
    mixer = Longformer(dataclasses.replace(DIMS, max_len=length), window=64, rngs=nnx.Rngs(0))
    x, mask = tokens(length, (length,))
    jaxpr = jax.make_jaxpr(jax.grad(lambda x: mixer(x, mask).sum()))(x)
    largest = max(v.aval.size for e in jaxpr.jaxpr.eqns for v in e.outvars)
    assert largest <= DIMS.num_heads * length * 100  # three blocks of 32 and the global token


@pytest.mark.parametrize("options", [{"window": 0}, {"num_global": -1}])
def test_invalid_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"option (window|num_global)=.*: must be a whole number from "):
        Longformer(DIMS, **options, rngs=nnx.Rngs(0))
