"""Polynomial attention against its definition and its linear-time form."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.mixers.polynomial import Polynomial, polynomial_weights

B, L, H, K = 2, 11, 3, 4
DIMS = Dims(d_model=12, num_heads=3, qkv_dim=24, max_len=20, mlp_dim=24, dropout=0.3)


def inputs() -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(B, L, H, K))) for _ in range(3))
    return q, k, v, jnp.arange(L)[None, :] < jnp.array([[L], [6]])


def attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, degree: int) -> jax.Array:
    return jnp.einsum("bhij,bjhv->bihv", polynomial_weights(q, k, mask, degree), v)


def linear_time(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, degree: int) -> jax.Array:
    """Compute attention by features: x (degree 1) or all products of two entries of x (degree 2)."""
    if degree == 2:
        q, k = ((x[..., :, None] * x[..., None, :]).reshape(B, L, H, K * K) for x in (q, k))
    state = jnp.einsum("bjhk,bjhv->bhkv", k * mask[:, :, None, None], v)
    n = jnp.array([L, 6.0])[:, None, None, None]
    return jnp.einsum("bihk,bhkv->bihv", q, state) / (K ** (degree / 2) * jnp.sqrt(n))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("degree", [1, 2])
def test_low_degrees_equal_their_linear_form(degree: int) -> None:
    q, k, v, mask = inputs()
    probe = jax.random.normal(jax.random.key(2), q.shape, jnp.float64)
    y, pull = jax.vjp(lambda q, k, v: attention(q, k, v, mask, degree), q, k, v)
    want, pull_want = jax.vjp(lambda q, k, v: linear_time(q, k, v, mask, degree), q, k, v)
    np.testing.assert_allclose(y, want, rtol=1e-10, atol=1e-12)
    for got, expected in zip(pull(probe), pull_want(probe), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_weights_are_scaled_by_the_length_of_the_example(degree: int) -> None:
    q, k, _, mask = inputs()
    weights = np.asarray(polynomial_weights(q, k, mask, degree))
    for b, n in enumerate((L, 6)):
        for h in range(H):
            scores = np.asarray(q[b, :, h]) @ np.asarray(k[b, :n, h]).T / math.sqrt(K)
            np.testing.assert_allclose(weights[b, h, :, :n], scores**degree / math.sqrt(n), rtol=1e-9, atol=1e-12)
    assert (weights[1, ..., 6:] == 0).all()
    assert (weights < 0).any() == (degree % 2 == 1)  # odd powers preserve the sign


@pytest.mark.parametrize("degree", [2, 3])
def test_the_norm_of_the_weights_grows_like_the_root_of_the_length(degree: int) -> None:
    norms = []
    for n in (32, 128, 512):
        q, k = (jax.random.normal(jax.random.key(i), (1, n, 4, 16)) for i in range(2))
        weights = polynomial_weights(q, k, jnp.ones((1, n), bool), degree)
        norms.append(float(jnp.sqrt((weights**2).sum((2, 3)).mean() / n)))
    np.testing.assert_allclose(norms, norms[-1], rtol=0.2)


def test_overflowing_padding_has_no_effect() -> None:
    q, k, v, mask = (x.astype(jnp.float32) for x in inputs())
    mask = mask.astype(bool)

    def loss(k: jax.Array) -> jax.Array:
        return (attention(q, k, v, mask, 3) * mask[:, :, None, None]).sum()

    y, gradient = jax.value_and_grad(loss)(jnp.where(mask[:, :, None, None], k, 1e20))
    want, want_gradient = jax.value_and_grad(loss)(k)
    np.testing.assert_allclose(y, want, rtol=1e-6)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-6)


def test_the_learned_scale_multiplies_the_output_and_has_a_gradient() -> None:
    fixed = Polynomial(DIMS, rngs=nnx.Rngs(0))
    learned = Polynomial(DIMS, learned_scale=True, rngs=nnx.Rngs(0))
    x, mask = jax.random.normal(jax.random.key(1), (2, 20, 12)), jnp.ones((2, 20), bool)
    np.testing.assert_allclose(learned(x, mask), fixed(x, mask), rtol=1e-6)
    graph, params = nnx.split(learned)
    gradient = jax.grad(lambda params: nnx.merge(graph, params)(x, mask).sum())(params)
    np.testing.assert_allclose(gradient["scale"][...], fixed(x, mask).sum(), rtol=1e-4)


def test_an_invalid_degree_is_refused() -> None:
    with pytest.raises(ValueError, match="option degree=0: must be a whole number from 1 to 10"):
        Polynomial(DIMS, degree=0, rngs=nnx.Rngs(0))
