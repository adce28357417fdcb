"""What the tests of recurrent mixers share: inputs of two lengths, and the comparison with a reference in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

LENGTHS = (70, 33)  # tokens of two examples, the second of which is padded


def of(variable: Any) -> np.ndarray:
    """Return a parameter in float64."""
    return np.asarray(variable[...], np.float64)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def assert_equal_to(
    reference: Callable[[np.ndarray], np.ndarray], mixer: Any, *, rtol: float = 1e-3, atol: float = 1e-4
) -> None:
    """Compare a mixer with a reference, which gets each example [L, D] in float64 without its padding."""
    x = np.random.RandomState(0).randn(2, LENGTHS[0], mixer.dims.d_model).astype(np.float32)
    mask = np.arange(LENGTHS[0]) < np.array(LENGTHS)[:, None]
    y = mixer(jnp.asarray(x), jnp.asarray(mask))
    for example, length in enumerate(LENGTHS):
        expected = reference(x[example, :length].astype(np.float64))
        np.testing.assert_allclose(y[example, :length], expected, rtol=rtol, atol=atol)
