"""Blockwise softmax attention against the whole matrix: values, gradients, dropout and memory."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params

from models.core import Dims
from models.dropout import attention_dropout
from models.mixers import softmax
from models.mixers.softmax import BLOCK, Softmax, softmax_attention
from tests.models.mixers.reference import dense, dense_weights, values_and_gradients

B, H, K, V = 3, 3, 4, 5
RATE = 0.3
SHAPES = [(37, 53), (53, 32), (BLOCK + 22, BLOCK + 22)]  # Lq, Lk; not all are multiples of the block size 16


def arrays(lq: int, lk: int, dtype: type = np.float64) -> tuple[jax.Array, ...]:
    """Return q, k, v, a cotangent of y, and a mask of all keys, all but seven, and one."""
    rng = np.random.default_rng(0)
    shapes = ((B, lq, H, K), (B, lk, H, K), (B, lk, H, V), (B, lq, H, V))
    q, k, v, dy = (jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)
    return 2 * q, 2 * k, v, dy, jnp.asarray(np.arange(lk)[None] < np.array([[lk], [lk - 7], [1]]))


def rng_keys() -> jax.Array:
    return jax.random.split(jax.random.key(4), B)


def assert_equal(
    actual: Callable[..., jax.Array], expected: Callable[..., jax.Array], lq: int, lk: int, tolerance: float = 1e-12
) -> None:
    """Assert that two functions of (q, k, v, mask) have equal values and gradients of q, k and v."""
    q, k, v, dy, mask = arrays(lq, lk)
    got, want = (values_and_gradients(functools.partial(f, mask=mask), q, k, v, dy) for f in (actual, expected))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * float(jnp.abs(b).max()))


def reference(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    return dense(q, k, v, mask[:, None, None])


def reference_dropped(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    weights = attention_dropout(dense_weights(q, k, mask[:, None, None]), RATE, rng_keys())
    return jnp.einsum("bhij,bjhv->bihv", weights, v)


def dropped(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, block: int = 16) -> jax.Array:
    return softmax_attention(q, k, v, mask, dropout_rate=RATE, rng_keys=rng_keys(), block=block)


SLOPES = (2.0, 0.3, 0.0)


def penalised_weights(q: jax.Array, k: jax.Array, mask: jax.Array) -> jax.Array:
    """Compute the weights [B, H, Lq, Lk] of logits from which SLOPES times the distance is subtracted."""
    distance = jnp.abs(jnp.arange(q.shape[1])[:, None] - jnp.arange(k.shape[1])[None])
    logits = (
        jnp.einsum("bihk,bjhk->bhij", q, k) / K**0.5 - jnp.array(SLOPES)[None, :, None, None] * distance[None, None]
    )
    return jax.nn.softmax(jnp.where(mask[:, None, None], logits, -jnp.inf), -1)


def penalised(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rate: float = 0) -> jax.Array:
    return jnp.einsum("bhij,bjhv->bihv", attention_dropout(penalised_weights(q, k, mask), rate, rng_keys()), v)


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use chunks of 24 keys, so that some chunks of the second and third example have no real key."""
    monkeypatch.setattr(softmax, "CHUNK", 24)


@pytest.mark.parametrize(("lq", "lk"), SHAPES)
@pytest.mark.usefixtures("x64")
def test_query_blocks_equal_the_definition(lq: int, lk: int) -> None:
    assert_equal(functools.partial(softmax_attention, block=16), reference, lq, lk)


@pytest.mark.parametrize(("lq", "lk"), SHAPES)
@pytest.mark.usefixtures("x64", "chunks")
def test_key_chunks_equal_the_definition(lq: int, lk: int) -> None:
    assert_equal(functools.partial(softmax_attention, block=16), reference, lq, lk)
    assert_equal(dropped, reference_dropped, lq, lk)


@pytest.mark.usefixtures("chunks")
def test_an_example_without_real_keys_gives_zeros() -> None:
    q, k, v, dy, mask = arrays(40, 60, np.float32)
    got = values_and_gradients(functools.partial(softmax_attention, mask=mask.at[1].set(False), block=16), q, k, v, dy)
    for a in got:
        assert jnp.isfinite(a).all()
        assert not a[1].any()


@pytest.mark.usefixtures("x64")
def test_one_block_equals_the_definition() -> None:
    assert_equal(softmax_attention, reference, 37, 53)


@pytest.mark.parametrize(("lq", "lk"), SHAPES)
@pytest.mark.usefixtures("x64")
def test_dropout_equals_attention_dropout_of_the_whole_matrix(lq: int, lk: int) -> None:
    assert_equal(dropped, reference_dropped, lq, lk)


@pytest.mark.parametrize("rate", [0.0, RATE])
@pytest.mark.parametrize(("lq", "lk"), SHAPES)
@pytest.mark.usefixtures("x64", "chunks")
def test_slopes_are_subtracted_from_the_logits_of_all_blocks(lq: int, lk: int, rate: float) -> None:
    attend = functools.partial(softmax_attention, dropout_rate=rate, rng_keys=rng_keys(), block=16, slopes=SLOPES)
    assert_equal(attend, functools.partial(penalised, rate=rate), lq, lk)


def small(heads: int = 4, **options: Any) -> Softmax:
    """Return a mixer with heads of width 6, in float64 where x64 is enabled."""
    dims = Dims(d_model=8, num_heads=heads, qkv_dim=6 * heads, max_len=200, mlp_dim=8, dtype=jnp.zeros(()).dtype)
    return Softmax(dims, rngs=nnx.Rngs(0), **options)


@pytest.mark.usefixtures("x64")
def test_rope_sees_distances_alone_in_the_order_of_its_paper() -> None:
    """The weights of queries and keys rotated as complex numbers; an equal shift of all tokens changes nothing."""
    length, shift = BLOCK + 21, 13
    rng = np.random.default_rng(0)
    q, k, v, dy = (jnp.asarray(rng.standard_normal((2, length, 4, 6))) for _ in range(4))
    mask = jnp.asarray(np.arange(length) < np.array([[length - shift], [40]]))
    turns = jnp.exp(1j * jnp.arange(length)[:, None] * 10_000.0 ** (-jnp.arange(3) / 3)[None])[None, :, None]

    def reference(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        q, k = ((x[..., :3] + 1j * x[..., 3:]) * turns for x in (q, k))
        logits = jnp.einsum("bihk,bjhk->bhij", q, k.conj()).real / 6**0.5
        return jnp.einsum("bhij,bjhv->bihv", jax.nn.softmax(jnp.where(mask[:, None, None], logits, -jnp.inf), -1), v)

    attend = functools.partial(small(positions="rope").attend, mask=mask, rng_keys=None)
    got, want = (values_and_gradients(f, q, k, v, dy) for f in (attend, reference))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12 * float(jnp.abs(b).max()))

    moved = [jnp.roll(x, shift, 1) for x in (q, k, v)]
    y = small(positions="rope").attend(*moved, jnp.roll(mask, shift, 1), None)
    np.testing.assert_allclose(y[:, shift:], got[0][:, :-shift], atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_options_of_the_mixer() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.standard_normal((2, 30, 4, 6))) for _ in range(3))
    mask = jnp.asarray(np.arange(30) < np.array([[30], [9]]))
    alibi = softmax_attention(q, k, v, mask, slopes=(1 / 4, 1 / 16, 1 / 64, 1 / 256))
    np.testing.assert_array_equal(small(decay="alibi").attend(q, k, v, mask, None), alibi)
    plain = small().attend(q, k, v, mask, None)
    np.testing.assert_array_equal(plain, softmax_attention(q, k, v, mask))
    outputs = [
        small(positions=p, decay=d).attend(q, k, v, mask, None) for p in ("protocol", "rope") for d in ("none", "alibi")
    ]
    assert all(float(jnp.abs(a - b).max()) > 1e-3 for a, b in itertools.combinations(outputs, 2))
    with pytest.raises(ValueError, match=r"^option positions=rope: needs heads of width 2 or more, not 1$"):
        Softmax(Dims(d_model=8, num_heads=8, qkv_dim=8, max_len=9, mlp_dim=8), positions="rope", rngs=nnx.Rngs(0))


@pytest.mark.parametrize("block", [48, BLOCK])
@pytest.mark.usefixtures("x64")
def test_block_size_does_not_change_the_result(block: int) -> None:
    assert_equal(functools.partial(dropped, block=block), dropped, 101, 90)


@pytest.mark.parametrize("block", [16, BLOCK])
def test_padding_does_not_change_outputs_and_an_empty_example_gives_zeros(block: int) -> None:
    q, k, v, dy, mask = arrays(40, 40, np.float32)
    mask = mask.at[0].set(False)
    real = mask[..., None, None]
    attend = functools.partial(dropped, mask=mask, block=block)
    want = values_and_gradients(attend, q, k, v, dy)
    k, v = (jnp.where(real, x, 1e4 * (1 + jnp.arange(x.size).reshape(x.shape))) for x in (k, v))
    got = values_and_gradients(attend, q, k, v, dy)
    for a, b in zip(got, want, strict=True):
        assert not a[0].any()
        np.testing.assert_allclose(a, b, atol=1e-6)
    for gradient in got[2:]:
        assert not jnp.where(real, 0, gradient).any()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.usefixtures("chunks")
def test_large_logits_select_the_largest(sign: int) -> None:
    """Logits far outside the range of exp give all weight to the key with the largest logit."""
    q, k, v, _, mask = arrays(40, 40, np.float32)
    q, k = jnp.abs(q), sign * 1e8 * jnp.abs(k)
    logits = jnp.where(mask[:, None, None], jnp.einsum("bihk,bjhk->bhij", q, k), -jnp.inf)
    largest = jax.nn.one_hot(logits.argmax(-1), 40)
    y = softmax_attention(q, k, v, mask, block=16)
    np.testing.assert_allclose(y, jnp.einsum("bhij,bjhv->bihv", largest, v), atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_vmap_and_checkpoint_do_not_change_the_result() -> None:
    def each(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
        def one(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, key: jax.Array) -> jax.Array:
            four = (x[None] for x in (q, k, v, mask))
            return softmax_attention(*four, dropout_rate=RATE, rng_keys=key[None], block=16)[0]

        return jax.vmap(one)(q, k, v, mask, rng_keys())

    assert_equal(each, dropped, 40, 40)
    assert_equal(jax.checkpoint(dropped), dropped, 40, 40)


def test_bfloat16_is_summed_in_float32() -> None:
    """The sum of a thousand equal weights in bfloat16 would not exceed 256."""
    ones = jnp.ones((1, 1024, 1, 4), jnp.bfloat16)
    attend = functools.partial(softmax_attention, mask=jnp.ones((1, 1024), bool))
    y, dq, dk, dv = values_and_gradients(attend, 0 * ones, 0 * ones, ones, 8 * ones)
    assert all(x.dtype == jnp.bfloat16 for x in (y, dq, dk, dv))
    np.testing.assert_array_equal(y.astype(jnp.float32), 1)
    np.testing.assert_array_equal(dv.astype(jnp.float32), 8)


def equations(jaxpr: Jaxpr) -> list[JaxprEqn]:
    nested = list(jaxpr.eqns)
    for equation in jaxpr.eqns:
        nested += [e for inner in jaxprs_in_params(equation.params) for e in equations(inner)]
    return nested


def program(length: int, dtype: type = jnp.float32) -> list[JaxprEqn]:
    """Trace forward and backward pass as the trainer does, with a precision context around the forward pass only."""

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return softmax_attention(q, k, v, jnp.ones((1, length), bool))

    x = jnp.zeros((1, length, 2, 4), dtype)
    return equations(jax.make_jaxpr(lambda x, dy: jax.vjp(attend, x, x, x)[1](dy))(x, x).jaxpr)


def test_one_block_has_no_loop() -> None:
    for length, loops in ((BLOCK, 0), (BLOCK + 1, 2)):
        names = [e.primitive.name for e in program(length)]
        assert names.count("scan") == loops
        assert "while" not in names


def test_backward_pass_uses_the_precision_of_the_forward_pass() -> None:
    products = [e for e in program(BLOCK) if e.primitive.name == "dot_general"]
    assert len(products) == 7
    assert {e.params["precision"] for e in products} == {(jax.lax.Precision.HIGHEST,) * 2}


def test_products_of_bfloat16_accumulate_in_float32() -> None:
    products = [e for e in program(BLOCK, jnp.bfloat16) if e.primitive.name == "dot_general"]
    assert {x.aval.dtype.name for e in products for x in e.invars} == {"bfloat16"}
    assert {e.params["preferred_element_type"].name for e in products} == {"float32"}


@pytest.mark.parametrize(("rate", "slopes"), [(0.0, None), (0.1, None), (0.0, (0.5, 0.1))])
def test_memory_is_linear_in_the_length(rate: float, slopes: tuple[float, ...] | None) -> None:
    def temporary_bytes(length: int) -> int:
        mask, key = jnp.ones((1, length), bool), jax.random.split(jax.random.key(0), 1)

        def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            return softmax_attention(q, k, v, mask, dropout_rate=rate, rng_keys=key, slopes=slopes)

        x = jax.ShapeDtypeStruct((1, length, 2, 8), jnp.float32)
        compiled = jax.jit(lambda x, dy: jax.vjp(attend, x, x, x)[1](dy)).lower(x, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    short, long = temporary_bytes(2048), temporary_bytes(4096)
    assert long < 2.3 * short
    assert long < 2 * 4096**2 * 4 / 2  # half of one matrix of weights
