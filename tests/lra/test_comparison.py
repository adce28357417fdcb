"""Intervals and paired comparisons, against the textbook."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lra.comparison import interval, paired


def test_wilson() -> None:
    low, high = interval(0.37, 2_000)
    z, p, n = stats.norm.ppf(0.975), 0.37, 2_000
    middle, half = (
        (p + z**2 / (2 * n)) / (1 + z**2 / n),
        z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n),
    )
    assert (low, high) == pytest.approx((middle - half, middle + half))
    assert interval(1.0, 10)[1] == 1.0


def draws(rate: float, n: int, seed: int) -> np.ndarray:
    return np.random.RandomState(seed).rand(n) < rate


def test_one_seed_is_the_interval_of_a_paired_difference() -> None:
    """Of a mean of n differences the standard error is their deviation over sqrt(n)."""
    a, b = draws(0.6, 4_000, 0), draws(0.5, 4_000, 1)
    found = paired({0: a}, {0: b})
    d = a.astype(float) - b
    half = 1.96 * d.std() / np.sqrt(len(d))
    assert found.mean == pytest.approx(d.mean())
    assert (found.low, found.high) == pytest.approx((d.mean() - half, d.mean() + half), abs=2e-3)
    assert found.shown
    assert not paired({0: a}, {0: draws(0.6, 4_000, 2)}).shown


def test_pairing_sees_what_two_intervals_do_not() -> None:
    """One per cent apart on the same examples: their own intervals overlap, the difference is shown."""
    a = draws(0.5, 2_000, 0)
    b = a.copy()
    b[np.flatnonzero(a)[:20]] = False
    assert interval(a.mean(), 2_000)[0] < interval(b.mean(), 2_000)[1]
    assert paired({0: a}, {0: b}).shown


def test_seeds_widen_the_interval() -> None:
    first = {s: draws(0.55 + 0.05 * s, 3_000, s) for s in range(3)}
    second = {s: draws(0.65 - 0.05 * s, 3_000, 10 + s) for s in range(3)}
    several, one = paired(first, second), paired({1: first[1]}, {1: second[1]})
    assert several.seeds == 3
    assert several.high - several.low > 3 * (one.high - one.low)
    assert not several.shown


def test_only_common_seeds_on_the_same_examples_are_compared() -> None:
    a = draws(0.5, 100, 0)
    assert paired({0: a}, {1: a}) is None
    assert paired({0: a, 1: ~a}, {0: a, 2: ~a}).seeds == 1
    with pytest.raises(ValueError, match="cannot be paired"):
        paired({0: a}, {0: a[:50]})


def test_the_same_figures_give_the_same_interval() -> None:
    pair = {s: draws(0.5, 500, s) for s in (0, 1)}, {s: draws(0.6, 500, 5 + s) for s in (0, 1)}
    assert paired(*pair) == paired(*pair)
