"""The rows of a table on the page: runs, published figures and trivial baselines."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal

from lra.leaderboard.html.run_page import CellView, difference_text, interval_text, is_quick
from lra.leaderboard.published import Percent, accuracy
from lra.leaderboard.table import BASELINE, BELOW, CHANCE, ONE_CLASS, FormattedCell, FormattedTable
from lra.leaderboard.text import NONE
from lra.leaderboard.types import Table
from tasks.core import base_variant

PUBLISHED = "published"
GROUPS = {
    "yours": "your runs",
    "committed": "committed runs",
    PUBLISHED: "published",
    BASELINE: "trivial baselines",
}
MAX_MARKS = 2  # of a number

RunKey = tuple[str, str]  # origin, id


@dataclasses.dataclass(frozen=True)
class RowView:
    label: str
    changes: tuple[str, ...]
    cells: tuple[CellView, ...]


@dataclasses.dataclass(frozen=True)
class Group:
    """Rows that are sorted among themselves. kind: a key of `GROUPS`."""

    kind: str
    title: str
    rows: tuple[RowView, ...]


def groups(t: Table, formatted: FormattedTable, numbers: Mapping[RunKey, int], sorted_by: int) -> Iterable[Group]:
    """Return the rows of a table in groups that have any, each ordered by the column `sorted_by`.

    Args:
      numbers: of the sections of the runs
    """
    columns = zip(*([_order(c.value) for c in r.cells] for r in formatted.rows if r.origin != BASELINE), strict=True)
    best = [max(values) if sum(v >= 0 for v in values) > 1 else None for values in columns]
    for origin, title in GROUPS.items():
        rows = list(_published(t, len(formatted.heads))) if origin == PUBLISHED else []
        for r in formatted.rows:
            if r.origin == origin:
                tops = best if origin != BASELINE else [None] * len(best)
                cells = [
                    _cell(c, origin, numbers, is_best=top is not None and c.value == top)
                    for c, top in zip(r.cells, tops, strict=True)
                ]
                rows.append(RowView(r.name, r.changes, tuple(cells)))
        rows.sort(key=lambda row: -_order(row.cells[sorted_by].sort))
        if rows:
            yield Group(origin, title, tuple(rows))


def _order(value: float | None) -> float:
    return -1.0 if value is None else value


def _published(t: Table, count: int) -> Iterable[RowView]:
    """Return the published rows of a table's mixers, from the source that its protocol follows, or else from all.

    Figures are for LRA's variant of a task, and are left out beside another one.
    """
    labels = {r.label for r in t.rows}
    sources = [p for p in accuracy() if p.protocol and not is_quick(t.protocol) and t.track != "modified"]
    for source in [p for p in sources if p.protocol == t.protocol] or sources:
        name = re.split(r"[;,] (?=arXiv|accuracy)", source.source)[0].removesuffix(")") + ")"
        for row in source.rows:
            if labels & {*row.labels.values(), row.name.lower()}:
                figures = [
                    (row.figures[c.task], row.text(c.task))
                    if c.task in row.figures and base_variant(c.variant) == "full"
                    else (None, NONE)
                    for c in t.columns
                ]
                if all(value is None for value, _ in figures):
                    continue
                figures += [(row.average, row.average_text)] * (count - len(figures))
                yield RowView(row.name, (name,), tuple(_figure(*figure) for figure in figures))


def _figure(value: Percent | None, text: str) -> CellView:
    return CellView(text, float(value) / 100 if isinstance(value, Decimal) else None)


def few_marks(formatted: FormattedCell) -> FormattedCell:
    """Return a cell with the marks that count most; a number at chance has no mark of the trivial baseline."""
    notes = sum(note.endswith((CHANCE, ONE_CLASS)) for note in formatted.notes)
    at_chance = {CHANCE, ONE_CLASS} & {*formatted.marks}
    marks = [mark for mark in formatted.marks if not (mark == BELOW and at_chance)]
    return dataclasses.replace(formatted, marks=tuple(marks[: MAX_MARKS - notes]))


def _cell(formatted: FormattedCell, origin: str, numbers: Mapping[RunKey, int], *, is_best: bool) -> CellView:
    text, cell = few_marks(formatted).text, formatted.cell
    if cell is None:
        return CellView(text, formatted.value, is_best=is_best)
    seeds = zip((*cell.seeds, *cell.diverged), cell.records, strict=True)
    links = tuple((seed, numbers[origin, run]) for seed, run in seeds)
    difference = difference_text(cell.comparison.difference)
    return CellView(text, formatted.value, interval_text(cell.interval), links, difference, is_best)
