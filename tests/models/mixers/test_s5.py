"""S5 against its recurrence, token by token in float64, and its initial values."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.mixers.s5 import S5
from tests.models.recurrent import assert_equal_to, of

DIMS = Dims(d_model=12, num_heads=3, qkv_dim=12, max_len=80, mlp_dim=12)


def reference(mixer: S5, u: np.ndarray) -> np.ndarray:
    """One example without padding, u [L, D], by all P states, the conjugates included."""
    length = len(u)
    a, b = of(mixer.a), of(mixer.b)
    a, b = np.minimum(a[0], -1e-4) + 1j * a[1], b[0] + 1j * b[1]
    dt = np.exp(of(mixer.log_dt))
    a, b, dt = np.concatenate([a, a.conj()]), np.concatenate([b, b.conj()]), np.concatenate([dt, dt])
    decay = np.exp(a * dt)
    b = ((decay - 1) / a)[:, None] * b
    y = of(mixer.d) * u
    for direction, c in enumerate(of(mixer.c)):
        c = np.concatenate([c[0] + 1j * c[1], c[0] - 1j * c[1]], 1)
        state = np.zeros(len(a), complex)
        for t in range(length) if direction == 0 else range(length - 1, -1, -1):
            state = decay * state + b @ u[t]
            out = c @ state
            assert np.abs(out.imag).max() < 1e-10
            y[t] += out.real
    erf = np.vectorize(math.erf)
    y = 0.5 * y * (1 + erf(y / math.sqrt(2)))
    return y / (1 + np.exp(-(y @ of(mixer.gate.kernel) + of(mixer.gate.bias))))


@pytest.mark.parametrize("options", [{"state": 8, "blocks": 2}, {"state": 6, "blocks": 1, "bidirectional": False}])
def test_it_is_the_recurrence(options: dict[str, Any]) -> None:
    mixer = S5(DIMS, **options, rngs=nnx.Rngs(0))
    assert_equal_to(lambda x: reference(mixer, x), mixer)


def test_the_initial_system_is_hippo() -> None:
    """The eigenvalues of A + p p^T, as a matrix, and their multiplicity."""
    n = np.arange(16)
    a = -np.sqrt(np.outer(2 * n + 1, 2 * n + 1)) * (n[:, None] > n) - np.diag(n + 1.0)
    normal = a + np.outer(np.sqrt(n + 0.5), np.sqrt(n + 0.5))
    expected = np.linalg.eigvals(normal)
    expected = np.sort(expected.imag[expected.imag > 0])
    mixer = S5(DIMS, state=64, blocks=4, rngs=nnx.Rngs(0))
    real, imag = of(mixer.a)
    np.testing.assert_allclose(real, -0.5, atol=1e-5)
    np.testing.assert_allclose(np.sort(imag), np.repeat(expected, 4), rtol=1e-4)


def test_a_real_part_above_zero_does_not_grow() -> None:
    mixer = S5(DIMS, rngs=nnx.Rngs(0))
    mixer.a[...] = mixer.a[...].at[0].set(5.0)
    x = jnp.ones((1, 80, 12))
    assert np.isfinite(mixer(x, jnp.ones((1, 80), bool))).all()


@pytest.mark.parametrize(
    ("options", "message"), [({"state": 10, "blocks": 4}, "blocks=4"), ({"dt_min": 1.0, "dt_max": 0.1}, "dt_min=1")]
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"option {message}"):
        S5(DIMS, **options, rngs=nnx.Rngs(0))
