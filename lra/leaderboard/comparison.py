"""Intervals of accuracies, and comparisons of the rows of one column with its best row.

A *row* is a mixer trained with several seeds and tested on the same examples. Rows are compared by a paired t test
over their common seeds. Its standard error has two parts: the seeds, and the test examples on which one mixer is
right and the other wrong whatever the seed. So a difference holds for other seeds and for other test examples. The
best row is chosen on the same test set, and there are as many comparisons as other rows: `standings` corrects for both.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np

LEVEL = 0.95
MIN_SEEDS = 2  # in common, of rows that are compared

Row = TypeVar("Row", bound=Hashable)
Verdict = Literal["best", "not significantly different", "significantly worse", "not compared"]


@dataclasses.dataclass(frozen=True)
class Difference:
    """The mean accuracy of one row less that of another, on the same examples and seeds.

    Attributes:
      low, high: interval of 95 %, without a correction for other comparisons. With several seeds it holds for other
        seeds and test examples. With one seed it holds for other test examples only: it is about two trained models.
      seeds: that both rows have
      p_value: of the hypothesis that the first row is not worse than the second (one-sided); None with one seed
    """

    mean: float
    low: float
    high: float
    seeds: int
    p_value: float | None


@dataclasses.dataclass(frozen=True)
class Standing:
    """How a row compares with the best row of its column.

    Attributes:
      because: why it is not compared, else ""
      p_value: corrected, see `standings`; None for the best row and where nothing is compared
      difference: of this row and the best, where both have a seed in common
    """

    verdict: Verdict
    because: str = ""
    p_value: float | None = None
    difference: Difference | None = None


def interval(accuracy: float, examples: int) -> tuple[float, float]:
    """Return Wilson's interval of 95 % of an accuracy (0 to 1) that was measured on so many examples.

    It covers other test examples, not other seeds.
    """
    from scipy.stats import binomtest

    found = binomtest(round(accuracy * examples), examples).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def difference(first: Mapping[int, np.ndarray], second: Mapping[int, np.ndarray]) -> Difference | None:
    """Compare two rows on the seeds that both have.

    With one common seed, the interval is Agresti and Min's (2005) for paired proportions: Wald's, with half an example
    added to each of the four counts. With several, it is a t interval with a degree of freedom for each seed but one.

    Args:
      first, second: by seed, a bool array [N] of which examples were classified correctly

    Returns:
      None if they have no seed in common.

    Raises:
      ValueError: the arrays are not equally long.
    """
    from scipy.special import ndtri, stdtr, stdtrit

    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    if len({len(row[seed]) for row in (first, second) for seed in seeds}) > 1:
        raise ValueError("accuracies on other numbers of examples cannot be paired")
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

    The mean squares of seeds and of examples are at least that of the residuals, which is in both (the components of
    variance of a two-way layout).
    """
    count, examples = gain.shape
    by_seed, by_example = gain.mean(1), gain.mean(0)
    mean = by_seed.mean()
    of_seeds, of_examples = examples * ((by_seed - mean) ** 2).sum(), count * ((by_example - mean) ** 2).sum()
    total = np.abs(gain).sum() - gain.size * mean**2  # the square of -1, 0 or 1 is its absolute value
    free = max(1, examples - 1)
    residual = max(0.0, total - of_seeds - of_examples) / ((count - 1) * free)
    seeds, own = max(residual, of_seeds / (count - 1)), max(residual, of_examples / free)
    return float(seeds + own - residual) / gain.size


def standings(rows: Mapping[Row, Mapping[int, np.ndarray]]) -> dict[Row, Standing]:
    """Compare every row of a column with the best.

    The best row has the highest mean accuracy among the rows with several seeds, or among all rows if there are none.
    A row is "significantly worse" if its corrected p value is below 5 %. Any of the m rows with several seeds could
    have been the best, so each p value is multiplied by m - 1; then Holm's procedure corrects for the m rows. For two
    rows, that is a two-sided t test. If all rows are equal, the chance that any is marked is at most 5 %.

    Args:
      rows: for each row, by seed, a bool array [N] of which examples were classified correctly

    Returns:
      A standing for each row. One without seeds is "not compared".
    """
    tested = {row: float(np.mean([bits.mean() for bits in seeds.values()])) for row, seeds in rows.items() if seeds}
    several = [row for row in tested if len(rows[row]) >= MIN_SEEDS]
    best = max(several or tested, key=lambda row: tested[row], default=None)
    found = {row: _beside(rows[best], rows[row]) if best is not None else _NOTHING for row in rows}
    p_values = {row: s.p_value for row, s in found.items() if s.p_value is not None and row != best}
    for row, p in zip(p_values, _corrected(list(p_values.values()), len(several)), strict=True):
        verdict: Verdict = "significantly worse" if p < 1 - LEVEL else "not significantly different"
        found[row] = dataclasses.replace(found[row], verdict=verdict, p_value=p)
    return found | ({best: Standing("best")} if best is not None else {})


_NOTHING = Standing("not compared", "no result")


def _beside(best: Mapping[int, np.ndarray], row: Mapping[int, np.ndarray]) -> Standing:
    if not row:
        return _NOTHING
    try:
        apart = difference(row, best)
    except ValueError:
        return Standing("not compared", "another number of test examples")
    if apart is None:
        return Standing("not compared", "no seed in common with the best row")
    if apart.p_value is None:
        because = "one seed" if len(row) == 1 else "one seed in common with the best row"
        return Standing("not compared", because, None, apart)
    return Standing("not significantly different", "", apart.p_value, apart)


def _corrected(p_values: Sequence[float], rows: int) -> list[float]:
    """Correct one-sided p values of comparisons with the best of so many rows (see `standings`)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, least = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, p_values[i] * (rows - 1) * (rows - rank)))
        corrected[i] = least
    return corrected
