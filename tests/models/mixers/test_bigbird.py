"""BigBird against a masked matrix; random blocks, limit cases and options."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Buffer, Dims
from models.mixers.bigbird import BigBird, bigbird_attention, draw_random_blocks
from models.mixers.softmax import Softmax
from tests.models.mixers.reference import dense, values_and_gradients

H, K = 2, 3
DIMS = Dims(d_model=12, num_heads=2, qkv_dim=16, max_len=96, mlp_dim=24)


def run(mixer: nnx.Module, x: jax.Array, mask: jax.Array, rng_keys: jax.Array | None = None) -> jax.Array:
    return jax.jit(lambda x, mask, rng_keys: mixer(x, mask, rng_keys=rng_keys))(x, mask, rng_keys)


def pattern(length: int, real: int, plan: np.ndarray, size: int) -> np.ndarray:
    """Return the visible keys of each query, bool [H, L, L], as in the paper."""
    last = (real - 1) // size
    visible = np.zeros((plan.shape[1], length, length), bool)
    for head in range(plan.shape[1]):
        for i in range(length):
            u = i // size
            blocks = {u - 1, u, u + 1, 0, last, *plan[u, head].tolist()} if u not in (0, last) else range(last + 1)
            for j in range(real):
                visible[head, i, j] = j // size in blocks
    return visible


@pytest.mark.parametrize(("length", "size", "count", "num_random"), [(45, 3, 20, 3), (45, 3, 15, 0), (37, 4, 10, 2)])
def test_equals_the_masked_matrix(length: int, size: int, count: int, num_random: int) -> None:
    lengths = (length, length - 8, 20, 14, 7, 2)
    plan = draw_random_blocks(jax.random.key(3), count, H, num_random, count)
    with jax.enable_x64(True):
        rng = np.random.default_rng(length)
        q, k, v, cotangent = (jnp.asarray(rng.normal(size=(len(lengths), length, H, K))) for _ in range(4))
        mask = jnp.arange(length)[None] < jnp.array(lengths)[:, None]
        visible = jnp.asarray(np.stack([pattern(length, n, np.asarray(plan), size) for n in lengths]))
        # Padded queries may have any finite output.
        visible = visible | jnp.eye(length, dtype=bool)[None, None] & ~mask[:, None, :, None]
        keep = mask[:, :, None, None]

        def blocked(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            return jnp.where(keep, bigbird_attention(q, k, v, mask, plan, size), 0)

        def naive(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            return jnp.where(keep, dense(q, k, v, visible), 0)

        for got, want in zip(
            *(values_and_gradients(form, q, k, v, cotangent) for form in (blocked, naive)), strict=True
        ):
            np.testing.assert_allclose(got, want, atol=1e-12)


def test_random_blocks_are_distinct_and_exclude_visible_blocks() -> None:
    count, heads = 20, 50
    plan = np.asarray(draw_random_blocks(jax.random.key(0), count, heads, 3, count))
    assert plan.shape == (count, heads, 3)
    for u in range(count):
        forbidden = {0, count - 1, u - 1, u, u + 1}
        drawn = plan[u]
        assert all(len(set(row)) == 3 for row in drawn.tolist())  # eight blocks in all, with window and ends
        assert set(drawn.ravel().tolist()) == set(range(count)) - forbidden  # all others occur
    np.testing.assert_array_equal(draw_random_blocks(jax.random.key(0), count, heads, 3, count), plan)
    with jax.enable_x64(True):
        in_x64 = draw_random_blocks(jax.random.key(0), count, heads, 3, count)
        assert in_x64.dtype == jnp.int32
        np.testing.assert_array_equal(in_x64, plan)
    assert draw_random_blocks(jax.random.key(0), count, heads, 3, 8).max() <= count - 1
    drawn = np.asarray(draw_random_blocks(jax.random.key(0), count, heads, 3, 8))[2:-1]
    assert set(drawn.ravel().tolist()) == set(range(1, 8))
    few = np.asarray(draw_random_blocks(jax.random.key(0), 5, heads, 3, 5))
    assert (few[2] == 2).all()  # no block remains
    np.testing.assert_array_equal(np.sort(few[1], -1), np.array([[1, 1, 3]] * heads))


@pytest.mark.parametrize("num_random", [0, 3])
def test_up_to_four_blocks_equal_softmax_attention(num_random: int) -> None:
    mixer, softmax = BigBird(DIMS, num_random=num_random, rngs=nnx.Rngs(0)), Softmax(DIMS, rngs=nnx.Rngs(1))
    for name in ("query", "key", "value", "output"):
        setattr(softmax, name, getattr(mixer, name))
    full = 4 * mixer.size  # with five blocks, the second does not see the fourth
    x = jax.random.normal(jax.random.key(0), (4, 96, 12))
    mask = jnp.arange(96)[None] < jnp.array([full, full - 1, 1, full + 1])[:, None]
    y, expected = run(mixer, x, mask), run(softmax, x, mask)
    np.testing.assert_allclose(y[:3, :full][mask[:3, :full]], expected[:3, :full][mask[:3, :full]], atol=1e-6)
    assert jnp.abs(y - expected)[3, : full + 1].max() > 1e-3


def test_outputs_depend_on_exactly_the_pattern() -> None:
    mixer = BigBird(DIMS, rngs=nnx.Rngs(0))
    x, mask = jax.random.normal(jax.random.key(0), (96, 12)), jnp.arange(96)[None] < 83
    jacobian = jax.jit(jax.jacobian(lambda x: mixer(x[None], mask)[0].sum(-1)))(x)  # [L, L, D]
    assert mixer.plan is not None
    expected = pattern(96, 83, np.asarray(mixer.plan[...]), mixer.size)[:, :83].max(0)
    np.testing.assert_array_equal((jnp.abs(jacobian).max(-1) > 0)[:83], expected)
    assert not expected[:, :83].all()


def test_the_block_size_is_reduced_for_short_inputs() -> None:
    for max_len, size in ((4000, 64), (768, 64), (512, 42), (96, 8), (3, 1)):
        assert BigBird(dataclasses.replace(DIMS, max_len=max_len), rngs=nnx.Rngs(0)).size == size
    assert BigBird(DIMS, block=5, rngs=nnx.Rngs(0)).size == 5


def test_layers_draw_different_random_blocks_as_buffers() -> None:
    rngs = nnx.Rngs(0)
    one, two = (BigBird(DIMS, rngs=rngs) for _ in range(2))
    same_seed = BigBird(DIMS, rngs=nnx.Rngs(0))
    assert isinstance(one.plan, Buffer)
    assert isinstance(two.plan, Buffer)
    assert isinstance(same_seed.plan, Buffer)
    assert (one.plan[...] != two.plan[...]).any()
    np.testing.assert_array_equal(one.plan[...], same_seed.plan[...])
    assert jax.tree.leaves(nnx.state(BigBird(DIMS, num_random=0, rngs=nnx.Rngs(0)), Buffer)) == []


def test_options_of_the_reference_suite() -> None:
    long = dataclasses.replace(DIMS, max_len=4000, dropout=0.5)
    official = BigBird(long, random_span=1024, drop_weights=False, rngs=nnx.Rngs(0))
    default = BigBird(long, rngs=nnx.Rngs(0))
    assert official.plan is not None
    assert default.plan is not None
    assert official.plan[...][17:].max() == 15  # 16 blocks of 64
    assert default.plan[...].max() == 61
    x, mask = jax.random.normal(jax.random.key(0), (1, 70, 12)), jnp.ones((1, 70), bool)
    rng_keys = jax.random.split(jax.random.key(1), 1)
    np.testing.assert_array_equal(run(official, x, mask, rng_keys), run(official, x, mask))
    assert (run(default, x, mask, rng_keys) != run(default, x, mask)).any()


def test_no_array_of_length_by_length() -> None:
    length = 1536
    mixer = BigBird(dataclasses.replace(DIMS, max_len=length), block=16, rngs=nnx.Rngs(0))
    x, mask = jnp.ones((1, length, 12)), jnp.ones((1, length), bool)
    jaxpr = jax.make_jaxpr(jax.grad(lambda x: mixer(x, mask).sum()))(x)
    largest = max(v.aval.size for e in jaxpr.jaxpr.eqns for v in e.outvars)
    assert largest <= DIMS.num_heads * length * 8 * 16


@pytest.mark.parametrize("options", [{"block": 0}, {"num_random": -1}, {"random_span": 0}])
def test_invalid_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"option {next(iter(options))}=.*: must be a whole number from"):
        BigBird(DIMS, **options, rngs=nnx.Rngs(0))
