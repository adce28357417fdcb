"""Published figures of others, from the TOML files of this folder. They are listed apart from own results."""

from __future__ import annotations

import dataclasses
import enum
import tomllib
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from tasks import LRA_TASKS

FOLDER = Path(__file__).parent
ACCURACY = tuple(FOLDER / name for name in ("protocols.toml", "attention.toml", "recurrent.toml"))
EFFICIENCY = FOLDER / "efficiency.toml"

T = TypeVar("T")


class Missing(enum.StrEnum):
    """A value in place of a figure. FAILED: no better than chance, or out of memory."""

    FAILED = "X"
    NOT_GIVEN = "-"


Figure = float | None  # of speed or memory; None: out of memory
Percent = Decimal | Missing  # of accuracy, with the digits that the source prints


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


NOT_FOLLOWED = "Reported elsewhere: no protocol follows it."
CHANCE = Decimal(50)  # of the tasks with two classes, which are those that failed
FIVE = LRA_TASKS
SIX = (*FIVE, "pathx")
# By the name of its rule, the average of a row. Raises ValueError where the rule does not define it.
AVERAGES: dict[str, Callable[[Mapping[str, Percent]], Decimal]] = {
    "5-task mean": lambda row: _mean(row, FIVE, {}),
    "6-task mean": lambda row: _mean(row, SIX, {}),
    "6-task mean, a failure counted as chance (50)": lambda row: _mean(row, SIX, {Missing.FAILED: CHANCE}),
    "6-task mean, what is missing counted as 0": lambda row: _mean(row, SIX, dict.fromkeys(Missing, Decimal(0))),
    "mean of what is given": lambda row: _mean(row, [task for task in row if isinstance(row[task], Decimal)], {}),
    "not stated": lambda row: _mean(row, (), {}),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table of accuracies, in per cent.

    figures:    by task
    average:    the source's own
    deviations: standard deviations by task, where the source gives them
    labels:     by task, the label of the mixer of this project that has the form of this row, if there is one
    """

    name: str
    figures: Mapping[str, Percent]
    average: Percent
    deviations: Mapping[str, Percent]
    labels: Mapping[str, str]
    note: str

    def text(self, task: str) -> str:
        """Return the figure as `37.60`, `37.60±0.65`, `X` (failed) or `–` (not given)."""
        deviation = self.deviations.get(task)
        spread = f"±{deviation}" if isinstance(deviation, Decimal) else ""
        return _text(self.figures[task]) + spread

    @property
    def average_text(self) -> str:
        return _text(self.average)


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """A table of accuracies of one source.

    quoted_in: the text in which the figures were read, where that is not the source itself
    family:    the code base and its sizes
    protocol:  the protocol of this project that follows the source; "": none does
    averaging: a rule of `AVERAGES`
    columns:   tasks
    """

    source: str
    family: str
    averaging: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    protocol: str = ""
    quoted_in: str = ""
    note: str = ""

    @property
    def remarks(self) -> str:
        """The sentences below the name of the source."""
        follows = f"The protocol {self.protocol} follows it." if self.protocol else NOT_FOLLOWED
        quoted = f"As quoted in {self.quoted_in}." if self.quoted_in else ""
        return " ".join(filter(None, (quoted, f"{self.family[0].upper()}{self.family[1:]}.", follows, self.note)))

    @property
    def average_heading(self) -> str:
        return "average (rule not stated)" if self.averaging == "not stated" else self.averaging

    def reported(self, label: str, task: str) -> Decimal | None:
        """Return the figure of the row whose form on this task has that label; None where there is none."""
        for row in self.rows:
            figure = row.figures.get(task)
            if row.labels.get(task) == label and isinstance(figure, Decimal):
                return figure
        return None


def accuracy(paths: Sequence[Path] = ACCURACY) -> tuple[Accuracy, ...]:
    """Read all tables of `[[accuracy]]`, in the order of the files.

    Raises:
      ValueError: a table lacks a field or has an unknown one, names an unknown rule, row or task, or a row is not one
        figure for each column and the average.
    """
    return tuple(table for path in paths for table in _tables(path, "accuracy", _accuracy))


def efficiency(path: Path = EFFICIENCY) -> tuple[Efficiency, ...]:
    """Read all tables of `[[efficiency]]`, in the order of the file.

    Raises:
      ValueError: a table lacks a field, or a row is not one positive number or X for each length.
    """
    return _tables(path, "efficiency", _efficiency)


def _tables(path: Path, name: str, read: Callable[[dict[str, Any]], T]) -> tuple[T, ...]:
    try:
        entries = tomllib.loads(path.read_text("utf-8"), parse_float=Decimal)[name]
        return tuple(read(entry) for entry in entries)
    except (KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{path}: [[{name}]] lacks a field or has a wrong one ({error!r})") from error


def _accuracy(entry: dict[str, Any]) -> Accuracy:
    source, columns, rows = str(entry.get("source")), tuple(entry["columns"]), entry["rows"]
    parts = {part: entry.get(part, {}) for part in ("labels", "notes", "deviations")}
    fields = {name: value for name, value in entry.items() if name not in parts}
    for part, named in parts.items():
        if unknown := named.keys() - rows.keys():
            raise ValueError(f"{source}: {part} of rows that do not exist: {', '.join(sorted(unknown))}")
    if parts["labels"] and not entry.get("protocol"):
        raise ValueError(f"{source}: labels without a protocol: no form can equal these rows")
    if entry["averaging"] not in AVERAGES:
        raise ValueError(f"{source}: no rule {entry['averaging']!r}; the rules are {', '.join(AVERAGES)}")
    read = []
    for name, values in rows.items():
        place = f"{source}, {name}"
        if len(values) != len(columns) + 1:
            raise ValueError(f"{place} is not one figure for each of {len(columns)} tasks and an average")
        *figures, average = (_percent(value, place) for value in values)
        deviations = [_percent(value, f"{place}, deviations") for value in parts["deviations"].get(name, ())]
        read.append(
            Row(
                name=name,
                figures=dict(zip(columns, figures, strict=True)),
                average=average,
                deviations=dict(zip(columns, deviations, strict=bool(deviations))),
                labels=_labels(parts["labels"].get(name, {}), columns, place),
                note=parts["notes"].get(name, ""),
            )
        )
    for task in columns:
        labels = [row.labels[task] for row in read if task in row.labels]
        if len(set(labels)) < len(labels):
            raise ValueError(f"{source}: two rows have the same label on {task}")
    return Accuracy(**{**fields, "columns": columns, "rows": tuple(read)})


def _text(value: Percent) -> str:
    return "–" if value is Missing.NOT_GIVEN else str(value)


def _labels(given: str | dict[str, str], columns: Sequence[str], place: str) -> dict[str, str]:
    by_task = {"default": given} if isinstance(given, str) else dict(given)
    default = by_task.pop("default", None)
    if unknown := by_task.keys() - set(columns):
        raise ValueError(f"{place}: labels of tasks that are no columns: {', '.join(sorted(unknown))}")
    return {task: label for task in columns if (label := by_task.get(task, default)) is not None}


def _percent(value: Any, place: str) -> Percent:
    if isinstance(value, str) and value in set(Missing):
        return Missing(value)
    if not _is_positive(value) or value > 100:
        raise ValueError(f"{place}: {_quoted(value)} is neither a percentage nor 'X' or '-'")
    return Decimal(value)


def _mean(row: Mapping[str, Percent], tasks: Sequence[str], counted_as: Mapping[Missing, Decimal]) -> Decimal:
    values = [row.get(task, Missing.NOT_GIVEN) for task in tasks]
    numbers = [counted_as.get(value) if isinstance(value, Missing) else value for value in values]
    known = [number for number in numbers if number is not None]
    if not known or len(known) < len(numbers):
        raise ValueError("the average is not defined: a task is missing")
    return sum(known, Decimal(0)) / len(known)


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
    if value == Missing.FAILED:
        return None
    if not _is_positive(value):
        raise ValueError(f"{place}: {_quoted(value)} is neither a positive number nor 'X'")
    return float(value)


def _is_positive(value: Any) -> bool:
    """TOML numbers are int or Decimal here; infinity and not-a-number are no figures."""
    is_number = isinstance(value, int | Decimal) and not isinstance(value, bool)
    return is_number and Decimal(value).is_finite() and 0 < value < 1e300


def _quoted(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)
