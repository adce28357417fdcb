"""The content of the page as plain values. Ids are numbers of this page; nothing here is HTML."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lra.config import PROTOCOL_NAMES
from lra.leaderboard.html.charts import Bubbles, Curves
from lra.leaderboard.html.run_page import RunView, is_quick, run_view
from lra.leaderboard.html.score_rows import PUBLISHED, Group, RunKey, few_marks, groups
from lra.leaderboard.html.table_charts import Intervals, intervals, learning_curves, speed
from lra.leaderboard.legend import BLOCK_MARK, mark_sentences
from lra.leaderboard.published import accuracy
from lra.leaderboard.reported import INTRODUCTION, NO_PAIRS, reproduced
from lra.leaderboard.table import CHANCE, MEAN, ONE_CLASS, FormattedCell, scores
from lra.leaderboard.text import FIRST_RUN, clean, nothing, retired_line, table_headings
from lra.leaderboard.types import Board, Table
from lra.record.facts import column_key
from lra.record.files import RecordFile
from lra.record.schema import RunRecord
from tasks import available, load_task

LENGTHS = "Accuracy against the length of inputs is not drawn: records have no accuracy by length."

Run = RecordFile[RunRecord]


@dataclasses.dataclass(frozen=True)
class TableView:
    """A table of the board. sorted: the column by which its rows are ordered; legend: of what occurs in it."""

    label: str
    heading: str
    about: str
    heads: tuple[tuple[str, str, str], ...]
    sorted: int
    groups: tuple[Group, ...]
    legend: tuple[str, ...]
    intervals: tuple[Intervals, ...]
    bubbles: Bubbles | None
    speed: str  # what `bubbles` shows, or why there are none
    curves: tuple[Curves, ...]
    runs: tuple[RunView, ...]


def page_view(board: Board) -> dict[str, Any]:
    """Return everything on the page by name, in its order."""
    runs = {(str(f.origin), f.record.id): f for f in board.runs}
    numbers = {key: i for i, key in enumerate(runs, 1)}
    ordered = sorted(board.tables, key=_place)
    listed_in = [_listed(t) for t in ordered]
    listed = {key for keys in listed_in for key in keys}
    tuned = {
        key: changes[0]
        for t, keys in zip(ordered, listed_in, strict=True)
        for key, changes in keys.items()
        if t.track == "tuned" and changes
    }
    shown: set[RunKey] = set()
    tables: dict[bool, list[TableView]] = {False: [], True: []}
    for t, keys, title in zip(ordered, listed_in, table_headings(ordered), strict=True):
        below = [*keys, *(key for key in runs if key not in listed and _is_of(runs[key], t))]
        views = [
            run_view(runs[key], numbers[key], tuned.get(key, "none"), counted=key in listed)
            for key in below
            if key not in shown
        ]
        tables[is_quick(t.protocol)].append(_table_view(t, title, [runs[key] for key in keys], numbers, views))
        shown.update(below)
    return {
        "newest": max((f.record.created[:10] for f in runs.values()), default=""),
        "nothing": nothing(board),
        "first_run": FIRST_RUN,
        "retired": retired_line(board),
        "tables": tables[False],
        "quick": tables[True],
        "labels": list(dict.fromkeys(clean(t.label) for t in ordered)),
        "origins": sorted({f.origin for f in runs.values()}),
        "lengths": LENGTHS,
        "introduction": INTRODUCTION,
        "reproduced": reproduced(board),
        "no_pairs": NO_PAIRS.replace("`", ""),
        "published": accuracy(),
        "titles": {task: load_task(task).CARD.title for task in available()} | {"pathx": "Path-X"},
    }


def _place(t: Table) -> tuple[bool, bool, bool, bool, int]:
    """Order tables: the strongest protocol that compares several mixers first, recipes after it, quick last."""
    strength = PROTOCOL_NAMES.index(t.protocol) if t.protocol in PROTOCOL_NAMES else -1
    return is_quick(t.protocol), t.track == "modified", "+" in t.protocol, len({r.label for r in t.rows}) < 2, -strength


def _table_view(
    t: Table, title: str, runs: Sequence[Run], numbers: Mapping[RunKey, int], run_views: Sequence[RunView]
) -> TableView:
    formatted = scores(t)
    cells = [few_marks(c) for r in formatted.rows for c in r.cells]
    cells += [
        FormattedCell("", marks=(mark,))
        for mark in (CHANCE, ONE_CLASS)
        if any(mark in r.accuracy.text for r in run_views)
    ]
    legend = mark_sentences(cells)
    if any(c.cell for c in cells):
        legend.append("Below a number: its 95 % interval over test examples (Wilson), and links to its runs.")
    if any(r.name.endswith(BLOCK_MARK) for r in formatted.rows):
        legend.append(f"{BLOCK_MARK}: replaces the whole block, not attention alone.")
    if any(c.copy for c in (*t.columns, *(s.column for s in t.truncated))):
        legend.append("copy: a data set with other numbers of examples than LRA's; no part of a 5-task mean.")
    sorted_by = len(formatted.heads) - 1 if any(head[0] == MEAN for head in formatted.heads) else 0
    rows = tuple(groups(t, formatted, numbers, sorted_by))
    if any(g.kind == PUBLISHED for g in rows):
        legend.append("Published rows: as their sources print them, from the full data and the training of the source.")
    records = [f.record for f in runs]
    chart, about_speed = speed(t, records)
    return TableView(
        label=clean(t.label),
        heading=title,
        about=t.about.replace("`", ""),
        heads=formatted.heads,
        sorted=sorted_by,
        groups=rows,
        legend=tuple(legend),
        intervals=tuple(i for n in range(len(t.columns)) if (i := intervals(t, n))),
        bubbles=chart,
        speed=about_speed,
        curves=tuple(learning_curves(t, records)),
        runs=tuple(run_views),
    )


def _listed(t: Table) -> dict[RunKey, tuple[str, ...]]:
    """Return the runs in the cells of a table, and those that were stopped, with the changes of their row."""
    listed: dict[RunKey, tuple[str, ...]] = {}
    for row in t.rows:
        listed |= {(row.origin, run): row.changes for cell in row.cells if cell for run in cell.records}
    return listed | {(s.origin, s.record): s.changes for s in t.truncated}


def _is_of(f: Run, t: Table) -> bool:
    return f.record.column.protocol == t.protocol and column_key(f.record) in {c.key for c in t.columns}
