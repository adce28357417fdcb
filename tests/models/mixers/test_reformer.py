"""Reformer against dense softmax over the keys that buckets and chunks make visible."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Buffer, Dims
from models.mixers import build
from models.mixers.reformer import Reformer, lsh_attention, lsh_buckets

DIMS = Dims(d_model=12, num_heads=2, qkv_dim=8, max_len=30, mlp_dim=24, dropout=0.3, dtype=jnp.float64)
LENGTHS = (23, 9, 1)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Enable float64, because float32 decides ties of a hash arbitrarily."""
    with jax.enable_x64(True):
        yield


def visible_rounds(buckets: np.ndarray, length: int, chunk: int, across: bool) -> np.ndarray:
    """Count the rounds in which i sees j, [L, L], for buckets [R, L] of one head, by sorting in plain Python."""
    times = np.zeros((buckets.shape[1],) * 2, int)
    for row in buckets:
        order = sorted(range(length), key=lambda i: (row[i], i))
        chunk_of = {i: index // chunk for index, i in enumerate(order)}
        for i in range(length):
            for j in range(length):
                times[i, j] += chunk_of[i] - chunk_of[j] in (0, 1) and (across or row[i] == row[j])
    return times


def dense(qk: jax.Array, v: jax.Array, times: np.ndarray) -> jax.Array:
    """Compute softmax over keys counted `times`; a position sees itself only if it sees no other."""
    k = qk / jnp.linalg.norm(qk, axis=-1, keepdims=True)
    others = times * (1 - np.eye(len(times[0, 0]), dtype=int))
    times = np.where(others.any(-1, keepdims=True), others, times)
    weights = times * jnp.exp(jnp.einsum("bhik,bhjk->bhij", qk, k))
    total = weights.sum(-1, keepdims=True)
    return jnp.einsum("bhij,bhjv->bhiv", weights / jnp.where(total > 0, total, 1), v)


def arrays(length: int = max(LENGTHS), width: int = 4) -> tuple[jax.Array, jax.Array, jax.Array]:
    qk, v = (jax.random.normal(jax.random.key(i), (3, 2, length, width)) for i in range(2))
    return qk, v, jnp.arange(length)[None] < jnp.array(LENGTHS)[:, None]


@pytest.mark.parametrize("across_buckets", [False, True])
@pytest.mark.parametrize(("rounds", "duplicates"), [(1, False), (3, False), (3, True)])
def test_equals_dense_softmax_over_visible_keys(rounds: int, duplicates: bool, across_buckets: bool) -> None:
    qk, v, mask = arrays()
    rotations = jax.random.normal(jax.random.key(7), (3, rounds, 2, 4, 3))
    buckets = lsh_buckets(qk, rotations, (6,))
    times = np.array(
        [
            [visible_rounds(np.array(buckets[b, :, h]), LENGTHS[b], 5, across_buckets) for h in range(2)]
            for b in range(len(LENGTHS))
        ]
    )
    assert rounds == 1 or (times > 1).any()
    fast = functools.partial(
        lsh_attention,
        buckets=buckets,
        mask=mask,
        chunk=5,
        count=6,
        across_buckets=across_buckets,
        duplicates=duplicates,
    )
    slow = functools.partial(dense, times=times if duplicates else np.minimum(times, 1))

    @functools.partial(jax.jit, static_argnums=0)
    def run(attention: Any, qk: jax.Array, v: jax.Array) -> Any:
        def loss(qk: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
            y = jnp.where(mask[:, None, :, None], attention(qk, v), 0)
            return (y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)).sum(), y

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(qk, v)

    for got, want in zip(jax.tree.leaves(run(fast, qk, v)), jax.tree.leaves(run(slow, qk, v)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("rounds", [1, 2])
def test_one_bucket_in_one_chunk_equals_softmax_with_shared_queries_and_keys(rounds: int) -> None:
    qk, v, mask = arrays()
    k = qk / jnp.linalg.norm(qk, axis=-1, keepdims=True)
    logits = jnp.einsum("bhik,bhjk->bhij", qk, k) - 1e5 * jnp.eye(23)[None, None]
    want = jnp.einsum("bhij,bhjv->bhiv", jax.nn.softmax(jnp.where(mask[:, None, None], logits, -1e9)), v)
    buckets = jnp.zeros((3, rounds, 2, 23), jnp.int32)
    got = jax.jit(functools.partial(lsh_attention, chunk=30, count=1))(qk, v, buckets, mask)
    np.testing.assert_allclose(*(jnp.where(mask[:, None, :, None], y, 0) for y in (got, want)), atol=1e-9)
    assert Reformer(DIMS, rngs=nnx.Rngs(0)).factors == ()


def test_buckets_equal_the_definition_of_the_hash() -> None:
    qk, _, _ = arrays()
    rotations = jax.random.normal(jax.random.key(7), (3, 2, 2, 4, 7))
    bucket = lsh_buckets(qk, rotations[..., :3], (6,))
    rotated = np.einsum("bhlk,brhkm->brhlm", qk, rotations[..., :3])
    np.testing.assert_array_equal(bucket, np.concatenate([rotated, -rotated], -1).argmax(-1))
    np.testing.assert_array_equal(lsh_buckets(-qk, rotations[..., :3], (6,)), (bucket + 3) % 6)
    np.testing.assert_array_equal(lsh_buckets(5 * qk, rotations[..., :3], (6,)), bucket)
    other = lsh_buckets(qk, rotations[..., 3:], (8,))
    np.testing.assert_array_equal(lsh_buckets(qk, rotations, (6, 8)), 8 * bucket + other)


def test_many_buckets_are_two_hashes() -> None:
    def factors(max_len: int, **options: Any) -> tuple[int, ...]:
        dims = Dims(d_model=4, num_heads=1, qkv_dim=4, max_len=max_len, mlp_dim=4)
        return Reformer(dims, **options, rngs=nnx.Rngs(0)).factors

    assert [factors(n) for n in (64, 65, 2000, 4096)] == [(), (4,), (64,), (128,)]
    assert factors(16384) == (22, 24)
    assert factors(2**17) == (64, 64)
    assert factors(100, buckets=1) == ()
    assert factors(100, chunk=500) == ()
    assert factors(1000, official=True) == (10,)


def test_more_rounds_approximate_dense_attention_better() -> None:
    qk, v, mask = arrays(width=8)
    want = dense(qk, v, np.array(jnp.broadcast_to(mask[:, None, None], (3, 2, 23, 23)), int))
    keep = mask[:, None, :, None]

    @functools.partial(jax.jit, static_argnums=0)
    def error(rounds: int) -> jax.Array:
        rotations = jax.random.normal(jax.random.key(rounds), (3, rounds, 2, 8, 2))
        got = lsh_attention(qk, v, lsh_buckets(qk, rotations, (4,)), mask, chunk=6, count=4)
        return (jnp.where(keep, got - want, 0) ** 2).sum()

    errors = [float(error(rounds)) for rounds in (1, 3, 6)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "training"),
    [
        ({"chunk": 4}, False),
        ({"chunk": 4, "rounds": 2, "buckets": 6}, True),
        ({"chunk": 4, "across_buckets": True}, True),
        ({"official": True}, True),
    ],
    ids=str,
)
def test_outputs_are_independent_of_padding_and_batch(options: dict[str, Any], training: bool) -> None:
    graph, params, rest = nnx.split(Reformer(DIMS, **options, rngs=nnx.Rngs(0)), nnx.Param, Buffer)
    padded = jax.random.normal(jax.random.key(3), (3, DIMS.max_len, DIMS.d_model))
    rng_keys = jax.random.split(jax.random.key(11), 3) if training else None

    @jax.jit
    def run(x: jax.Array, mask: jax.Array, rng_keys: jax.Array | None) -> Any:
        def loss(params: nnx.State, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            y = jnp.where(mask[..., None], nnx.merge(graph, params, rest)(x, mask, rng_keys=rng_keys), 0)
            return (y**2 * jnp.linspace(0.5, 1.5, DIMS.d_model)[None, None]).sum(), y

        (_, y), (d_params, d_x) = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
        return y, d_x, d_params

    mask = jnp.arange(DIMS.max_len)[None] < jnp.array(LENGTHS)[:, None]
    x, short = padded[:, :23], mask[:, :23]
    y, d_x, d_params = run(x, short, rng_keys)
    assert all((leaf != 0).any() and jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(d_params))
    assert (jnp.where(short[..., None], 0, d_x) == 0).all()
    other = run(jnp.where(short[..., None], x, 1e3 * jnp.cos(x)), short, rng_keys)
    jax.tree.map(np.testing.assert_array_equal, other, (y, d_x, d_params))
    more, more_d_x, more_d_params = run(padded, mask, rng_keys)
    got, want = (more[:, :23], more_d_x[:, :23], more_d_params), (y, d_x, d_params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), got, want)
    separate = run(padded[1:2], mask[1:2], None if rng_keys is None else rng_keys[1:2])
    np.testing.assert_allclose(separate[0][0, :9], y[1, :9], rtol=1e-9, atol=1e-10)
    empty = run(x, short & jnp.array([[True], [False], [True]]), rng_keys)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(empty))
    np.testing.assert_allclose(empty[0][0], y[0], rtol=1e-9, atol=1e-10)


def test_rotations_are_drawn_in_training_and_fixed_in_evaluation() -> None:
    dims = Dims(d_model=12, num_heads=2, qkv_dim=8, max_len=30, mlp_dim=24)
    x = jax.random.normal(jax.random.key(3), (1, 30, 12))
    mask, rng_keys = jnp.ones((1, 30), bool), jax.random.split(jax.random.key(1), 2)
    mixer = Reformer(dims, chunk=4, rngs=nnx.Rngs(0))
    assert mixer.rotations[...].shape == (1, 2, 4, 8)
    run = jax.jit(lambda rng_keys=None: mixer(x, mask, rng_keys=rng_keys))
    first, second, evaluation = run(rng_keys[:1]), run(rng_keys[1:]), run()
    assert (first != second).any()
    assert (first != evaluation).any()
    official = Reformer(dims, official=True, rngs=nnx.Rngs(0))
    fixed = jax.jit(lambda rng_keys=None: official(x, mask, rng_keys=rng_keys))
    np.testing.assert_array_equal(fixed(rng_keys[:1]), fixed())
    other = Reformer(dims, official=True, rngs=nnx.Rngs(5))
    np.testing.assert_array_equal(other.rotations[...], official.rotations[...])
    np.testing.assert_array_equal(*other.rotations[...].swapaxes(0, 1))


def test_bfloat16_hashes_like_float32() -> None:
    x = jax.random.normal(jax.random.key(3), (16, 30, 12)).astype(jnp.bfloat16)
    half, full = (
        jax.jit(Reformer(dataclasses.replace(DIMS, dtype=dtype), chunk=4, rngs=nnx.Rngs(0)))(x.astype(dtype), mask)
        for dtype, mask in ((d, jnp.ones((16, 30), bool)) for d in (jnp.bfloat16, jnp.float32))
    )
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), full, atol=0.02 * float(jnp.abs(full).max()))


@pytest.mark.slow
def test_the_official_form_equals_a_loop() -> None:
    """Each head is computed as in the reference suite, except for padding, and [H, L, K] is read as [L, H K]."""
    mixer = Reformer(DIMS, official=True, rngs=nnx.Rngs(0))
    x, length = jax.random.normal(jax.random.key(3), (1, 30, 12)), 26
    mask, width, chunk, padded_length = jnp.arange(30)[None] < length, 6, 4, 40
    qk, v = (np.array(layer(x)).reshape(30, 2, width) for layer in (mixer.query, mixer.value))
    out = np.zeros((2, padded_length, width))
    for h in range(2):
        rotated = qk[:, h] @ np.array(mixer.rotations[...], float)[0, h]
        row = np.concatenate([rotated, -rotated], -1).argmax(-1)
        assert rotated.shape[-1] == 5
        times = visible_rounds(row[None], length, chunk, across=True)
        weights = times * np.exp(qk[:, h] @ qk[:, h].T * np.sqrt(width))
        out[h, :length] = (weights[:length] / weights[:length].sum(-1, keepdims=True)) @ v[:, h]
    got = jnp.where(mask[..., None], mixer(x, mask), 0)
    np.testing.assert_allclose(got[0, :length], out.reshape(padded_length, 12)[:length], rtol=1e-5, atol=1e-6)
    assert mixer.output is None


@pytest.mark.parametrize("options", [{"rounds": 0}, {"chunk": 0}, {"buckets": 7}, {"buckets": 0}], ids=str)
def test_invalid_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=rf"option {next(iter(options))}=\d: must be "):
        build(Reformer, DIMS, options, nnx.Rngs(0))


def test_invalid_dimensions_are_refused() -> None:
    narrow = Dims(d_model=9, num_heads=2, qkv_dim=8, max_len=30, mlp_dim=24)
    with pytest.raises(ValueError, match="d_model 9 to be divisible by num_heads 2"):
        Reformer(narrow, official=True, rngs=nnx.Rngs(0))
    endless = Dims(d_model=8, num_heads=2, qkv_dim=8, max_len=2**19, mlp_dim=24)
    with pytest.raises(ValueError, match=r"exceed 2\^31"):
        Reformer(endless, rngs=nnx.Rngs(0))
