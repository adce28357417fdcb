"""Published figures of others, from `published.toml`: shown beside one's own, never in one column with them."""

from __future__ import annotations

import dataclasses
import statistics
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

PUBLISHED = Path(__file__).with_suffix(".toml")
OUT_OF_MEMORY = "X"

Figure = float | None  # None: out of memory
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Efficiency:
    """A table of speed or memory against the length.

    lengths:   as printed, one for each column
    reference: the row to which ratios are taken
    rows:      figures by the name that the source prints
    """

    source: str
    hardware: str
    setting: str
    quantity: str
    unit: str
    lengths: tuple[str, ...]
    reference: str
    rows: Mapping[str, tuple[Figure, ...]]
    note: str = ""


CHANCE_OF_PATHX = 50.0
# By the name of its rule, the mean of a row whose failures are None.
AVERAGES: dict[str, Callable[[Sequence[Figure]], float]] = {
    "5-task mean": lambda row: _mean(row, None),
    "6-task mean": lambda row: _mean(row, None),
    "6-task mean, a failure counted as chance (50)": lambda row: _mean(row, CHANCE_OF_PATHX),
    "6-task mean, a failure counted as 0": lambda row: _mean(row, 0.0),
    "mean of what is given": lambda row: statistics.fmean(x for x in row if x is not None),
}


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """A table of accuracies in per cent, of one code base.

    family:    the code base and its sizes
    protocol:  ours that stands nearest; "": none does
    averaging: a rule of `AVERAGES`
    columns:   tasks
    mixers:    ours by the name that the source prints, where there is one
    rows:      figures by that name; None: failed, or not given
    averages:  as printed by the source
    """

    source: str
    family: str
    protocol: str
    averaging: str
    columns: tuple[str, ...]
    mixers: Mapping[str, str]
    rows: Mapping[str, tuple[Figure, ...]]
    averages: Mapping[str, float]
    note: str = ""

    def reported(self, mixer: str, task: str) -> float | None:
        """The figure of one of our mixers; None: this source has none."""
        names = [name for name, ours in self.mixers.items() if ours == mixer]
        return self.rows[names[0]][self.columns.index(task)] if names and task in self.columns else None


def accuracy(path: Path = PUBLISHED) -> tuple[Accuracy, ...]:
    """All tables of `[[accuracy]]`, in the order of the file.

    Raises:
      ValueError: a table lacks something, names a rule or row that is not there, or a row is not one figure for each
        column and the average.
    """
    return _tables(path, "accuracy", _accuracy)


def _tables(path: Path, name: str, read: Callable[[dict[str, Any]], T]) -> tuple[T, ...]:
    try:
        return tuple(read(entry) for entry in tomllib.loads(path.read_text("utf-8"))[name])
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: [[{name}]] lacks something or has it of another kind ({error!r})") from error


def _accuracy(entry: dict[str, Any]) -> Accuracy:
    place = str(entry.get("source"))
    rows = {name: tuple(_figure(v, f"{place}, {name}") for v in row) for name, row in entry["rows"].items()}
    averages = {name: row[-1] for name, row in rows.items() if row and row[-1] is not None}
    fields = {"columns": tuple(entry["columns"]), "rows": {name: row[:-1] for name, row in rows.items()}}
    try:
        table = Accuracy(**{**entry, **fields, "averages": averages})
    except TypeError as error:
        raise ValueError(f"{place}: {error}") from error
    for name, row in table.rows.items():
        if len(row) != len(table.columns) or name not in averages:
            raise ValueError(f"{place}: {name} is not a figure for each of {len(table.columns)} tasks and an average")
    if table.averaging not in AVERAGES:
        raise ValueError(f"{place}: no rule {table.averaging!r}; there are {', '.join(AVERAGES)}")
    if unknown := table.mixers.keys() - rows.keys():
        raise ValueError(f"{place}: there are no rows {', '.join(sorted(unknown))}")
    return table


def _mean(row: Sequence[Figure], failure: float | None) -> float:
    """Raises ValueError: a task failed, and the rule does not say what that counts."""
    if failure is None and None in row:
        raise ValueError("a mean over tasks that are not all there")
    return statistics.fmean(failure if x is None else x for x in row)  # type: ignore[misc]


def efficiency(path: Path = PUBLISHED) -> tuple[Efficiency, ...]:
    """All tables of `[[efficiency]]`, in the order of the file.

    Raises:
      ValueError: a table lacks something, or a row is not one positive number or X for each length.
    """
    return _tables(path, "efficiency", _efficiency)


def _efficiency(entry: dict[str, Any]) -> Efficiency:
    place = f"{entry.get('source')}, {entry.get('quantity')}"
    rows = {name: tuple(_figure(value, f"{place}, {name}") for value in row) for name, row in entry["rows"].items()}
    try:
        table = Efficiency(**{**entry, "lengths": tuple(entry["lengths"]), "rows": rows})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{place}: {error}") from error
    for name, row in rows.items():
        if len(row) != len(table.lengths):
            raise ValueError(f"{place}: {name} has {len(row)} figures for {len(table.lengths)} lengths")
    if table.reference not in rows:
        raise ValueError(f"{place}: there is no row {table.reference!r} to refer to")
    return table


def _figure(value: Any, place: str) -> Figure:
    if value == OUT_OF_MEMORY:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e300:
        raise ValueError(f"{place}: {value!r} is neither a positive number nor {OUT_OF_MEMORY!r}")
    return float(value)
