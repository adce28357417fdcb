"""The content of the page as plain values. Ids are numbers of this page; nothing here is HTML."""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from lra.config import PROTOCOLS
from lra.leaderboard.html.charts import Bubbles, Curves, bubbles, curves
from lra.leaderboard.html.run_page import CellView, RunView, difference_text, interval_text, run_view
from lra.leaderboard.legend import BLOCK_MARK, mark_sentences
from lra.leaderboard.published import accuracy
from lra.leaderboard.reported import INTRODUCTION, NO_PAIRS, reproduced
from lra.leaderboard.table import BASELINE, BELOW, CHANCE, MEAN, ONE_CLASS, ORIGINS, FormattedCell, cell, scores
from lra.leaderboard.text import FIRST_RUN, NONE, clean, heading, nothing, percent, retired_line
from lra.leaderboard.types import Board, Table
from lra.record.facts import column_key
from lra.record.files import RecordFile
from lra.record.schema import RunRecord
from tasks import available, load_task

QUICK = "quick"  # the protocol of smoke tests, which is last and folded
HIGHLIGHTED = {"cosformer": "first", "softmax": "second"}  # classes of page.css; other mixers are grey
MAX_MARKS = 2  # of a number
MIN_MIXERS = 3  # of the chart of speeds
LENGTHS = "Accuracy against the length of inputs is not drawn: records have no accuracy by length."

Run = RecordFile[RunRecord]
RunKey = tuple[str, str]  # origin, id


@dataclasses.dataclass(frozen=True)
class RowView:
    label: str
    changes: tuple[str, ...]
    cells: tuple[CellView, ...]


@dataclasses.dataclass(frozen=True)
class Group:
    """Rows that are sorted among themselves. kind: an origin, `baseline` or `published`."""

    kind: str
    title: str
    rows: tuple[RowView, ...]


@dataclasses.dataclass(frozen=True)
class Mark:
    """A row in a chart of intervals. Positions are in per cent of its width."""

    name: str
    kind: str
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
    for t, keys, title in zip(ordered, listed_in, _headings(ordered), strict=True):
        below = [*keys, *(key for key in runs if key not in listed and _is_of(runs[key], t))]
        views = [
            run_view(runs[key], numbers[key], tuned.get(key, "none"), counted=key in listed)
            for key in below
            if key not in shown
        ]
        tables[t.protocol == QUICK].append(_table_view(t, title, [runs[key] for key in keys], numbers, views))
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


def _place(t: Table) -> tuple[bool, bool, bool, int]:
    """Order tables: the strongest protocol that compares several mixers first, quick last."""
    strength = PROTOCOLS.index(t.protocol) if t.protocol in PROTOCOLS else -1
    return t.protocol == QUICK, t.track == "modified", len({r.label for r in t.rows}) < 2, -strength


def _headings(tables: Sequence[Table]) -> list[str]:
    """Return a heading for each table: its label, and its data where several tables have the same label."""
    headings: list[str] = []
    for t in tables:
        text = clean(t.label)
        if sum(other.label == t.label for other in tables) > 1:
            columns = (*t.columns, *(s.column for s in t.truncated))
            sources = dict.fromkeys(re.sub(" [0-9a-f]{8}$", "", heading(c)[2]) for c in columns)
            text += f", data: {' or '.join(sources)}"
            text += f" ({columns[0].data_sha256[:8]})" if text in headings else ""
        headings.append(text)
    return headings


def _table_view(
    t: Table, title: str, runs: Sequence[Run], numbers: Mapping[RunKey, int], run_views: Sequence[RunView]
) -> TableView:
    formatted = scores(t)
    cells = [_few_marks(c) for r in formatted.rows for c in r.cells]
    cells += [
        FormattedCell("", marks=(mark,))
        for mark in (CHANCE, ONE_CLASS)
        if any(mark in r.accuracy.text for r in run_views)
    ]
    legend = mark_sentences(cells)
    if any(c.cell for c in cells):
        legend.append("Below a number: its 95 % interval over test examples (Wilson), and links to the runs of its seeds.")
    if any(r.name.endswith(BLOCK_MARK) for r in formatted.rows):
        legend.append(f"{BLOCK_MARK}: replaces the whole block, not attention alone.")
    if any(c.copy for c in (*t.columns, *(s.column for s in t.truncated))):
        legend.append("copy: a data set with other numbers of examples than LRA's; no part of a 5-task mean.")
    published = _published(t, formatted.heads)
    if published:
        legend.append("Published rows: as their sources print them, from the full data and the training of the source.")
    sorted_by = len(formatted.heads) - 1 if any(head[0] == MEAN for head in formatted.heads) else 0
    chart, speed = _speed(t, runs)
    return TableView(
        label=clean(t.label),
        heading=title,
        about=t.about.replace("`", ""),
        heads=formatted.heads,
        sorted=sorted_by,
        groups=tuple(_groups(t, numbers, published, sorted_by)),
        legend=tuple(legend),
        intervals=tuple(i for n in range(len(t.columns)) if (i := _intervals(t, n))),
        bubbles=chart,
        speed=speed,
        curves=tuple(_curves(t, runs)),
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


def _groups(t: Table, numbers: Mapping[RunKey, int], published: Sequence[RowView], sorted_by: int) -> Iterable[Group]:
    formatted = scores(t)
    runs = [r for r in formatted.rows if r.origin in ORIGINS]
    values = [[r.cells[n].value or -1.0 for r in runs] for n in range(len(formatted.heads))]
    best = [max(column) if sum(v >= 0 for v in column) > 1 else None for column in values]
    titles = {"yours": "your runs", "committed": "committed runs", "published": "published", BASELINE: "trivial baselines"}
    for origin, title in titles.items():
        rows = [
            RowView(
                r.name,
                r.changes,
                tuple(
                    _cell(c, origin, numbers, is_best=origin in ORIGINS and c.value is not None and c.value == top)
                    for c, top in zip(r.cells, best, strict=True)
                ),
            )
            for r in formatted.rows
            if r.origin == origin
        ]
        rows += published if origin == "published" else []
        rows.sort(key=lambda row: -(row.cells[sorted_by].sort or -1.0))
        if rows:
            yield Group(origin, title, tuple(rows))


def _published(t: Table, heads: Sequence[tuple[str, str, str]]) -> list[RowView]:
    """Return the published rows of the table's mixers, of the source that its protocol follows or of all of those."""
    labels = {r.label for r in t.rows}
    sources = [p for p in accuracy() if p.protocol and t.protocol != QUICK and t.track != "modified"]
    rows = []
    for source in [p for p in sources if p.protocol == t.protocol] or sources:
        for row in source.rows:
            if labels & {*row.labels.values(), row.name.lower()}:
                values = [(row.figures.get(c.task), row.text(c.task) if c.task in row.figures else NONE) for c in t.columns]
                values += [(row.average, row.average_text)] * (len(heads) - len(values))
                cells = [CellView(text, float(v) / 100 if isinstance(v, Decimal) else None) for v, text in values]
                name = re.split(r"[;,] (?=arXiv|accuracy)", source.source)[0].removesuffix(")") + ")"
                rows.append(RowView(row.name, (name,), tuple(cells)))
    return rows


def _few_marks(formatted: FormattedCell) -> FormattedCell:
    """Return a cell with the marks that count most; a number at chance has no mark of the trivial baseline."""
    notes = sum(note.endswith((CHANCE, ONE_CLASS)) for note in formatted.notes)
    at_chance = {CHANCE, ONE_CLASS} & {*formatted.marks}
    marks = [mark for mark in formatted.marks if not (mark == BELOW and at_chance)]
    return dataclasses.replace(formatted, marks=tuple(marks[: MAX_MARKS - notes]))


def _cell(formatted: FormattedCell, origin: str, numbers: Mapping[RunKey, int], *, is_best: bool) -> CellView:
    text, cell = _few_marks(formatted).text, formatted.cell
    if cell is None:
        return CellView(text, formatted.value, is_best=is_best)
    seeds = zip((*cell.seeds, *cell.diverged), cell.records, strict=True)
    links = tuple((seed, numbers[origin, run]) for seed, run in seeds)
    difference = difference_text(cell.comparison.difference)
    return CellView(text, formatted.value, interval_text(cell.interval), links, difference, is_best)


def _kind(label: str) -> str:
    return HIGHLIGHTED.get(label.split("(")[0], "other")


def _intervals(t: Table, n: int) -> Intervals | None:
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
        marks.append(Mark(starred, _kind(r.label), position(mean), left, right, tooltip))
    text = f"{clean(name)} {percent(baseline)}"
    return Intervals(heading(t.columns[n], t.beside)[0], low, high, position(baseline), text, tuple(marks))


def _speed(t: Table, runs: Sequence[Run]) -> tuple[Bubbles | None, str]:
    """Draw accuracy against speed on the hardware on which most mixers ran every task.

    Runs whose memory was measured in another way are not mixed.

    Returns:
      The chart, and what it shows or why it is not drawn.
    """
    finished = [r for r in (f.record for f in runs) if r.status == "complete" and r.steps_per_second and r.peak_bytes]
    of_steps = [r for r in finished if not r.has_process_memory]
    means = {
        r.label: statistics.fmean(c.mean or 0.0 for c in r.cells if c)
        for r in t.rows
        if not r.changes and all(c is not None and c.mean is not None for c in r.cells)
    }
    points: dict[str, list[tuple[str, str, float, float, float, str]]] = {}
    for label, mean in means.items():
        for machine in sorted({r.environment.hardware for r in finished}):
            records = [
                r for r in of_steps or finished if (r.mixer.label, r.environment.hardware) == (label, machine)
            ]
            speeds = [
                statistics.fmean(speeds)
                for c in t.columns
                if (speeds := [r.steps_per_second or 0.0 for r in records if column_key(r) == c.key])
            ]
            if len(speeds) == len(t.columns):
                speed, peak = statistics.geometric_mean(speeds), float(max(r.peak_bytes or 0 for r in records))
                text = f"{clean(label)}: {100 * mean:.1f} %, {speed:.2g} steps/s, {peak / 2**20:,.0f} MiB"
                points.setdefault(machine, []).append((clean(label), _kind(label), speed, 100 * mean, peak, text))
    machine = max(points, key=lambda m: len(points[m]), default="")
    count = len(points.get(machine, ()))
    if count < MIN_MIXERS:
        return None, (
            f"Accuracy against speed is not drawn: it needs {MIN_MIXERS} mixers that ran every task on the same "
            f"hardware, and there {'is' if count == 1 else 'are'} {count or 'none'}."
        )
    missing = [clean(r.label) for r in t.rows if clean(r.label) not in {p[0] for p in points[machine]}]
    memory = "training steps, without the interpreter and the compiler" if of_steps else (
        "the whole process, interpreter and compiler included"
    )
    about = (
        f"Mean accuracy of {', '.join(heading(c)[0] for c in t.columns)} against training speed on {clean(machine)}; "
        f"the area is the peak memory of {memory}."
    )
    about += f" Not every task was run there by {', '.join(dict.fromkeys(missing))}." if missing else ""
    return bubbles(points[machine], "training steps per second", "mean accuracy, %"), about


def _curves(t: Table, runs: Sequence[Run]) -> list[Curves]:
    """For each column the validation accuracy of every run, the training accuracy where the task has no validation."""
    charts = []
    for column in dict.fromkeys((*t.columns, *(s.column for s in t.truncated))):
        records = [f.record for f in runs if column_key(f.record) == column.key]
        split = "validation" if any(r.validation for r in records) else "training"
        series = [
            (
                clean(r.mixer.label),
                _kind(r.mixer.label),
                f"{clean(r.mixer.label)}, seed {r.seed}",
                [(p[0], 100 * p[2]) for p in (r.curve if split == "training" else r.validation)],
            )
            for r in sorted(records, key=lambda r: _kind(r.mixer.label) != "other")
        ]
        if chart := curves(heading(column)[0], series, f"{split} accuracy, %"):
            charts.append(chart)
    return charts
