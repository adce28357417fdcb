"""Intervals and comparisons, against the textbook and against simulated mixers whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lra.leaderboard.comparison import Verdict, compare_with_best, difference, interval

Rows = dict[str, dict[int, np.ndarray]]


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


# ---- one pair of rows


def test_one_seed_has_an_interval_over_examples_and_no_p_value() -> None:
    """Of a mean of n differences the standard error is their deviation over sqrt(n)."""
    a, b = draws(0.6, 4_000, 0), draws(0.5, 4_000, 1)
    found = difference({0: a}, {0: b})
    d = a.astype(float) - b
    half = 1.96 * d.std() / np.sqrt(len(d))
    assert found.mean == pytest.approx(d.mean())
    assert (found.low, found.high) == pytest.approx((d.mean() - half, d.mean() + half), abs=1e-3)
    assert (found.seeds, found.p_value) == (1, None)


def test_equal_predictions_have_an_interval_too() -> None:
    """Without a single example that tells them apart, on 3 in n the 95 % interval of a proportion still ends."""
    found = difference({0: draws(0.5, 1_000, 0)}, {0: draws(0.5, 1_000, 0)})
    assert found.mean == 0
    assert 0.001 < found.high == -found.low < 0.003


def test_where_seeds_vary_most_it_is_the_t_test_of_their_differences() -> None:
    """With a hundred thousand examples, what examples add is nothing beside ten points between seeds."""
    rates = [0.62, 0.41, 0.55, 0.7], [0.5, 0.52, 0.31, 0.45]
    first, second = ({s: draws(r, 100_000, 10 * i + s) for s, r in enumerate(row)} for i, row in enumerate(rates))
    found = difference(first, second)
    apart = [first[s].mean() - second[s].mean() for s in range(4)]
    wanted = stats.ttest_1samp(apart, 0, alternative="less")
    assert found.p_value == pytest.approx(wanted.pvalue, abs=1e-4)
    two_sided = stats.ttest_1samp(apart, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(two_sided), abs=1e-3)


def test_where_seeds_agree_it_is_the_error_over_examples() -> None:
    """Three equal seeds say nothing of other examples: the error is that of one paired difference."""
    a, b = draws(0.6, 2_000, 0), draws(0.5, 2_000, 1)
    found = difference(dict.fromkeys(range(3), a), dict.fromkeys(range(3), b))
    d = a.astype(float) - b
    half = stats.t.ppf(0.975, 2) * d.std(ddof=1) / np.sqrt(len(d))
    assert (found.low, found.high) == pytest.approx((d.mean() - half, d.mean() + half))


def test_only_common_seeds_on_the_same_examples_are_compared() -> None:
    a = draws(0.5, 100, 0)
    assert difference({0: a}, {1: a}) is None
    assert difference({0: a, 1: ~a}, {0: a, 2: ~a}).seeds == 1
    with pytest.raises(ValueError, match="cannot be paired"):
        difference({0: a}, {0: a[:50]})


# ---- a column


def column(seed: int, rates: list[list[float]], examples: int = 2_000) -> Rows:
    """Rows whose seeds have these rates, each example independent."""
    draw = np.random.RandomState(seed)
    return {f"{i}": {s: draw.rand(examples) < rate for s, rate in enumerate(row)} for i, row in enumerate(rates)}


def verdicts(rows: Rows) -> dict[str, tuple[Verdict, str]]:
    return {row: (s.verdict, s.reason) for row, s in compare_with_best(rows).items()}


def test_three_verdicts_and_their_reasons() -> None:
    rows = column(0, [[0.8] * 5, [0.79] * 5, [0.6] * 5, [0.5], [0.7] * 5, [0.4] * 5, []])
    rows["4"] = {s + 4: bits for s, bits in rows["4"].items()}  # seeds 4 to 8
    rows["5"] = {s: bits[:500] for s, bits in rows["5"].items()}
    rows["7"] = {s + 5: bits for s, bits in rows["2"].items()}
    assert verdicts(rows) == {
        "0": ("best", ""),
        "1": ("not significantly different", ""),
        "2": ("significantly worse", ""),
        "3": ("not compared", "one seed"),
        "4": ("not compared", "one seed in common with the best row"),
        "5": ("not compared", "another number of test examples"),
        "6": ("not compared", "no result"),
        "7": ("not compared", "no seed in common with the best row"),
    }
    found = compare_with_best(rows)
    assert found["3"].difference is not None  # an interval over examples, and no claim
    assert found["3"].difference.high < 0
    assert found["3"].p_value is None


def test_the_best_row_is_one_with_several_seeds_where_there_are_any() -> None:
    rows = column(0, [[0.6] * 3, [0.5] * 3, [0.9]])
    assert verdicts(rows)["0"] == ("best", "")
    assert verdicts(rows)["2"] == ("not compared", "one seed")
    one_each = column(0, [[0.6], [0.9]])
    assert verdicts(one_each) == {"0": ("not compared", "one seed"), "1": ("best", "")}
    assert compare_with_best({"a": {}}) == {"a": compare_with_best({"a": {}, "b": {}})["b"]}


def test_a_row_that_is_ahead_on_the_common_seeds_is_not_worse() -> None:
    rows = column(0, [[0.6, 0.6, 0.9, 0.9], [0.7, 0.7]], examples=20_000)
    assert verdicts(rows) == {"0": ("best", ""), "1": ("not significantly different", "")}
    assert compare_with_best(rows)["1"].difference.low > 0  # of itself, it would be shown


def test_two_rows_are_a_two_sided_t_test() -> None:
    rows = column(3, [[0.7, 0.72, 0.71], [0.64, 0.68, 0.66]], examples=200_000)
    apart = [rows["0"][s].mean() - rows["1"][s].mean() for s in range(3)]
    assert compare_with_best(rows)["1"].p_value == pytest.approx(stats.ttest_1samp(apart, 0).pvalue, abs=2e-3)


def test_p_values_are_corrected_for_rows_and_for_the_choice_of_the_best() -> None:
    rows = column(1, [[0.62] * 4, [0.60] * 4, [0.59] * 4, [0.58] * 4])
    found = compare_with_best(rows)
    best = next(row for row, s in found.items() if s.verdict == "best")
    alone = sorted((difference(rows[row], rows[best]).p_value, row) for row in rows if row != best)
    wanted, largest = {}, 0.0
    for times, (p, row) in zip((12, 9, 6), alone, strict=True):  # 3 rows it might be compared with; Holm's 4, 3, 2
        largest = max(largest, min(1.0, times * p))
        wanted[row] = largest
    assert {row: s.p_value for row, s in found.items() if row != best} == pytest.approx(wanted)


# ---- simulations: how often a difference is found that is not there, or is


def share_marked(made: list[Rows]) -> float:
    """Of columns, those in which any row is "significantly worse"."""
    return float(
        np.mean([any(s.verdict == "significantly worse" for s in compare_with_best(rows).values()) for rows in made])
    )


def equal_rows(draw: np.random.RandomState, rows: int, seeds: int, deviation: float, examples: int) -> Rows:
    """Rows of one distribution: a seed's accuracy is normal around 60 %, each example right with that probability."""
    rates = 0.6 + deviation * draw.standard_normal((rows, seeds, 1))
    correct = draw.random_sample((rows, seeds, examples)) < rates
    return {f"{i}": dict(enumerate(row)) for i, row in enumerate(correct)}


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_equal_mixers_are_seldom_marked(seeds: int) -> None:
    draw = np.random.RandomState(seeds)
    for examples, deviation, trials in (
        (2_000, 0.005, 200),
        (2_000, 0.02, 200),
        (2_000, 0.05, 600),
        (10_000, 0.03, 200),
    ):
        made = [equal_rows(draw, 2, seeds, deviation, examples) for _ in range(trials)]
        assert share_marked(made) <= (0.07 if seeds > 1 else 0), (examples, deviation)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_mixers_with_strengths_of_their_own_are_seldom_marked(seeds: int) -> None:
    """As good as each other on the task, but each on examples of its own, whatever its seed.

    Half of the examples are easy for a mixer and half are hard. A t test of the seeds alone takes the draw of these
    halves for a difference, and does so the more often the more seeds there are.
    """
    draw = np.random.RandomState(seeds)
    marked, by_seeds_alone = [], []
    for _ in range(200):
        rows: Rows = {}
        for name in "ab":
            ease = np.where(draw.random_sample(2_000) < 0.5, 0.35, -0.35)
            rows[name] = {s: draw.random_sample(2_000) < 0.6 + ease for s in range(seeds)}
        marked.append(rows)
        if seeds == 5:
            apart = [rows["a"][s].mean() - rows["b"][s].mean() for s in range(seeds)]
            by_seeds_alone.append(stats.ttest_1samp(apart, 0).pvalue < 0.05)
    assert share_marked(marked) <= 0.07
    assert seeds < 5 or np.mean(by_seeds_alone) > 0.2


@pytest.mark.parametrize(("seeds", "deviation"), [(2, 0.02), (3, 0.05), (5, 0.05)])
def test_no_row_of_eighteen_equal_ones_is_marked(seeds: int, deviation: float) -> None:
    """The best of them is the best by luck, and seventeen are compared with it."""
    draw = np.random.RandomState(seeds)
    assert share_marked([equal_rows(draw, 18, seeds, deviation, 2_000) for _ in range(120)]) <= 0.07


def test_five_points_are_found_with_three_seeds() -> None:
    draw, found = np.random.RandomState(0), []
    for _ in range(100):
        rows = equal_rows(draw, 1, 3, 0.005, 10_000) | {
            "worse": {s: draw.random_sample(10_000) < 0.55 + 0.005 * draw.standard_normal() for s in range(3)}
        }
        found.append(compare_with_best(rows)["worse"].verdict == "significantly worse")
    assert np.mean(found) > 0.9


def test_ten_points_are_found_among_eighteen_rows_with_five_seeds() -> None:
    draw, found = np.random.RandomState(0), []
    for _ in range(20):
        rows = equal_rows(draw, 17, 5, 0.005, 10_000)
        rows["worse"] = {s: draw.random_sample(10_000) < 0.5 + 0.005 * draw.standard_normal() for s in range(5)}
        found.append(compare_with_best(rows)["worse"].verdict == "significantly worse")
    assert np.mean(found) > 0.9
