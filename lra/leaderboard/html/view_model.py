"""The content of the page as plain values. Ids are numbers of this page; nothing here is HTML."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lra.leaderboard.html.charts import STYLES, Bubbles, Curves, bubbles, curves
from lra.leaderboard.html.run_page import CellView, RunView, difference_text, interval_text, run_view
from lra.leaderboard.legend import legend
from lra.leaderboard.published import accuracy
from lra.leaderboard.reported import INTRODUCTION, NO_PAIRS, reproduced
from lra.leaderboard.table import BASELINE, FormattedCell, cell, scores
from lra.leaderboard.text import FIRST_RUN, clean, heading, nothing, percent, retired_line
from lra.leaderboard.types import Board, Table
from lra.record.facts import column_key
from lra.record.files import RecordFile
from lra.record.schema import RunRecord
from tasks import available, load_task

REFERENCE = "softmax"

Run = RecordFile[RunRecord]
RunKey = tuple[str, str]  # origin, id


@dataclasses.dataclass(frozen=True)
class RowView:
    label: str
    changes: tuple[str, ...]
    origin: str
    cells: tuple[CellView, ...]
    baseline: bool


@dataclasses.dataclass(frozen=True)
class Mark:
    """A row in a chart of intervals. Positions are in per cent of its width."""

    name: str
    style: int
    at: float
    low: float
    high: float
    tooltip: str


@dataclasses.dataclass(frozen=True)
class Intervals:
    title: str
    low: float
    high: float
    baseline: float  # the best trivial baseline
    baseline_text: str
    marks: tuple[Mark, ...]


@dataclasses.dataclass(frozen=True)
class TableView:
    label: str
    place: str  # the label, and whether it is of other data
    about: str
    heads: tuple[tuple[str, str, str], ...]
    rows: tuple[RowView, ...]
    intervals: tuple[Intervals, ...]
    bubbles: Bubbles | None
    bubbles_about: str
    bubbles_area: str
    curves: tuple[Curves, ...]
    styles: Mapping[str, int]  # of each mixer, in all charts of this table
    runs: tuple[RunView, ...]


def page_view(board: Board) -> dict[str, Any]:
    """Return everything on the page by name, in its order."""
    runs = {(str(f.origin), f.record.id): f for f in board.runs}
    numbers = {key: i for i, key in enumerate(runs, 1)}
    listed_in = [_listed(t) for t in board.tables]
    listed = {key for keys in listed_in for key in keys}
    tuned = {
        key: changes[0]
        for t, keys in zip(board.tables, listed_in, strict=True)
        for key, changes in keys.items()
        if t.track == "tuned" and changes
    }
    shown: set[RunKey] = set()
    tables = []
    for t, keys in zip(board.tables, listed_in, strict=True):
        below = [*keys, *(key for key in runs if key not in listed and _is_of(runs[key], t))]
        views = [
            run_view(runs[key], numbers[key], tuned.get(key, "none"), counted=key in listed)
            for key in below
            if key not in shown
        ]
        tables.append(_table_view(t, board, [runs[key] for key in keys], _rows(t, numbers), views))
        shown.update(below)
    return {
        "newest": max((f.record.created[:10] for f in runs.values()), default=""),
        "nothing": nothing(board),
        "first_run": FIRST_RUN,
        "legend": legend(board),
        "retired": retired_line(board),
        "tables": tables,
        "introduction": INTRODUCTION,
        "reproduced": reproduced(board),
        "no_pairs": NO_PAIRS.replace("`", ""),
        "published": accuracy(),
        "titles": {task: load_task(task).CARD.title for task in available()} | {"pathx": "Path-X"},
    }


def _table_view(
    t: Table, board: Board, runs: Sequence[Run], rows: Sequence[RowView], run_views: Sequence[RunView]
) -> TableView:
    labels = dict.fromkeys([*(r.label for r in t.rows), *(s.label for s in t.truncated)])
    styles = {name: i % STYLES for i, name in enumerate(labels)}
    chart, areas = _bubbles(t, runs, styles)
    is_first = t is next(other for other in board.tables if other.label == t.label)
    return TableView(
        label=clean(t.label),
        place=clean(t.label) + ("" if is_first else ", other data"),
        about=t.about.replace("`", ""),
        heads=scores(t).heads,
        rows=tuple(rows),
        intervals=tuple(i for n in range(len(t.columns)) if (i := _intervals(t, n, styles))),
        bubbles=chart,
        bubbles_about=", ".join(heading(c)[0] for c in t.columns),
        bubbles_area=areas,
        curves=tuple(_curves(t, runs, styles)),
        styles=styles,
        runs=tuple(run_views),
    )


def _listed(t: Table) -> dict[RunKey, tuple[str, ...]]:
    """Return the runs in the cells of a table, and those that were stopped, with the changes of their row."""
    listed: dict[RunKey, tuple[str, ...]] = {}
    for row in t.rows:
        listed |= {(row.origin, run): row.changes for cell in row.cells if cell for run in cell.records}
    return listed | {(s.origin, s.record): s.changes for s in t.truncated}


def _is_of(f: Run, t: Table) -> bool:
    column = f.record.column
    of_protocol = (column.protocol, column.protocol_version) == (t.protocol, t.version)
    return of_protocol and column_key(f.record) in {c.key for c in t.columns}


def _rows(t: Table, numbers: Mapping[RunKey, int]) -> list[RowView]:
    rows = []
    for row in scores(t).rows:
        cells = [_cell(cell, row.origin, numbers) for cell in row.cells]
        rows.append(RowView(row.name, row.changes, row.origin, tuple(cells), row.origin == BASELINE))
    return rows


def _cell(formatted: FormattedCell, origin: str, numbers: Mapping[RunKey, int]) -> CellView:
    cell = formatted.cell
    if cell is None:
        return CellView(formatted.text, formatted.value)
    seeds = zip((*cell.seeds, *cell.diverged), cell.records, strict=True)
    links = tuple((seed, numbers[origin, run]) for seed, run in seeds)
    difference = difference_text(cell.comparison.difference)
    return CellView(formatted.text, formatted.value, interval_text(cell.interval), links, difference)


def _intervals(t: Table, n: int, styles: Mapping[str, int]) -> Intervals | None:
    """Return one column's rows with their intervals, highest first, and the best trivial baseline as a line."""
    known = [
        (r, c, c.mean, c.interval)
        for r in t.rows
        if (c := r.cells[n]) is not None and c.mean is not None and c.interval
    ]
    if not known:
        return None
    baseline, name = max(((b.accuracies[n] or 0.0, b.name) for b in t.baselines), default=(0.0, ""))
    ends = [end for *_, interval in known for end in interval] + [baseline]
    low, high = max(0.0, min(ends) - 0.02), min(1.0, max(ends) + 0.02)

    def position(value: float) -> float:
        return 100 * (value - low) / (high - low)

    marks = []
    for r, c, mean, interval in sorted(known, key=lambda row: -row[2]):
        tooltip = f"{clean(r.label)}: {cell(c).text}, {interval_text(interval)}"
        starred = clean(r.label) + (" *" if r.changes else "")
        left, right = map(position, interval)
        marks.append(Mark(starred, styles[r.label], position(mean), left, right, tooltip))
    text = f"{clean(name)} {percent(baseline)}"
    return Intervals(heading(t.columns[n], t.beside)[0], low, high, position(baseline), text, tuple(marks))


def _bubbles(t: Table, runs: Sequence[Run], styles: Mapping[str, int]) -> tuple[Bubbles | None, str]:
    """Draw the mixers that have every column, against softmax on the same hardware.

    Speeds are geometric means of ratios. Runs whose memory was measured in another way are not mixed.

    Returns:
      The chart, and what its areas are.
    """
    finished = [r for r in (f.record for f in runs) if r.status == "complete" and r.peak_bytes is not None]
    finished = [r for r in finished if r.steps_per_second]
    of_steps = [r for r in finished if not r.has_process_memory]
    points = []
    for r in t.rows:
        means = [c.mean for c in r.cells if c is not None and c.mean is not None]
        if len(means) < len(t.columns) or r.changes:
            continue
        ratios, peaks = [], []
        for column in t.columns:
            speeds: dict[str, dict[str, list[float]]] = {r.label: {}, REFERENCE: {}}
            for run in of_steps or finished:
                label = run.mixer.label
                if column_key(run) == column.key and label in speeds:
                    speeds[label].setdefault(run.environment.hardware, []).append(run.steps_per_second or 0.0)
                    peaks += [run.peak_bytes or 0] if label == r.label else []
            both = sorted(speeds[r.label].keys() & speeds[REFERENCE].keys())
            ratios += [statistics.fmean(speeds[r.label][m]) / statistics.fmean(speeds[REFERENCE][m]) for m in both][:1]
        if len(ratios) == len(t.columns):
            speed, mean = statistics.geometric_mean(ratios), 100 * statistics.fmean(means)
            text = f"{clean(r.label)}: {mean:.1f} %, {speed:.2g} times softmax's speed, {max(peaks) / 2**20:,.0f} MiB"
            points.append((clean(r.label), styles[r.label], speed, mean, float(max(peaks)), text))
    areas = (
        "the peak memory of training steps, without the interpreter and the compiler"
        if of_steps
        else "the peak memory of the whole process, interpreter and compiler included"
    )
    return bubbles(points, f"training speed, times {REFERENCE}'s", "mean accuracy, %"), areas


def _curves(t: Table, runs: Sequence[Run], styles: Mapping[str, int]) -> list[Curves]:
    """For each column the validation accuracy of every run, the training accuracy where the task has no validation."""
    charts = []
    for column in dict.fromkeys((*t.columns, *(s.column for s in t.truncated))):
        records = [f.record for f in runs if column_key(f.record) == column.key]
        split = "validation" if any(r.validation for r in records) else "training"
        series = [
            (
                f"{clean(r.mixer.label)}, seed {r.seed}",
                styles[r.mixer.label],
                [(p[0], 100 * p[2]) for p in (r.curve if split == "training" else r.validation)],
            )
            for r in records
        ]
        if chart := curves(heading(column)[0], series, f"{split} accuracy, %"):
            charts.append(chart)
    return charts
