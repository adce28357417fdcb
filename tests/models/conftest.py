"""Fixtures of the tests of models/: strict rank promotion for all of them, float64 on request."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_ranks() -> Iterator[None]:
    """Raise an error where ranks are broadcast implicitly."""
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def x64() -> Iterator[None]:
    """Enable float64, so that rounding neither hides nor causes a difference."""
    with jax.enable_x64(True):
        yield
