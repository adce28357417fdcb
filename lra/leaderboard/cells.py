"""The cells of a table with their annotations: chance, trivial baselines, and the comparison with the best row."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from lra.leaderboard.comparison import Comparison, compare_with_best
from lra.leaderboard.types import LeaderboardCell
from lra.record.facts import Key, differ_in_code
from lra.record.files import Origin, RecordFile, unpack
from lra.record.schema import RunRecord

RowKey = tuple[Origin, str, tuple[str, ...]]  # label, changes
Run = RecordFile[RunRecord]


class CellAnnotations:
    """Makes the cells of a table. Rows are compared within a column and an origin."""

    def __init__(self, rows: Mapping[RowKey, Mapping[Key, Sequence[Run]]], baselines: Mapping[Key, float]) -> None:
        """Compare the rows.

        Args:
          rows: the runs of each row and column, in the order of seeds
          baselines: the accuracy of the best trivial baseline of each column
        """
        self._rows, self._baselines = rows, baselines
        self._comparisons: dict[tuple[RowKey, Key], Comparison] = {}
        for origin, key in dict.fromkeys((row[0], key) for row, cells in rows.items() for key in cells):
            column = {row: _correct(cells[key]) for row, cells in rows.items() if row[0] == origin and key in cells}
            self._comparisons |= {(row, key): comparison for row, comparison in compare_with_best(column).items()}

    def cell(self, row: RowKey, key: Key) -> LeaderboardCell:
        """Return the cell of a row in a column."""
        runs = [f.record for f in self._rows[row][key]]
        tests = [r.test for r in runs if r.test]
        tested, diverged = [r for r in runs if r.test], [r for r in runs if not r.test]
        accuracies = tuple(test.accuracy for test in tests)
        return LeaderboardCell(
            accuracies=accuracies,
            seeds=tuple(r.seed for r in tested),
            diverged=tuple(r.seed for r in diverged),
            at_chance=tuple(test.is_at_chance for test in tests),
            one_class=tuple(test.predicts_one_class for test in tests),
            records=tuple(r.id for r in (*tested, *diverged)),
            examples=min((test.count for test in tests), default=0),
            comparison=self._comparisons[row, key],
            below_baseline=bool(tests) and statistics.fmean(accuracies) <= self._baselines[key],
            other_seeds={r.seed for r in runs} != set(range(len(runs))),
            mixed_code=differ_in_code(runs),
            mixed_hardware=len({r.environment.hardware for r in runs}) > 1,
        )


def _correct(runs: Sequence[Run]) -> dict[int, np.ndarray]:
    """Return by seed which test examples were classified correctly, bool [N]; without seeds whose bits are damaged."""
    correct = {}
    for test, seed in ((f.record.test, f.record.seed) for f in runs if f.record.test):
        try:
            packed = unpack(test.correct_bits, (test.count + 7) // 8)
        except ValueError:
            continue
        correct[seed] = np.unpackbits(packed, count=test.count).astype(bool)
    return correct
