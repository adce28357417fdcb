"""From records to the leaderboard (`lra.leaderboard.types`): which table, column and row each record belongs to."""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from rich.console import RenderableType

from lra import config as cfg
from lra.leaderboard.cells import Marks, RowKey
from lra.leaderboard.export import as_csv, as_json
from lra.leaderboard.latex import as_latex
from lra.leaderboard.markdown import as_markdown
from lra.leaderboard.reported import as_markdown as reported
from lra.leaderboard.terminal import as_table
from lra.leaderboard.types import BaselineRow, Board, Column, Cost, Row, Table, Track, Truncated
from lra.record.baseline_models import MAJORITY
from lra.record.earlier import of_one_code
from lra.record.facts import Key, changes, column_key, hardware, retired
from lra.record.files import Found, chance, is_at_chance, predicts_one_class
from tasks.core import SAMPLE, base_variant, is_copy

Group = tuple[str, int, Track]  # protocol, version
Format = Literal["table", "md", "csv", "json", "latex", "html"]


def board(found: Iterable[Found], protocol: str | None = None) -> Board:
    """Return the leaderboard of these records.

    Records of earlier versions of a task, protocol or mixer are left out and counted.

    Args:
      found: runs, trivial baselines and tunings (`lra.record.files.find`)
      protocol: `small`, or `small@2`; None: all
    """
    groups: dict[Group, list[Found]] = defaultdict(list)
    of_kind: dict[str, list[Found]] = {"run": [], "floor": [], "tuning": []}
    others, earlier = set(), []
    for f in found:
        name, version = f.record["column"]["protocol"], f.record["column"]["protocol_version"]
        asked_for = protocol in (None, name, f"{name}@{version}")
        if retired(f.record):
            earlier += [f] if asked_for else []
        elif asked_for or f.record["kind"] == "floor":
            of_kind[f.record["kind"]].append(f)
        else:
            others.add(f"{name}@{version}")
    for f in of_kind["run"]:
        name, version = f.record["column"]["protocol"], f.record["column"]["protocol_version"]
        modified = f.record["column"]["modified"] or bool(changes(f.record))
        groups[name, version, "modified" if modified else "matched"].append(f)
        if trials := _trials(f, of_kind["tuning"]):
            groups[name, version, "tuned"].append(dataclasses.replace(f, trials=trials))
    tracks = get_args(Track)
    ordered = sorted(groups, key=lambda g: (_place(g[0], cfg.PROTOCOLS), -g[1], tracks.index(g[2])))
    shown = {column_key(f.record) for runs in groups.values() for f in runs}
    floors = [f for f in of_kind["floor"] if column_key(f.record) in shown]
    return Board(
        tables=tuple(_table(group, part, groups[group], floors) for group in ordered for part in _parts(groups[group])),
        found=(*(f for group in ordered if group[2] != "tuned" for f in groups[group]), *floors),
        others=tuple(sorted(others)),
        retired=tuple(earlier),
    )


def _trials(run: Found, tunings: Iterable[Found]) -> int:
    """Return how many learning rates were tried before that of this run was chosen; 0: none was."""
    for f in tunings:
        r = f.record
        if (
            f.origin == run.origin
            and (column_key(r), r["mixer"]["label"]) == (column_key(run.record), run.record["mixer"]["label"])
            and r["learning_rate"] == run.record["config"]["train"]["learning_rate"]
            and all(change.startswith("train.learning_rate=") for change in changes(run.record))
            and r["column"]["protocol"] == run.record["column"]["protocol"]
        ):
            return len(r["trials"])
    return 0


def render(board: Board, format: Format = "table") -> RenderableType:
    """The board as a table for rich's `Console.print`, else as a string without a last line break.

    Raises:
      ValueError: no such format.
    """
    formats = {"table": as_table, "md": _page, "csv": as_csv, "json": as_json, "latex": as_latex, "html": _html}
    if format not in formats:
        raise ValueError(f"no format {format!r}; there are {', '.join(formats)}")
    return formats[format](board)


def _html(board: Board) -> str:
    from lra.leaderboard.html import as_html  # its views use this module

    return as_html(board)


def _page(board: Board) -> str:
    return "\n".join([as_markdown(board), "", *reported(board)]).rstrip()


def _table(group: Group, runs: Sequence[Found], beside: Sequence[Found], floors: Sequence[Found]) -> Table:
    finished = _first_of_each_seed(f for f in runs if f.record["status"] != "truncated")
    columns = _columns(finished)
    rows: dict[RowKey, dict[Key, list[Found]]] = defaultdict(lambda: defaultdict(list))
    for f in finished:
        rows[_row(f)][column_key(f.record)].append(f)
    baselines = _baseline_rows(columns, finished, floors)
    best = {key: max((b.accuracies[i] or 0.0 for b in baselines), default=0.0) for i, key in enumerate(columns)}
    marks = Marks(rows, best)
    made = []
    for row, cells_of in rows.items():
        cells = tuple(marks.cell(row, key) if key in cells_of else None for key in columns)
        mean = five_task_mean(columns.values(), [cell.mean if cell else None for cell in cells])
        made.append(Row(*row, cells, mean))
    made.sort(key=lambda r: (r.origin == "committed", -_standing(r), r.label, r.changes))
    truncated = [f for f in runs if f.record["status"] == "truncated"]
    truncated.sort(
        key=lambda f: (f.origin == "committed", _task_order(column_key(f.record)), *_row(f)[1:], f.record["seed"])
    )
    everywhere = _columns(runs)
    reference = {
        column_key(f.record): f.record["parameters"] for f in finished if f.record["mixer"]["label"] == "softmax"
    }
    costs = [cost for r in made for cost in _costs(r, columns, rows[r.origin, r.label, r.changes], reference)]
    return Table(
        *group,
        about=_about(group, runs),
        columns=tuple(columns.values()),
        beside=tuple(_columns(beside).values()),
        rows=tuple(made),
        baselines=tuple(baselines),
        truncated=tuple(_truncated(f, everywhere[column_key(f.record)]) for f in truncated),
        costs=tuple(costs),
    )


def _parts(runs: Sequence[Found]) -> list[list[Found]]:
    """Runs on several data sets of one task stand in tables of their own.

    The user's data come first, then those with the most rows; among equals samples are last.
    """
    columns = {column_key(f.record): f.record["column"] for f in runs}
    mine = {column_key(f.record) for f in runs if f.origin == "yours"}
    rows = {key: len({_row(f) for f in runs if column_key(f.record) == key}) for key in columns}

    def place(key: Key) -> tuple[Any, ...]:
        return key not in mine, -rows[key], columns[key]["source"].startswith(SAMPLE), _task_order(key)

    part: dict[Key, int] = {}
    for key in sorted(columns, key=place):
        part[key] = sum((other[0], base_variant(other[1])) == (key[0], base_variant(key[1])) for other in part)
    return [[f for f in runs if part[column_key(f.record)] == i] for i in range(max(part.values()) + 1)]


def _about(group: Group, runs: Sequence[Found]) -> str:
    name, _, track = group
    if track == "modified":
        return "the protocol with the changes that each row names"
    if track == "tuned":
        return "the protocol with the learning rate that was best on validation, from a grid that is the same for all"
    return cfg.protocol(runs[0].record["column"]["task"], name).about


def _row(f: Found) -> RowKey:
    told = (f"{f.trials} learning rates tried",) if f.trials else changes(f.record)
    return f.origin, f.record["mixer"]["label"], told


def _place(name: str, order: Sequence[str]) -> tuple[int, str]:
    return (order.index(name), "") if name in order else (len(order), name)


def _task_order(key: Key) -> tuple[Any, ...]:
    return _place(key[0], cfg.TASKS), base_variant(key[1]) != "full", is_copy(key[1]), *key[1:]


def _first_of_each_seed(runs: Iterable[Found]) -> list[Found]:
    """Return one run for each seed of a cell: its earliest, so that results cannot be cherry-picked."""
    cells: dict[Any, list[Found]] = defaultdict(list)
    for f in sorted(runs, key=lambda f: f.record["created"]):
        cells[_row(f), column_key(f.record)].append(f)
    first: dict[Any, Found] = {}
    for cell, found in cells.items():
        for f in of_one_code(found):
            first.setdefault((cell, f.record["seed"]), f)
    return sorted(first.values(), key=lambda f: f.record["seed"])


def _columns(runs: Iterable[Found]) -> dict[Key, Column]:
    by_key: dict[Key, list[Mapping[str, Any]]] = defaultdict(list)
    for f in runs:
        by_key[column_key(f.record)].append(f.record)
    columns = {}
    for key in sorted(by_key, key=_task_order):
        sources = " or ".join(sorted({r["column"]["source"] for r in by_key[key]}))  # several may give the same data
        tests = [r["test"] for r in by_key[key] if r["test"] and r["config"].get("limit") is None]
        whole = max(tests, key=lambda test: test["count"], default=None)
        examples = whole["count"] if whole else None
        columns[key] = Column(*key, sources, examples, chance(whole) if whole else None)
    return columns


def five_task_mean(columns: Iterable[Column], values: Sequence[float | None]) -> float | None:
    """Return the mean over LRA's five tasks if each of them has exactly one value, else None; copies do not count."""
    counted = [(c.task, v) for c, v in zip(columns, values, strict=True) if v is not None and not c.copy]
    return statistics.fmean(v for _, v in counted) if sorted(t for t, _ in counted) == sorted(cfg.TASKS) else None


def _standing(row: Row) -> float:
    """Rows are in the order of a score only where there is one score to order by."""
    if len(row.cells) == 1 and row.cells[0] is not None:
        return row.cells[0].mean or 0.0
    return row.mean or 0.0


def _costs(
    row: Row, columns: Iterable[Key], cells: Mapping[Key, Sequence[Found]], reference: Mapping[Key, int]
) -> list[Cost]:
    """reference: parameters of softmax in each column, where it was trained"""
    machines = sorted({hardware(f.record) for runs in cells.values() for f in runs if f.record["test"]})
    costs = []
    for machine in machines:
        took: list[tuple[int, float] | None] = []
        for key in columns:
            here = [f.record for f in cells.get(key, ()) if f.record["test"] and hardware(f.record) == machine]
            minutes = [r["seconds"] / 60 / r.get("seeds_together", 1) for r in here]
            took.append((here[0]["parameters"], statistics.fmean(minutes)) if here else None)
        ratios = tuple(
            t[0] / reference[k] if t and k in reference else None for k, t in zip(columns, took, strict=True)
        )
        costs.append(Cost(row.origin, row.label, row.changes, machine, tuple(took), ratios))
    return costs


def _baseline_rows(columns: Mapping[Key, Column], runs: Sequence[Found], floors: Sequence[Found]) -> list[BaselineRow]:
    known: dict[str, dict[Key, float]] = {MAJORITY: {}}
    for f in sorted(runs, key=lambda f: f.record["config"].get("limit") is None):  # whole tests have the last word
        known[MAJORITY][column_key(f.record)] = f.record["majority_accuracy"]
    for f in sorted(floors, key=lambda f: f.record["created"]):
        known.setdefault(f.record["mixer"]["label"], {})[column_key(f.record)] = f.record["test"]["accuracy"]
    rows = []
    for name, values in known.items():
        accuracies = tuple(values.get(key) for key in columns)
        if any(a is not None for a in accuracies):
            rows.append(BaselineRow(name, accuracies, five_task_mean(columns.values(), accuracies)))
    return rows


def _truncated(f: Found, column: Column) -> Truncated:
    r = f.record
    return Truncated(
        *_row(f),
        column=column,
        record=r["id"],
        seed=r["seed"],
        steps_done=r["steps"]["done"],
        steps_planned=r["steps"]["planned"],
        accuracy=r["test"]["accuracy"],
        chance=chance(r["test"]),
        at_chance=is_at_chance(r["test"]),
        one_class=predicts_one_class(r["test"]),
        minutes=r["seconds"] / 60 / r.get("seeds_together", 1),
        hardware=hardware(r),
    )
