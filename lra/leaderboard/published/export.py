"""Published accuracies as plain values, for the CSV and JSON of the leaderboard."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from lra.leaderboard.published import Accuracy, Missing, Percent, Row, accuracy

KIND = "published"
AVERAGE = "average"  # in place of a task
WORDS = {Missing.FAILED: "failed", Missing.NOT_GIVEN: "not given"}


def lines() -> list[dict[str, Any]]:
    """Return a dict of CSV columns for each figure and each average; accuracies are fractions, as in records.

    A failure is a line without an accuracy. Figures that a source does not give have no line.
    """
    given_lines = []
    for table in accuracy():
        for row in table.rows:
            figures = {**row.figures, AVERAGE: row.average}
            given = {task: value for task, value in figures.items() if value is not Missing.NOT_GIVEN}
            given_lines += [_line(table, row, task, value) for task, value in given.items()]
    return given_lines


def _line(table: Accuracy, row: Row, task: str, value: Percent) -> dict[str, Any]:
    deviation = row.deviations.get(task)
    return {
        "origin": KIND,
        "kind": KIND,
        "status": "reported" if isinstance(value, Decimal) else WORDS[value],
        "task": task,
        "source": table.source,
        "protocol": table.protocol,
        "mixer": row.name,
        "accuracy": float(value / 100) if isinstance(value, Decimal) else None,
        "deviation": float(deviation / 100) if isinstance(deviation, Decimal) else None,
        "form": row.labels.get(task),
        "quoted_in": table.quoted_in,
        "family": table.family,
        "averaging": table.averaging if task == AVERAGE else None,
        "message": " ".join(note for note in (row.note, table.note) if note),
    }


def values() -> list[Any]:
    """Return all tables for JSON, in per cent; `failed` or `not given` in place of a number."""
    return [{**_plain(table), "unit": "per cent"} for table in accuracy()]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return _plain(vars(value))
    if isinstance(value, Mapping):
        return {name: _plain(inside) for name, inside in value.items()}
    if isinstance(value, tuple):
        return list(map(_plain, value))
    if isinstance(value, Missing):
        return WORDS[value]
    return float(value) if isinstance(value, Decimal) else value
