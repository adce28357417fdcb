"""Every test of models/ runs without silent broadcasting between ranks."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_ranks() -> Iterator[None]:
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def x64() -> Iterator[None]:
    """float64, where rounding must not hide or feign a difference."""
    with jax.enable_x64(True):
        yield
