"""What a difference between accuracies is worth: intervals from the test examples, and paired comparisons."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

LEVEL = 0.95
RESAMPLES = 2_000


@dataclasses.dataclass(frozen=True)
class Difference:
    """Of two rows on the same examples and seeds: mean accuracy of the first less that of the second.

    low, high: an interval of 95 %
    seeds:     that both have
    """

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def shown(self) -> bool:
        """Whether the interval leaves zero out."""
        return not self.low <= 0 <= self.high


def interval(accuracy: float, examples: int) -> tuple[float, float]:
    """Wilson's interval of 95 % of an accuracy (0 to 1) that was measured on so many examples.

    It says how far other test examples might move the figure, not how far another seed would.
    """
    from scipy.stats import binomtest

    found = binomtest(round(accuracy * examples), examples).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def paired(first: Mapping[int, np.ndarray], second: Mapping[int, np.ndarray]) -> Difference | None:
    """Two rows by seed, each a bool array [N] of what was right; only seeds that both have are compared.

    With one seed the interval is of these two trained models: examples are drawn anew (the paired bootstrap of Efron).
    With several, seeds are drawn anew as well, so that it holds for other seeds too, as well as a few can show.

    Returns:
      None: they have no seed in common

    Raises:
      ValueError: the arrays are not equally long.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    if len({len(side[seed]) for side in (first, second) for seed in seeds}) > 1:
        raise ValueError("accuracies on other numbers of examples cannot be paired")
    apart = np.stack([first[s].astype(int) - second[s].astype(int) for s in seeds])  # [S, N], -1 to 1
    rng, count, examples = np.random.RandomState(0), len(seeds), apart.shape[1]
    sums = np.arange(-count, count + 1)
    means = []
    for drawn in rng.randint(count, size=(RESAMPLES, count)) if count > 1 else np.zeros((1, 1), int):
        # Of examples drawn anew only the number matters that has each sum over seeds: it is multinomial.
        numbers = np.bincount(apart[drawn].sum(0) + count, minlength=len(sums))
        times = 1 if count > 1 else RESAMPLES
        means.append(rng.multinomial(examples, numbers / examples, times) @ sums / (examples * count))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(float(apart.mean()), float(low), float(high), count)
