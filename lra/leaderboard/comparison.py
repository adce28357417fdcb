"""Confidence intervals of accuracies, and significance tests of the rows of a column against its best row.

A row is a mixer trained with several seeds and tested on the same examples. Rows are compared by a paired t test over
their common seeds. Its standard error has two parts: the seeds, and the test examples on which one mixer is right and
the other wrong for every seed. A significant difference therefore holds for other seeds and other test examples.
`compare_with_best` corrects for choosing the best row on the test set and for the number of comparisons.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np

LEVEL = 0.95
MIN_SEEDS = 2  # that two rows must have in common to be compared

Row = TypeVar("Row", bound=Hashable)
Verdict = Literal["best", "not significantly different", "significantly worse", "not compared"]


@dataclasses.dataclass(frozen=True)
class Difference:
    """The mean accuracy of one row minus that of another, on the same examples and seeds.

    Attributes:
      low, high: 95 % interval, not corrected for other comparisons. With several seeds it covers other seeds and test
        examples. With one seed it covers other test examples only, so it compares two trained models.
      seeds: number of common seeds
      p_value: one-sided, of the hypothesis that the first row is not worse than the second; None with one seed
    """

    mean: float
    low: float
    high: float
    seeds: int
    p_value: float | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The comparison of a row with the best row of its column.

    Attributes:
      reason: why the row is not compared; "" if it is
      p_value: corrected, see `compare_with_best`; None for the best row and for rows that are not compared
      difference: this row minus the best row, if they have a common seed
    """

    verdict: Verdict
    reason: str = ""
    p_value: float | None = None
    difference: Difference | None = None


def interval(accuracy: float, examples: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of an accuracy (0 to 1) measured on `examples` test examples.

    It covers other test examples, not other seeds.
    """
    from scipy.stats import binomtest

    limits = binomtest(round(accuracy * examples), examples).proportion_ci(LEVEL, method="wilson")
    return float(limits.low), float(limits.high)


def difference(first: Mapping[int, np.ndarray], second: Mapping[int, np.ndarray]) -> Difference | None:
    """Compare two rows on their common seeds.

    With one common seed, the interval is Agresti and Min's (2005) for paired proportions: Wald's, with half an example
    added to each of the four counts. With S common seeds, it is a t interval with S - 1 degrees of freedom.

    Args:
      first, second: by seed, a bool array [N] that says which examples were classified correctly

    Returns:
      The difference; None if there is no common seed.

    Raises:
      ValueError: the arrays differ in length.
    """
    from scipy.special import ndtri, stdtr, stdtrit

    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    if len({len(row[seed]) for row in (first, second) for seed in seeds}) > 1:
        raise ValueError("accuracies on different numbers of examples cannot be paired")
    gain = np.stack([first[s].astype(np.int8) - second[s].astype(np.int8) for s in seeds])  # [S, N], -1 to 1
    mean, df = float(gain.mean()), len(seeds) - 1
    if df == 0:
        examples = gain.size + 2
        middle, unequal = gain.sum() / examples, np.abs(gain).sum() + 1
        half = ndtri((1 + LEVEL) / 2) * math.sqrt(unequal - examples * middle**2) / examples
        return Difference(mean, float(middle - half), float(middle + half), 1, None)
    error = math.sqrt(_variance(gain))
    half = float(stdtrit(df, (1 + LEVEL) / 2)) * error
    p_value = float(stdtr(df, mean / error)) if error else float(mean >= 0)
    return Difference(mean, mean - half, mean + half, len(seeds), p_value)


def _variance(gain: np.ndarray) -> float:
    """Estimate the variance of the mean of gain [S, N], where both seeds and examples are random draws.

    These are the variance components of a two-way layout. The mean squares of seeds and of examples both contain the
    residual variance, so neither is taken as less than the mean square of the residuals.
    """
    seeds, examples = gain.shape
    by_seed, by_example = gain.mean(1), gain.mean(0)
    mean = by_seed.mean()
    sum_seeds, sum_examples = examples * ((by_seed - mean) ** 2).sum(), seeds * ((by_example - mean) ** 2).sum()
    total = np.abs(gain).sum() - gain.size * mean**2  # the square of -1, 0 or 1 is its absolute value
    df_seeds, df_examples = seeds - 1, max(1, examples - 1)
    residual = max(0.0, total - sum_seeds - sum_examples) / (df_seeds * df_examples)
    return float(max(residual, sum_seeds / df_seeds) + max(residual, sum_examples / df_examples) - residual) / gain.size


def compare_with_best(rows: Mapping[Row, Mapping[int, np.ndarray]]) -> dict[Row, Comparison]:
    """Compare every row of a column with the best row.

    The best row has the highest mean accuracy among the rows with several seeds, or among all rows if none has several.
    A row is "significantly worse" if its corrected p value is below 5 %. Any of the m rows with several seeds could
    have been the best, so each p value is multiplied by m - 1; Holm's procedure then corrects for the m rows. For two
    rows, that is a two-sided t test. If all rows are equal, the probability that any is marked is at most 5 %.

    Args:
      rows: for each row, by seed, a bool array [N] that says which examples were classified correctly

    Returns:
      A comparison for each row. Rows without seeds are "not compared".
    """
    means = {
        row: float(np.mean([correct.mean() for correct in seeds.values()])) for row, seeds in rows.items() if seeds
    }
    several = [row for row in means if len(rows[row]) >= MIN_SEEDS]
    best = max(several or means, key=lambda row: means[row], default=None)
    if best is None:
        return dict.fromkeys(rows, NO_RESULT)
    comparisons = {row: _compare(rows[row], rows[best]) for row in rows}
    p_values = {row: c.p_value for row, c in comparisons.items() if c.p_value is not None and row != best}
    for row, p in zip(p_values, _corrected(list(p_values.values()), len(several)), strict=True):
        verdict: Verdict = "significantly worse" if p < 1 - LEVEL else "not significantly different"
        comparisons[row] = dataclasses.replace(comparisons[row], verdict=verdict, p_value=p)
    return comparisons | {best: Comparison("best")}


NO_RESULT = Comparison("not compared", "no result")


def _compare(row: Mapping[int, np.ndarray], best: Mapping[int, np.ndarray]) -> Comparison:
    if not row:
        return NO_RESULT
    try:
        from_best = difference(row, best)
    except ValueError:
        return Comparison("not compared", "another number of test examples")
    if from_best is None:
        return Comparison("not compared", "no seed in common with the best row")
    if from_best.p_value is None:
        reason = "one seed" if len(row) == 1 else "one seed in common with the best row"
        return Comparison("not compared", reason, None, from_best)
    return Comparison("not significantly different", "", from_best.p_value, from_best)


def _corrected(p_values: Sequence[float], rows: int) -> list[float]:
    """Correct one-sided p values of comparisons with the best of `rows` rows (see `compare_with_best`)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, least = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, p_values[i] * (rows - 1) * (rows - rank)))
        corrected[i] = least
    return corrected
