"""What the page shows, as plain values. Ids are numbers of this page's own; nothing here is HTML."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

from lra.leaderboard.html.charts import STYLES, Bubbles, Curves, bubbles, curves
from lra.leaderboard.html.run_page import CellView, RunView, difference_text, interval_text, run_view
from lra.leaderboard.legend import legend
from lra.leaderboard.published import Accuracy, accuracy
from lra.leaderboard.reported import INTRODUCTION, NO_PAIRS, Reproduced, reproduced
from lra.leaderboard.table import BASELINE, FormattedCell, cell, scores
from lra.leaderboard.text import FIRST_RUN, clean, heading, nothing, percent, retired_line
from lra.leaderboard.types import Board, Table
from lra.record.facts import column_key
from lra.record.files import RecordFile
from lra.record.schema import RunRecord
from tasks import available, load_task

REFERENCE = "softmax"

Run = RecordFile[RunRecord]
Place = tuple[str, str]  # of a record: its origin and id


@dataclasses.dataclass(frozen=True)
class RowView:
    label: str
    changes: tuple[str, ...]
    origin: str
    cells: tuple[CellView, ...]
    baseline: bool


@dataclasses.dataclass(frozen=True)
class Mark:
    """A row in a chart of intervals, places in per cent of its width."""

    name: str
    style: int
    at: float
    low: float
    high: float
    told: str


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
    place: str  # the label, told apart from that of other data
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


@dataclasses.dataclass(frozen=True)
class PageView:
    newest: str
    nothing: str
    first_run: str
    legend: tuple[str, ...]
    retired: str
    tables: tuple[TableView, ...]
    introduction: str
    reproduced: tuple[Reproduced, ...]
    no_pairs: str
    published: tuple[Accuracy, ...]
    titles: Mapping[str, str]


def page_view(board: Board) -> PageView:
    """Everything on the page, in its order."""
    runs = {(str(f.origin), f.record.id): f for f in board.runs}
    numbers = {place: i for i, place in enumerate(runs, 1)}
    tuned = {
        place: changes[0]
        for t in board.tables
        if t.track == "tuned"
        for place, changes in _counted(t).items()
        if changes
    }
    counted = {place for t in board.tables for place in _counted(t)}
    repeated = [place for place in runs if place not in counted]
    seen: set[Place] = set()
    tables = []
    for t in board.tables:
        here = _counted(t)
        labels = dict.fromkeys([*(r.label for r in t.rows), *(s.label for s in t.truncated)])
        styles = {name: i % STYLES for i, name in enumerate(labels)}
        mine = [runs[place] for place in here]
        chart, areas = _bubbles(t, mine, styles)
        below = [*here, *(p for p in repeated if _is_of(runs[p], t))]
        tables.append(
            TableView(
                label=clean(t.label),
                place=_place_text(t, board.tables),
                about=t.about.replace("`", ""),
                heads=scores(t).heads,
                rows=_rows(t, numbers),
                intervals=tuple(i for n in range(len(t.columns)) if (i := _intervals(t, n, styles))),
                bubbles=chart,
                bubbles_about=", ".join(heading(c)[0] for c in t.columns),
                bubbles_area=areas,
                curves=tuple(_curves(t, mine, styles)),
                styles=styles,
                runs=tuple(
                    run_view(runs[p], numbers[p], tuned.get(p, "none"), counted=p in counted)
                    for p in below
                    if p not in seen
                ),
            )
        )
        seen.update(below)
    return PageView(
        newest=max((f.record.created[:10] for f in runs.values()), default=""),
        nothing=nothing(board),
        first_run=FIRST_RUN,
        legend=tuple(legend(board)),
        retired=retired_line(board),
        tables=tuple(tables),
        introduction=INTRODUCTION,
        reproduced=tuple(reproduced(board)),
        no_pairs=NO_PAIRS.replace("`", ""),
        published=accuracy(),
        titles={task: load_task(task).CARD.title for task in available()} | {"pathx": "Path-X"},
    )


def _counted(t: Table) -> dict[Place, tuple[str, ...]]:
    """The records that stand in a cell, or among those that were stopped, with the changes of their row."""
    counted: dict[Place, tuple[str, ...]] = {}
    for row in t.rows:
        counted |= {(row.origin, run): row.changes for cell in row.cells if cell for run in cell.records}
    return counted | {(s.origin, s.record): s.changes for s in t.truncated}


def _is_of(f: Run, t: Table) -> bool:
    column = f.record.column
    of_protocol = (column.protocol, column.protocol_version) == (t.protocol, t.version)
    return of_protocol and column_key(f.record) in {c.key for c in t.columns}


def _place_text(t: Table, tables: Sequence[Table]) -> str:
    first = next(other for other in tables if other.label == t.label)
    return clean(t.label) + ("" if first is t else ", other data")


def _rows(t: Table, numbers: Mapping[Place, int]) -> tuple[RowView, ...]:
    rows = []
    for row in scores(t).rows:
        cells = [_cell(cell, row.origin, numbers) for cell in row.cells]
        rows.append(RowView(row.name, row.changes, row.origin, tuple(cells), row.origin == BASELINE))
    return tuple(rows)


def _cell(formatted: FormattedCell, origin: str, numbers: Mapping[Place, int]) -> CellView:
    cell = formatted.cell
    if cell is None:
        return CellView(formatted.text, formatted.value)
    seeds = zip((*cell.seeds, *cell.diverged), cell.records, strict=True)
    links = tuple((seed, numbers[origin, run]) for seed, run in seeds)
    difference = difference_text(cell.comparison.difference)
    return CellView(formatted.text, formatted.value, interval_text(cell.interval), links, difference)


def _intervals(t: Table, n: int, styles: Mapping[str, int]) -> Intervals | None:
    """Return one column's rows with their intervals, highest first, and the best trivial baseline as a line."""
    there = [(r, c) for r in t.rows if (c := r.cells[n]) is not None and c.mean is not None and c.interval]
    if not there:
        return None
    baseline = max(((b.accuracies[n] or 0.0, b.name) for b in t.baselines), default=(0.0, ""))
    ends = [e for _, c in there for e in c.interval or ()] + [baseline[0]]
    low, high = max(0.0, min(ends) - 0.02), min(1.0, max(ends) + 0.02)

    def place(value: float) -> float:
        return 100 * (value - low) / (high - low)

    marks = []
    for r, c in sorted(there, key=lambda pair: -(pair[1].mean or 0)):
        assert c.mean is not None
        assert c.interval is not None
        told = f"{clean(r.label)}: {cell(c).text}, {interval_text(c.interval)}"
        name = clean(r.label) + (" *" if r.changes else "")
        ends = [place(end) for end in c.interval]
        marks.append(Mark(name, styles[r.label], place(c.mean), ends[0], ends[1], told))
    text = f"{clean(baseline[1])} {percent(baseline[0])}"
    return Intervals(heading(t.columns[n], t.beside)[0], low, high, place(baseline[0]), text, tuple(marks))


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
    drawn = []
    for column in dict.fromkeys((*t.columns, *(s.column for s in t.truncated))):
        here = [f.record for f in runs if column_key(f.record) == column.key]
        what = "validation" if any(r.validation for r in here) else "training"
        series = [
            (
                f"{clean(r.mixer.label)}, seed {r.seed}",
                styles[r.mixer.label],
                [(p[0], 100 * p[2]) for p in (r.curve if what == "training" else r.validation)],
            )
            for r in here
        ]
        if made := curves(heading(column)[0], series, f"{what} accuracy, %"):
            drawn.append(made)
    return drawn
