"""Skyformer against kernelized attention and the form of its authors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Buffer, Dims
from models.mixers import build
from models.mixers.skyformer import Skyformer, gaussian, nystrom, sample

B, H, L, K = 3, 2, 19, 4
LENGTHS = (19, 8, 1)
DIMS = Dims(d_model=12, num_heads=2, qkv_dim=8, max_len=30, mlp_dim=24, dropout=0.3)


def inputs() -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(B, H, L, K))) for _ in range(3))
    return q, k, v, jnp.arange(L)[None, :] < jnp.array(LENGTHS)[:, None]


def kappa(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * np.sqrt(K)))


def kernelized(q: jax.Array, k: jax.Array, v: jax.Array) -> np.ndarray:
    """Compute kernelized attention of each example without padding, [B, H, L, K], zero at padding."""
    rows = [
        np.stack([kappa(*(np.asarray(x[b, h, :n]) for x in (q, k))) @ np.asarray(v[b, h, :n]) for h in range(H)])
        for b, n in enumerate(LENGTHS)
    ]
    return np.stack([np.pad(row, ((0, 0), (0, L - row.shape[1]), (0, 0))) for row in rows])


def real(y: Any, mask: jax.Array) -> np.ndarray:
    return np.where(np.asarray(mask)[:, None, :, None], y, 0)


@pytest.mark.usefixtures("x64")
def test_kernelized_equals_its_definition() -> None:
    mixer = Skyformer(dataclasses.replace(DIMS, dtype=jnp.float64), kind="kernelized", rngs=nnx.Rngs(0))
    q, k, v, mask = inputs()
    attend = jax.jit(mixer.attend)
    y = attend(q.swapaxes(1, 2), k.swapaxes(1, 2), v.swapaxes(1, 2), mask, None).swapaxes(1, 2)
    np.testing.assert_allclose(real(y, mask), kernelized(q, k, v), rtol=1e-9, atol=1e-11)
    rng_keys = jax.random.split(jax.random.key(0), B)
    dropped = attend(q.swapaxes(1, 2), k.swapaxes(1, 2), v.swapaxes(1, 2), mask, rng_keys).swapaxes(1, 2)
    assert jnp.abs(dropped - y).max() > 0.1


@pytest.mark.usefixtures("x64")
def test_all_points_as_landmarks_equal_kernelized_attention() -> None:
    q, k, v, mask = inputs()
    n = LENGTHS[1]
    q, k, v = (x[:, :, :n] for x in (q, k, v))
    mask = jnp.ones((B, n), bool)

    def fast(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return nystrom(q, k, v, mask, jnp.concatenate([q, k], 2), ridge=1e-12, steps=30)

    def exact(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return jnp.einsum("bhlm,bhmv->bhlv", gaussian(q, k), v)

    def both(f: Callable[..., jax.Array]) -> Any:
        loss = lambda q, k, v: (f(q, k, v) ** 2).sum()  # noqa: E731
        return jax.jit(lambda: (f(q, k, v), jax.grad(loss, (0, 1, 2))(q, k, v)))()

    for got, want in zip(jax.tree.leaves(both(fast)), jax.tree.leaves(both(exact)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("x64")
def test_equals_the_authors_form_on_unpadded_examples() -> None:
    q, k, v, mask = inputs()
    fraction = jnp.asarray(np.random.default_rng(1).uniform(size=(B, 10)))
    landmarks = jnp.concatenate([sample(q, fraction[:, :5], mask), sample(k, fraction[:, 5:], mask)], 2)
    got = jax.jit(nystrom)(q, k, v, mask, landmarks)
    for b, n in enumerate(LENGTHS):
        rows = [int(u * n) for u in fraction[b]]
        for h in range(H):
            qs, ks, vs = (np.asarray(x[b, h, :n]) for x in (q, k, v))
            points = np.concatenate([qs[rows[:5]], ks[rows[5:]]])
            a = kappa(points, points) + 0.1 * np.eye(10)
            root = a.sum(-1) ** -0.5
            a = root[:, None] * a * root
            z, eye = a.T / a.sum(0).max(), np.eye(10)
            for _ in range(6):
                az = a @ z
                z = 0.25 * z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az)))
            right = (kappa(ks, points) * root) @ z * root
            want = kappa(qs, points) @ (right.T @ vs)
            np.testing.assert_allclose(got[b, h, :n], want, rtol=1e-8, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_the_kernel_is_positive_and_its_error_decreases_with_landmarks() -> None:
    rng = np.random.default_rng(2)
    q, k, v = (jnp.asarray(rng.normal(size=(1, 1, 300, K))) for _ in range(3))
    mask = jnp.ones((1, 300), bool)
    exact = jnp.einsum("bhlm,bhmv->bhlv", gaussian(q, k), v)
    errors = []

    @jax.jit
    def attend(u: jax.Array) -> tuple[jax.Array, jax.Array]:
        landmarks = jnp.concatenate([sample(q, u, mask), sample(k, u, mask)], 2)
        return gaussian(landmarks, landmarks), nystrom(q, k, v, mask, landmarks, ridge=1e-3, steps=12)

    for count in (4, 32, 256):
        kernel, y = attend(jnp.asarray(rng.uniform(size=(1, count // 2))))
        assert np.linalg.eigvalsh(kernel).min() > -1e-12
        errors.append(float(jnp.linalg.norm(y - exact) / jnp.linalg.norm(exact)))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02 < errors[0]


def test_landmarks_are_real_tokens_at_fractions_of_the_length() -> None:
    _, _, _, mask = inputs()
    x = jnp.broadcast_to(jnp.arange(L, dtype=jnp.float32)[None, None, :, None], (B, H, L, K))
    u = jnp.broadcast_to(jnp.array([0, 0.5, 0.99, 1 - 2**-24])[None], (B, 4))
    rows = sample(x, u, mask)[:, 0, :, 0]
    want = [[0, n // 2, int(0.99 * n), n - 1] for n in LENGTHS]
    np.testing.assert_array_equal(rows, want)
    rows = sample(x, u, jnp.zeros_like(mask))  # an empty example gives its first row, which is masked
    assert (rows == 0).all()


def test_landmarks_are_drawn_per_example_in_training_and_fixed_in_evaluation() -> None:
    dims = dataclasses.replace(DIMS, dropout=0.0)
    x = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (1, L, DIMS.d_model)), (B, L, DIMS.d_model))
    mask = jnp.ones((B, L), bool)
    mixer = Skyformer(dims, features=4, rngs=nnx.Rngs(0))
    assert [leaf.shape for leaf in jax.tree.leaves(nnx.state(mixer, Buffer))] == [(4,)]
    y = run(mixer, x, mask)
    assert (y[0] == y[1]).all()
    rng_keys = jax.random.split(jax.random.key(1), B)
    trained = run(mixer, x, mask, rng_keys)
    assert all((a != b).any() for a, b in ((trained[0], trained[1]), (trained[0], y[0])))
    assert (run(Skyformer(DIMS, features=4, rngs=nnx.Rngs(0)), x, mask, rng_keys) == trained).all()  # no dropout
    assert Skyformer(DIMS, rngs=nnx.Rngs(0)).fractions.shape == (2 * DIMS.max_len,)


def run(mixer: Skyformer, x: jax.Array, mask: jax.Array, rng_keys: jax.Array | None = None) -> jax.Array:
    graph, state = nnx.split(mixer)
    return jax.jit(lambda state, x: nnx.merge(graph, state)(x, mask, rng_keys=rng_keys))(state, x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "softmax"}, "skyformer: option kind=softmax: not one of skyformer, kernelized"),
        ({"features": 1}, "option features=1: must be a whole number from 2 to"),
        ({"ridge": 0.0}, "option ridge=0.0: must be a number from"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(Skyformer, DIMS, options, nnx.Rngs(0))
