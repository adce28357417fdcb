"""The end of a suite: the user's rows of a protocol, and the committed rows of the same mixers."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from rich.console import Group, RenderableType
from rich.text import Text

from lra.leaderboard.build import five_task_mean
from lra.leaderboard.table import BASELINE, COST, FormattedRow, accuracy, machines, scores, tables
from lra.leaderboard.terminal import Grid
from lra.leaderboard.types import Board, Table
from lra.record.baseline_models import MAJORITY


def summary(board: Board, protocol: str, labels: Collection[str]) -> RenderableType:
    """Return the tables of a protocol in which the user has rows of these mixers, without marks and legends.

    Args:
      labels: of mixers with their options, as in a record
    """
    parts: list[RenderableType] = []
    for t in (table for table in board.tables if table.protocol == protocol):
        for table in tables(t, machines(board)):
            rows = [row for row in table.rows if row.name in labels]
            if table.title != COST and any(row.origin == "yours" for row in rows):
                title = table.title or "Test accuracy in per cent"
                baselines = () if table.title else _baselines(t)
                plain = dataclasses.replace(table, title=title, rows=tuple(map(_without_marks, [*rows, *baselines])))
                parts += [Text(f"{t.label}: {title}", "bold"), Grid(plain), Text()]
    return Group(*parts)


def _baselines(t: Table) -> list[FormattedRow]:
    """Return the best trivial baseline of each column, and the majority class."""
    columns = zip(*(b.accuracies for b in t.baselines), strict=True)
    best = [max((a for a in column if a is not None), default=None) for column in columns]
    (majority,) = (b.accuracies for b in t.baselines if b.name == MAJORITY)
    rows = []
    for name, values in (("best of each task", best), (MAJORITY, majority)):
        cells = [*values, five_task_mean(t.columns, values)][: len(scores(t).heads)]
        rows.append(FormattedRow(BASELINE, name, (), tuple(map(accuracy, cells))))
    return rows


def _without_marks(row: FormattedRow) -> FormattedRow:
    return dataclasses.replace(row, cells=tuple(dataclasses.replace(cell, marks=()) for cell in row.cells))
