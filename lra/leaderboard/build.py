"""The leaderboard of records (`lra.leaderboard.types`): the table, column and row of each record."""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from rich.console import RenderableType

from lra import config as cfg
from lra.leaderboard.cells import CellAnnotations, RowKey
from lra.leaderboard.export import as_csv, as_json
from lra.leaderboard.latex import as_latex
from lra.leaderboard.markdown import as_markdown
from lra.leaderboard.reported import as_markdown as reported
from lra.leaderboard.terminal import as_table
from lra.leaderboard.types import BaselineRow, Board, Column, Cost, Row, Table, Track, Truncated
from lra.record.baseline_models import MAJORITY
from lra.record.earlier import of_one_code
from lra.record.facts import Key, changes, column_key, retired
from lra.record.files import RecordFile, of_kind
from lra.record.schema import BaselineRecord, Record, RunRecord, TuningRecord
from tasks import LRA_TASKS
from tasks.core import SAMPLE, base_variant, is_copy

Group = tuple[str, Track]  # protocol
Run = RecordFile[RunRecord]
Baseline = RecordFile[BaselineRecord]
Format = Literal["table", "md", "csv", "json", "latex", "html"]


def board(files: Iterable[RecordFile[Record]], protocol: str | None = None) -> Board:
    """Return the leaderboard of these records.

    Records of earlier versions of a task, protocol or mixer are left out and counted.

    Args:
      files: runs, trivial baselines and tunings (`lra.record.files.find`)
      protocol: `small`, or with a recipe `small+spt`; None: all
    """
    groups: dict[Group, list[Run]] = defaultdict(list)
    current: list[RecordFile[Record]] = []
    others, earlier = set(), []
    for f in files:
        is_wanted = protocol in (None, f.record.column.protocol)
        if retired(f.record):
            earlier += [f] if is_wanted else []
        elif is_wanted or isinstance(f.record, BaselineRecord):
            current.append(f)
        else:
            others.add(f.record.column.protocol)
    tunings = of_kind(current, TuningRecord)
    for run in of_kind(current, RunRecord):
        column = run.record.column
        modified = column.modified or bool(changes(run.record))
        groups[column.protocol, "modified" if modified else "matched"].append(run)
        if trials := _trials(run, tunings):
            groups[column.protocol, "tuned"].append(dataclasses.replace(run, trials=trials))
    tracks = get_args(Track)
    ordered = sorted(groups, key=lambda g: (_place(g[0], cfg.PROTOCOL_NAMES), tracks.index(g[1])))
    shown = {column_key(f.record) for runs in groups.values() for f in runs}
    baselines = [f for f in of_kind(current, BaselineRecord) if column_key(f.record) in shown]
    return Board(
        tables=tuple(
            _table(group, part, groups[group], baselines) for group in ordered for part in _parts(groups[group])
        ),
        runs=tuple(f for group in ordered if group[1] != "tuned" for f in groups[group]),
        baselines=tuple(baselines),
        others=tuple(sorted(others)),
        retired=tuple(earlier),
    )


def _trials(run: Run, tunings: Iterable[RecordFile[TuningRecord]]) -> int:
    """Return how many learning rates were tried before that of this run was chosen; 0: none was."""
    record = run.record
    for f in tunings:
        tuning = f.record
        if (
            f.origin == run.origin
            and (column_key(tuning), tuning.mixer.label) == (column_key(record), record.mixer.label)
            and tuning.learning_rate == record.config.train.learning_rate
            and all(change.startswith("train.learning_rate=") for change in changes(record))
            and tuning.column.protocol == record.column.protocol
        ):
            return len(tuning.trials)
    return 0


def render(board: Board, format: Format = "table") -> RenderableType:
    """Return the board as a table for rich's `Console.print`, or as a string without a last line break.

    Raises:
      ValueError: the format does not exist; the message lists those that do.
    """
    formats = {"table": as_table, "md": _page, "csv": as_csv, "json": as_json, "latex": as_latex, "html": _html}
    if format not in formats:
        raise ValueError(f"no format {format!r}; the formats are {', '.join(formats)}")
    return formats[format](board)


def _html(board: Board) -> str:
    from lra.leaderboard.html import as_html  # its views use this module

    return as_html(board)


def _page(board: Board) -> str:
    return "\n".join([as_markdown(board), "", *reported(board)]).rstrip()


def _table(group: Group, runs: Sequence[Run], all_runs: Sequence[Run], baseline_files: Sequence[Baseline]) -> Table:
    finished = _first_of_each_seed(f for f in runs if f.record.status != "truncated")
    columns = _columns(finished)
    rows: dict[RowKey, dict[Key, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for f in finished:
        rows[_row(f)][column_key(f.record)].append(f)
    baselines = _baseline_rows(columns, finished, baseline_files)
    best = {key: max((b.accuracies[i] or 0.0 for b in baselines), default=0.0) for i, key in enumerate(columns)}
    annotations = CellAnnotations(rows, best)
    table_rows = []
    for row, runs_of in rows.items():
        cells = tuple(annotations.cell(row, key) if key in runs_of else None for key in columns)
        mean = five_task_mean(columns.values(), [cell.mean if cell else None for cell in cells])
        table_rows.append(Row(*row, cells, mean))
    table_rows.sort(key=lambda r: (r.origin == "committed", -_order_score(r), r.label, r.changes))
    truncated = [f for f in runs if f.record.status == "truncated"]
    truncated.sort(
        key=lambda f: (f.origin == "committed", _task_order(column_key(f.record)), *_row(f)[1:], f.record.seed)
    )
    every_column = _columns(runs)
    reference = {column_key(f.record): f.record.parameters for f in finished if f.record.mixer.label == "softmax"}
    costs = [cost for r in table_rows for cost in _costs(r, columns, rows[r.origin, r.label, r.changes], reference)]
    protocol, track = group
    return Table(
        protocol,
        max(f.record.column.protocol_version for f in runs),
        track,
        about=_about(group, runs),
        columns=tuple(columns.values()),
        beside=tuple(_columns(all_runs).values()),
        rows=tuple(table_rows),
        baselines=tuple(baselines),
        truncated=tuple(_truncated(f, every_column[column_key(f.record)]) for f in truncated),
        costs=tuple(costs),
    )


def _parts(runs: Sequence[Run]) -> list[list[Run]]:
    """Return the runs of each table of a protocol: several data sets of one task are in tables of their own.

    The user's data come first, then those with the most rows; among equals samples are last.
    """
    columns = {column_key(f.record): f.record.column for f in runs}
    own = {column_key(f.record) for f in runs if f.origin == "yours"}
    rows = {key: len({_row(f) for f in runs if column_key(f.record) == key}) for key in columns}

    def order(key: Key) -> tuple[Any, ...]:
        return key not in own, -rows[key], columns[key].source.startswith(SAMPLE), _task_order(key)

    part: dict[Key, int] = {}
    for key in sorted(columns, key=order):
        part[key] = sum((other[0], base_variant(other[1])) == (key[0], base_variant(key[1])) for other in part)
    return [[f for f in runs if part[column_key(f.record)] == i] for i in range(max(part.values()) + 1)]


def _about(group: Group, runs: Sequence[Run]) -> str:
    name, track = group
    if track == "modified":
        return "the protocol with the changes that each row names"
    if track == "tuned":
        return "the protocol with the learning rate that was best on validation, from a grid that is the same for all"
    return cfg.protocol(runs[0].record.column.task, name).about


def _row(f: Run) -> RowKey:
    notes = (f"{f.trials} learning rates tried",) if f.trials else changes(f.record)
    return f.origin, f.record.mixer.label, notes


def _place(name: str, order: Sequence[str]) -> tuple[int, str]:
    return (order.index(name), "") if name in order else (len(order), name)


def _task_order(key: Key) -> tuple[Any, ...]:
    return _place(key[0], cfg.TASKS), base_variant(key[1]) != "full", is_copy(key[1]), *key[1:]


def _first_of_each_seed(runs: Iterable[Run]) -> list[Run]:
    """Return one run for each seed of a cell: its earliest, so that results cannot be cherry-picked."""
    cells: dict[Any, list[Run]] = defaultdict(list)
    for f in sorted(runs, key=lambda f: f.record.created):
        cells[_row(f), column_key(f.record)].append(f)
    first: dict[Any, Run] = {}
    for cell, runs_of in cells.items():
        for f in of_one_code(runs_of):
            first.setdefault((cell, f.record.seed), f)
    return sorted(first.values(), key=lambda f: f.record.seed)


def _columns(runs: Iterable[Run]) -> dict[Key, Column]:
    by_key: dict[Key, list[RunRecord]] = defaultdict(list)
    for f in runs:
        by_key[column_key(f.record)].append(f.record)
    columns = {}
    for key in sorted(by_key, key=_task_order):
        sources = " or ".join(sorted({r.column.source for r in by_key[key]}))  # several may give the same data
        tests = [r.test for r in by_key[key] if r.test and r.config.limit is None]
        largest = max(tests, key=lambda test: test.count, default=None)
        size = (largest.count, largest.chance) if largest else (None, None)
        columns[key] = Column(*key, sources, *size)
    return columns


def five_task_mean(columns: Iterable[Column], values: Sequence[float | None]) -> float | None:
    """Return the mean over LRA's five tasks if each of them has exactly one value, else None; copies do not count."""
    pairs = zip(columns, values, strict=True)
    counted = [(c.task, v) for c, v in pairs if v is not None and not c.copy and c.task in LRA_TASKS]
    return statistics.fmean(v for _, v in counted) if sorted(t for t, _ in counted) == sorted(LRA_TASKS) else None


def _order_score(row: Row) -> float:
    """Return the score by which rows are ordered; 0 if there is no single one."""
    if len(row.cells) == 1 and row.cells[0] is not None:
        return row.cells[0].mean or 0.0
    return row.mean or 0.0


def _costs(
    row: Row, columns: Iterable[Key], cells: Mapping[Key, Sequence[Run]], reference: Mapping[Key, int]
) -> list[Cost]:
    """reference: parameters of softmax in each column, where it was trained"""
    tested = {key: [f.record for f in runs if f.record.test] for key, runs in cells.items()}
    costs = []
    for machine in sorted({r.environment.hardware for records in tested.values() for r in records}):
        took: list[tuple[int, float] | None] = []
        for key in columns:
            records = [r for r in tested.get(key, ()) if r.environment.hardware == machine]
            took.append((records[0].parameters, statistics.fmean(r.minutes for r in records)) if records else None)
        ratios = tuple(
            t[0] / reference[k] if t and k in reference else None for k, t in zip(columns, took, strict=True)
        )
        costs.append(Cost(row.origin, row.label, row.changes, machine, tuple(took), ratios))
    return costs


def _baseline_rows(
    columns: Mapping[Key, Column], runs: Sequence[Run], baselines: Sequence[Baseline]
) -> list[BaselineRow]:
    known: dict[str, dict[Key, float]] = {MAJORITY: {}}
    for f in sorted(runs, key=lambda f: f.record.config.limit is None):  # tests on all examples have the last word
        known[MAJORITY][column_key(f.record)] = f.record.majority_accuracy
    for b in sorted(baselines, key=lambda b: b.record.created):
        known.setdefault(b.record.mixer.label, {})[column_key(b.record)] = b.record.test.accuracy
    rows = []
    for name, values in known.items():
        accuracies = tuple(values.get(key) for key in columns)
        if any(a is not None for a in accuracies):
            rows.append(BaselineRow(name, accuracies, five_task_mean(columns.values(), accuracies)))
    return rows


def _truncated(f: Run, column: Column) -> Truncated:
    r, test = f.record, f.record.test
    assert test is not None  # only a run that diverged has none
    return Truncated(
        *_row(f),
        column=column,
        record=r.id,
        seed=r.seed,
        steps_done=r.steps.done,
        steps_planned=r.steps.planned,
        accuracy=test.accuracy,
        chance=test.chance,
        at_chance=test.is_at_chance,
        one_class=test.predicts_one_class,
        minutes=r.minutes,
        hardware=r.environment.hardware,
    )
