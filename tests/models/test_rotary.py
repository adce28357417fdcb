"""Rotary embeddings: products depend on distances alone, and lengths are kept."""

from __future__ import annotations

import numpy as np
import pytest

from models.rotary import frequencies, rotate


@pytest.mark.parametrize("width", [1, 2, 7, 8])
def test_products_depend_on_the_distance_alone(width: int) -> None:
    rng = np.random.RandomState(width)
    q, k = (np.broadcast_to(rng.randn(1, 1, 1, width), (1, 30, 1, width)).astype(np.float32) for _ in range(2))
    turned_q, turned_k = (np.asarray(rotate(x, frequencies(width)))[0, :, 0] for x in (q, k))
    products = turned_q @ turned_k.T
    for distance in range(-29, 30):
        diagonal = np.diagonal(products, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(products[0, 0], (q[0, 0, 0] * k[0, 0, 0]).sum(), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(turned_q, axis=-1), np.linalg.norm(q[0, :, 0], axis=-1), rtol=1e-5)


def test_frequencies_are_those_of_the_paper() -> None:
    np.testing.assert_allclose(frequencies(8), [1, 0.1, 0.01, 0.001])
    assert len(frequencies(7)) == 3
    assert len(frequencies(1)) == 0
