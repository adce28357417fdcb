"""Marks of a cell: what its accuracy is held against."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from lra.board import Cell
from lra.comparison import paired
from lra.record import Found, Origin, unpack

Key = tuple[str, str, int, str]  # task, variant, task version, data hash
RowKey = tuple[Origin, str, tuple[str, ...]]  # label, changes


class Marks:
    """The cells of a table, marked by what they are held against: the floors, and the best row of the same origin."""

    def __init__(self, rows: Mapping[RowKey, Mapping[Key, Sequence[Found]]], floors: Mapping[Key, float]) -> None:
        self._rows, self._floors = rows, floors
        self._best: dict[tuple[Origin, Key], RowKey] = {}
        for row, cells in rows.items():
            for key, runs in cells.items():
                place = row[0], key
                if place not in self._best or _accuracy(runs) > _accuracy(rows[self._best[place]][key]):
                    self._best[place] = row

    def cell(self, row: RowKey, key: Key) -> Cell:
        runs = self._rows[row][key]
        tested = [f.record for f in runs if f.record["test"]]
        diverged = [f.record for f in runs if not f.record["test"]]
        counts = {r["test"]["count"] for r in tested}
        best = self._best[row[0], key]
        return Cell(
            accuracies=tuple(r["test"]["accuracy"] for r in tested),
            seeds=tuple(r["seed"] for r in tested),
            diverged=tuple(r["seed"] for r in diverged),
            at_chance=sum(r["test"]["at_chance"] for r in tested),
            records=tuple(r["id"] for r in (*tested, *diverged)),
            examples=min(counts, default=0),
            tied=row != best and _tied(self._rows[best][key], runs),
            below_floor=bool(tested) and _accuracy(runs) <= self._floors[key],
        )


def _accuracy(runs: Sequence[Found]) -> float:
    """Mean over the seeds that finished; -1 if none did."""
    return statistics.fmean([f.record["test"]["accuracy"] for f in runs if f.record["test"]] or [-1.0])


def _tied(best: Sequence[Found], runs: Sequence[Found]) -> bool:
    """Both are on the same examples: the key of a column has the hash of its data."""

    def correct(runs: Sequence[Found]) -> dict[int, np.ndarray]:
        tests = {f.record["seed"]: f.record["test"] for f in runs if "correct_bits" in f.record["test"]}
        packed = {seed: unpack(t["correct_bits"], (t["count"] + 7) // 8) for seed, t in tests.items()}
        return {seed: np.unpackbits(bits, count=tests[seed]["count"]) for seed, bits in packed.items()}

    try:
        found = paired(correct(best), correct(runs))
    except ValueError:  # on other numbers of examples, or not readable: nothing is known
        return False
    return found is not None and not found.shown
