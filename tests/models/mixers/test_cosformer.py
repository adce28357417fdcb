"""cosFormer attention against its quadratic definition, with a fixed max_len and one per example."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.cosine_attention import CHUNK
from models.mixers import build, cosformer
from models.mixers.cosformer import CosFormer
from tests.models.mixers.reference import largest_array

cosformer_attention = jax.jit(cosformer.cosformer_attention, static_argnames=("max_len", "causal", "eps"))

B, H, K, V = 2, 3, 4, 5


def quadratic(
    q: jax.Array, k: jax.Array, v: jax.Array, *, mask: Any = None, max_len: Any = None, causal: bool = False
) -> jax.Array:
    """Compute cosFormer attention by its definition, with L x L weights."""
    lq, lk = q.shape[1], k.shape[1]
    i, j = jnp.arange(1, lq + 1)[:, None], jnp.arange(1, lk + 1)[None, :]
    weights = jnp.einsum("bihk,bjhk->bhij", jnp.maximum(q, 0), jnp.maximum(k, 0))
    weights = weights * jnp.cos(jnp.pi / 2 * (i - j) / (max_len or max(lq, lk)))[None, None]
    if mask is not None:
        weights = weights * mask[:, None, None, :]
    if causal:
        weights = weights * (j <= i)[None, None]
    total = jnp.maximum(weights.sum(-1), 1e-6)
    return jnp.einsum("bhij,bjhv->bihv", weights / total[..., None], v)


def inputs(lq: int, lk: int, dtype: Any = np.float64) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(lq * 1000 + lk)
    q, k, v = (rng.normal(size=(B, length, H, width)) for length, width in ((lq, K), (lk, K), (lk, V)))
    mask = np.arange(lk) < np.array([lk, max(1, lk // 2)])[:, None]
    return *(jnp.asarray(x, dtype) for x in (q, k, v)), jnp.asarray(mask)  # type: ignore[return-value]


FORMS = [
    pytest.param(lq, lk, causal, id=f"{'causal' if causal else 'both'}-{lq}-{lk}")
    for lq, lk, causal in [
        (1, 1, False),
        (37, 37, False),
        (37, 11, False),
        (8, 61, False),
        (1, 1, True),
        (37, 37, True),
        (CHUNK, CHUNK, True),
        (2 * CHUNK + 45, 2 * CHUNK + 45, True),
    ]
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [None, 3.7])
@pytest.mark.parametrize(("lq", "lk", "causal"), FORMS)
def test_equals_the_quadratic_form(lq: int, lk: int, causal: bool, scale: float | None, masked: bool) -> None:
    q, k, v, mask = inputs(lq, lk)
    max_len = None if scale is None else int(scale * max(lq, lk))
    options = {"mask": mask if masked else None, "max_len": max_len, "causal": causal}
    probe = jax.random.normal(jax.random.key(0), (B, lq, H, V), jnp.float64)

    def value_and_gradients(attention: Callable[..., jax.Array]) -> Any:
        y, pull = jax.vjp(lambda q, k, v: attention(q, k, v, **options), q, k, v)
        return y, pull(probe)

    (y, gradients) = jax.jit(lambda: value_and_gradients(cosformer_attention))()
    (expected, expected_gradients) = jax.jit(lambda: value_and_gradients(quadratic))()
    assert y.dtype == jnp.float64
    np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-11)
    for got, want in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-9 * max(1.0, float(jnp.abs(want).max())))
    if masked:
        assert all((g[1, max(1, lk // 2) :] == 0).all() for g in gradients[1:])


def test_float32_and_bfloat16_are_close_to_float64() -> None:
    with jax.enable_x64(True):
        q, k, v, mask = inputs(301, 301)
        exact = {causal: np.asarray(quadratic(q, k, v, mask=mask, causal=causal)) for causal in (False, True)}
    for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.bfloat16, 0.05)):
        q, k, v, mask = inputs(301, 301, dtype)
        for causal in (False, True):
            y = cosformer_attention(q, k, v, mask=mask, causal=causal)
            assert y.dtype == dtype
            np.testing.assert_allclose(y.astype(jnp.float32), exact[causal], atol=tolerance)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("causal", [False, True])
def test_weights_are_a_cosine_window_over_relu_linear_attention(causal: bool) -> None:
    q, k, v, mask = inputs(41, 41)
    weights = jnp.einsum("bihk,bjhk->bhij", jnp.maximum(q, 0), jnp.maximum(k, 0)) * mask[:, None, None, :]
    weights = jnp.tril(weights) if causal else weights
    linear = jnp.einsum("bhij,bjhv->bihv", weights / jnp.maximum(weights.sum(-1, keepdims=True), 1e-6), v)
    y = cosformer_attention(q, k, v, mask=mask, max_len=10**9, causal=causal)
    np.testing.assert_allclose(y, linear, rtol=1e-9, atol=1e-9)

    identity = jnp.broadcast_to(jnp.eye(41)[None, :, None, :], (B, 41, H, 41))
    implied = cosformer_attention(q, k, identity, mask=mask, causal=causal)
    assert (implied > -1e-12).all()
    total = implied.sum(-1)
    nonzero = total > 0.5  # a query whose features are all zero returns zero
    np.testing.assert_allclose(total, nonzero, atol=1e-9)
    assert nonzero.mean() > 0.8


@pytest.mark.parametrize("causal", [False, True])
def test_padding_does_not_change_outputs_with_a_fixed_max_len(causal: bool) -> None:
    q, k, v, mask = inputs(50, 50, np.float32)
    pad = lambda x: jnp.pad(x, ((0, 0), (0, 90)) + ((0, 0),) * (x.ndim - 2), constant_values=3)  # noqa: E731
    padded_mask = jnp.pad(mask, ((0, 0), (0, 90)))
    y = cosformer_attention(q, k, v, mask=mask, max_len=140, causal=causal)
    padded = cosformer_attention(pad(q), pad(k), pad(v), mask=padded_mask, max_len=140, causal=causal)
    np.testing.assert_allclose(padded[:, :50], y, rtol=1e-5, atol=1e-6)


@functools.partial(jax.jit, static_argnums=4)
def gradients_of_sum(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, causal: bool) -> Any:
    attention = lambda q, k, v: cosformer_attention(q, k, v, mask=mask, causal=causal).sum()  # noqa: E731
    return jax.grad(attention, (0, 1, 2))(q, k, v)


@pytest.mark.parametrize("causal", [False, True])
def test_queries_without_keys_give_zeros_and_finite_gradients(causal: bool) -> None:
    q, k, v, _ = inputs(9, 9, np.float32)
    for q, mask in ((q, jnp.zeros((B, 9), bool)), (-jnp.abs(q), jnp.ones((B, 9), bool))):  # noqa: B020
        assert (cosformer_attention(q, k, v, mask=mask, causal=causal) == 0).all()
        gradients = gradients_of_sum(q, k, v, mask, causal)
        assert all(np.isfinite(g).all() for g in gradients)


own_attention = jax.jit(cosformer.cosformer_attention, static_argnames=("causal", "eps"))  # max_len is traced


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("causal", [False, True])
def test_max_len_per_example_equals_the_quadratic_form_of_separate_examples(causal: bool) -> None:
    """Values and gradients of a padded batch equal those of each example without padding, where M is its length."""
    lengths = np.array([CHUNK + 30, 7])
    q, k, v, _ = inputs(CHUNK + 30, CHUNK + 30)
    mask = jnp.asarray(np.arange(CHUNK + 30) < lengths[:, None])
    probe = jax.random.normal(jax.random.key(0), v.shape, jnp.float64)

    def own(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return own_attention(q, k, v, mask=mask, max_len=mask.sum(1), causal=causal)

    y, pull = jax.vjp(own, q, k, v)
    gradients = pull(jnp.where(mask[:, :, None, None], probe, 0))
    for i, n in enumerate(lengths):
        separate = [x[i : i + 1, :n] for x in (q, k, v)]
        want, pull_separate = jax.vjp(functools.partial(quadratic, max_len=n, causal=causal), *separate)
        np.testing.assert_allclose(y[i, :n], want[0], rtol=1e-9, atol=1e-11)
        for got, wanted in zip(gradients, pull_separate(probe[i : i + 1, :n]), strict=True):
            np.testing.assert_allclose(got[i, :n], wanted[0], rtol=1e-8, atol=1e-9)
            assert (got[i, n:] == 0).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("causal", [False, True])
def test_equal_max_len_per_example_equals_one_max_len(causal: bool) -> None:
    q, k, v, mask = inputs(37, 37)
    got = own_attention(q, k, v, mask=mask, max_len=jnp.array([50, 50]), causal=causal)
    want = cosformer_attention(q, k, v, mask=mask, max_len=50, causal=causal)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("causal", [False, True])
def test_padding_does_not_change_outputs_with_max_len_per_example(causal: bool) -> None:
    q, k, v, mask = inputs(50, 50, np.float32)
    pad = lambda x: jnp.pad(x, ((0, 0), (0, 90), (0, 0), (0, 0)), constant_values=3)  # noqa: E731
    y = own_attention(q, k, v, mask=mask, max_len=mask.sum(1), causal=causal)
    padded_mask = jnp.pad(mask, ((0, 0), (0, 90)))
    padded = own_attention(pad(q), pad(k), pad(v), mask=padded_mask, max_len=padded_mask.sum(1), causal=causal)
    np.testing.assert_allclose(padded[:, :50], y, rtol=1e-5, atol=1e-6)
    # Weights are non-negative and sum to at most 1 at padded queries too.
    assert jnp.abs(padded).max() <= jnp.abs(jnp.where(padded_mask[..., None, None], pad(v), 0)).max() * (1 + 1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_an_empty_example_gives_zeros_and_finite_gradients(causal: bool) -> None:
    q, k, v, _ = inputs(9, 9, np.float32)
    mask = jnp.asarray(np.arange(9) < np.array([[9], [0]]))

    def total(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = own_attention(q, k, v, mask=mask, max_len=mask.sum(1), causal=causal)
        return y.sum(), y

    gradients, y = jax.grad(total, (0, 1, 2), has_aux=True)(q, k, v)
    assert (y[1] == 0).all()
    assert all(np.isfinite(g).all() and (g[1] == 0).all() for g in gradients)
    separate = cosformer_attention(q[:1], k[:1], v[:1], max_len=9, causal=causal)
    np.testing.assert_allclose(y[0], separate[0], rtol=1e-5, atol=1e-6)


def test_option_m_selects_max_len() -> None:
    dims = Dims(d_model=6, num_heads=2, qkv_dim=8, max_len=40, mlp_dim=12)
    q, k, v = (jax.random.normal(jax.random.key(i), (2, 21, 2, 4)) for i in range(3))
    mask = jnp.asarray(np.arange(21) < np.array([[21], [5]]))
    by_option = {m: CosFormer(dims, m=m, rngs=nnx.Rngs(0)).attend(q, k, v, mask, None) for m in ("max_len", "own")}
    for i, n in enumerate((21, 5)):
        separate = [x[i : i + 1, :n] for x in (q, k, v)]
        for m, length in (("max_len", 40), ("own", n)):
            want = quadratic(*separate, max_len=length)[0]
            np.testing.assert_allclose(by_option[m][i, :n], want, rtol=1e-4, atol=1e-5)
    assert (jnp.abs(by_option["own"] - by_option["max_len"]).max((1, 2, 3)) > 1e-3).all()
    default = CosFormer(dims, rngs=nnx.Rngs(0)).attend(q, k, v, mask, None)
    np.testing.assert_array_equal(default, by_option["max_len"])
    with pytest.raises(ValueError, match="cosformer: option m=padded: not one of max_len, own"):
        build(CosFormer, dims, {"m": "padded"}, nnx.Rngs(0))


@pytest.mark.parametrize("form", ["both", "cross", "causal"])
def test_memory_is_linear(form: str) -> None:
    width = 16

    def largest(length: int) -> int:
        q, v = jnp.zeros((1, length, 1, width)), jnp.zeros((1, length // 2 if form == "cross" else length, 1, width))
        attention = lambda q, k, v: cosformer_attention(q, k, v, causal=form == "causal").sum()  # noqa: E731
        return largest_array(jax.make_jaxpr(jax.grad(attention, (0, 1, 2)))(q, v, v).jaxpr)

    for length in (2048, 4096):  # the largest arrays are features of width 2K; there is no L x L array
        assert largest(length) <= 2 * length * (width + 1)


def test_invalid_inputs_are_refused() -> None:
    q, k, v, mask = inputs(8, 6, np.float32)
    with pytest.raises(ValueError, match="max_len 7 is shorter than an input"):
        cosformer_attention(q, k, v, max_len=7)
    for invalid in (jnp.array([8]), jnp.array([8.0, 8.0]), jnp.array(8)):
        with pytest.raises(ValueError, match=r"max_len \w+\[.*\] is not an int or an integer array \[2\]"):
            cosformer.cosformer_attention(q, k, v, max_len=invalid)
    with pytest.raises(ValueError, match=r"mask \(2, 5\) is not \[B, Lk\]"):
        cosformer_attention(q, k, v, mask=mask[:, :5])
    with pytest.raises(ValueError, match="as many queries as keys, not 8 and 6"):
        cosformer_attention(q, k, v, causal=True)
    for invalid in ((q, k[..., :3], v), (q, k, v[:, :4]), (q[:1], k, v), (q[:, :, :2], k, v)):
        with pytest.raises(ValueError, match=r"are not \[B, Lq, H, K\]"):
            cosformer_attention(*invalid)
