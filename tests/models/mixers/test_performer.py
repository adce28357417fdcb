"""Performer against exact softmax, and against its own kernel as an L x L matrix."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.mixers import build
from models.mixers.performer import Performer, orthogonal_features, performer_attention

DIMS = Dims(d_model=12, num_heads=2, qkv_dim=16, max_len=20, mlp_dim=24)
LENGTHS = (12, 7)


def arrays(width: int = 8) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    q, k, v = (jax.random.normal(jax.random.key(i), (2, 12, 2, width)) for i in range(3))
    return q, k, v, jnp.arange(12)[None] < jnp.array(LENGTHS)[:, None]


def weighted(weights: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Average v with weights [B, H, Lq, Lk], which are normalised here."""
    weights = weights * mask[:, None, None]
    return jnp.einsum("bhij,bjhv->bihv", weights / weights.sum(-1, keepdims=True), v)


def softmax(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    return weighted(jnp.exp(jnp.einsum("bihk,bjhk->bhij", q, k) / math.sqrt(q.shape[-1])), v, mask)


def test_feature_rows_are_orthogonal_in_blocks_and_gaussian() -> None:
    w = np.array(orthogonal_features(jax.random.key(0), 21, 8))
    assert w.shape == (21, 8)
    for block in (w[:8], w[8:16], w[16:]):
        gram = block @ block.T
        np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-5)
    many = jax.jit(jax.vmap(lambda key: orthogonal_features(key, 4, 4)))(jax.random.split(jax.random.key(1), 20_000))
    np.testing.assert_allclose(many.mean(0), np.zeros((4, 4)), atol=0.03)  # a bare QR: -0.8 in the first entry
    np.testing.assert_allclose(jnp.einsum("nmk,nml->mkl", many, many) / 20_000, [np.eye(4)] * 4, atol=0.05)
    assert abs((many**4).mean() - 3) < 0.1


def test_the_kernel_estimate_is_unbiased() -> None:
    x, y = jax.random.normal(jax.random.key(3), (2, 4)) / 2

    def estimate(key: jax.Array) -> jax.Array:
        w = orthogonal_features(key, 4, 4)
        return jnp.exp(w @ x + w @ y - (x @ x + y @ y) / 2).mean()

    mean = jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(1), 50_000)).mean()
    np.testing.assert_allclose(mean, jnp.exp(x @ y), rtol=0.03)


def test_the_error_to_softmax_decreases_with_the_number_of_features() -> None:
    q, k, v, mask = arrays()
    q, k = q / 2, k / 2  # the variance grows like exp(|q + k|^2)
    want = softmax(q, k, v, mask)

    @functools.partial(jax.jit, static_argnums=0)
    def error(count: int) -> jax.Array:
        draw = jax.vmap(lambda key: orthogonal_features(key, count, 8))
        squared_error = jax.vmap(lambda w: ((performer_attention(q, k, v, mask, w) - want) ** 2).mean())
        return jnp.sqrt(squared_error(draw(jax.random.split(jax.random.key(5), 10))).mean())

    errors = [float(error(count)) for count in (8, 64, 1024)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.05 * float(jnp.abs(want).max())


@pytest.mark.parametrize(
    ("kernel", "count", "eps"), [("softmax", 7, 0.0), ("softmax", 7, 0.1), ("relu", 7, 1e-3), ("relu", 0, 1e-3)]
)
def test_equals_the_kernel_as_a_matrix(kernel: Any, count: int, eps: float) -> None:
    with jax.enable_x64(True):
        q, k, v, mask = arrays()
        w = orthogonal_features(jax.random.key(9), count, 8) if count else None

        def matrix(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            scale = 8**0.25 if kernel == "softmax" else 1
            q, k = q / scale, k / scale
            projected_q, projected_k = (x if w is None else jnp.einsum("blhk,mk->blhm", x, w) for x in (q, k))
            if kernel == "softmax":
                a, b = (t - (x**2).sum(-1, keepdims=True) / 2 for t, x in ((projected_q, q), (projected_k, k)))
                largest = jnp.where(mask[:, :, None, None], b, -jnp.inf).max((1, 3), keepdims=True)
                phi_q = jnp.exp(a - jax.lax.stop_gradient(a.max(-1, keepdims=True))) + eps
                phi_k = jnp.exp(b - jax.lax.stop_gradient(largest)) + eps
            else:
                phi_q, phi_k = jnp.maximum(projected_q, 0) + eps, jnp.maximum(projected_k, 0) + eps
            return weighted(jnp.einsum("bihm,bjhm->bhij", phi_q, phi_k), v, mask)

        @functools.partial(jax.jit, static_argnums=0)
        def run(attention: Any, *args: jax.Array) -> Any:
            def loss(*args: jax.Array) -> tuple[jax.Array, jax.Array]:
                y = attention(*args)
                return (y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)).sum(), y

            return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(*args)

        fast = functools.partial(performer_attention, mask=mask, w=w, kernel=kernel, eps=eps)
        for got, want in zip(jax.tree.leaves(run(fast, q, k, v)), jax.tree.leaves(run(matrix, q, k, v)), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-11)


def test_long_vectors_do_not_overflow_or_vanish() -> None:
    q, k, v, mask = arrays()
    w = orthogonal_features(jax.random.key(9), 16, 8)

    def loss(scale: jax.Array, mask: jax.Array) -> jax.Array:
        return (performer_attention(scale * q, scale * k, v, mask, w) ** 2).sum()

    gradient = jax.jit(jax.value_and_grad(loss))
    for scale in (0.0, 1e-3, 30.0, 1e3):
        for some_mask in (mask, jnp.zeros_like(mask)):
            assert all(jnp.isfinite(y) for y in gradient(jnp.array(scale), some_mask))
    y = jax.jit(performer_attention)(30 * q, 30 * k, v, mask, w)
    mean = jnp.where(mask[..., None, None], v, 0).sum(1, keepdims=True) / mask.sum(1)[:, None, None, None]
    assert jnp.abs(y - mean).max() > 0.5  # with features far below eps, attention would be uniform


def test_features_are_drawn_once_or_for_every_training_step() -> None:
    x = jax.random.normal(jax.random.key(3), (2, 20, 12))
    mask, rng_keys = jnp.ones((2, 20), bool), jax.random.split(jax.random.key(1), 4)
    mixer = Performer(DIMS, rngs=nnx.Rngs(0))
    assert mixer.w is not None
    assert mixer.w[...].shape == (16, 8)  # 8 ln 8 = 16.6
    run = jax.jit(lambda x, rng_keys=None: mixer(x, mask[: len(x)], rng_keys=rng_keys))
    np.testing.assert_array_equal(run(x), run(x, rng_keys[:2]))
    redrawing = Performer(DIMS, redraw=True, rngs=nnx.Rngs(0))
    redraw = jax.jit(lambda x, rng_keys=None: redrawing(x, mask[: len(x)], rng_keys=rng_keys))
    np.testing.assert_array_equal(redraw(x), run(x))
    y = redraw(x, rng_keys[:2])
    assert (y != redraw(x, rng_keys[2:])).any()
    np.testing.assert_allclose(redraw(x[1:], rng_keys[1:2])[0], y[1], rtol=1e-4, atol=1e-5)


def test_the_form_of_the_reference_suite_has_no_random_features() -> None:
    mixers = [Performer(DIMS, kernel="relu", features=0, rngs=nnx.Rngs(0)) for _ in range(2)]
    assert mixers[0].w is None
    assert mixers[0].eps == 1e-3
    assert Performer(Dims(d_model=4, num_heads=4, qkv_dim=4, max_len=9, mlp_dim=4), rngs=nnx.Rngs(0)).count == 1


@pytest.mark.parametrize(
    "options",
    [
        {"features": 0},
        {"features": -1, "kernel": "relu"},
        {"eps": -1.0},
        {"kernel": "relu", "features": 0, "redraw": 1},
    ],
    ids=str,
)
def test_invalid_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"performer: option ({'|'.join(options)})=.*: "):
        build(Performer, DIMS, options, nnx.Rngs(0))


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="performer: option kernel=gelu: not one of softmax, relu"):
        build(Performer, DIMS, {"kernel": "gelu"}, nnx.Rngs(0))
