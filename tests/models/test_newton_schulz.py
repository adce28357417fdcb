"""The iterative pseudo-inverse against numpy's inverse and pseudo-inverse."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import newton_schulz

iterative_inverse = jax.jit(newton_schulz.iterative_inverse, static_argnums=1)


@pytest.mark.usefixtures("x64")
def test_converges_to_the_pseudo_inverse() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(2, 3, 7, 7))
    np.testing.assert_allclose(iterative_inverse(jnp.asarray(a), 16), np.linalg.inv(a), rtol=1e-8, atol=1e-10)
    singular = a[..., :4] @ a[..., :4, :]
    want = np.linalg.pinv(singular, rcond=1e-10)
    np.testing.assert_allclose(iterative_inverse(jnp.asarray(singular), 14), want, atol=1e-6 * np.abs(want).max())


@pytest.mark.usefixtures("x64")
def test_gradient_equals_that_of_the_inverse() -> None:
    rng = np.random.default_rng(1)
    a, probe = (jnp.asarray(rng.normal(size=(2, 5, 5))) for _ in range(2))
    got = jax.grad(lambda a: (iterative_inverse(a, 20) * probe).sum())(a)
    want = jax.grad(lambda a: (jnp.linalg.inv(a) * probe).sum())(a)
    np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-9)


def test_six_steps_invert_singular_values_above_3_percent_and_suppress_small_ones() -> None:
    values = np.array([1, 0.3, 0.1, 0.05, 0.03, 1e-3], np.float32)
    product = np.diagonal(iterative_inverse(jnp.diag(values))) * values
    np.testing.assert_allclose(product[:3], 1, atol=1e-3)
    assert product[3] > 0.9
    assert 0.5 < product[4] < 1
    np.testing.assert_allclose(product[5], (13 / 4) ** 6 * 1e-6, rtol=0.01)
    further = np.diagonal(iterative_inverse(jnp.diag(values), scale=jnp.float32(10))) * values
    assert (further[3:] < product[3:]).all()


def test_matrices_of_a_batch_are_independent() -> None:
    a = jax.random.uniform(jax.random.key(0), (3, 6, 6))
    both = iterative_inverse(a * jnp.array([1.0, 1e4, 1e-4])[:, None, None])
    np.testing.assert_allclose(both[0], iterative_inverse(a[0]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(both[1] * 1e4, iterative_inverse(a[1]), rtol=1e-4, atol=1e-4)


def test_an_identity_block_does_not_affect_the_other_block() -> None:
    a = jax.nn.softmax(jax.random.normal(jax.random.key(0), (5, 5)))
    padded = jnp.eye(8).at[:5, :5].set(a)
    got, separate = iterative_inverse(padded), iterative_inverse(a)
    np.testing.assert_allclose(got[:5, :5], separate, rtol=1e-5, atol=1e-5)
    assert (got[5:, :5] == 0).all()
    assert (got[:5, 5:] == 0).all()
