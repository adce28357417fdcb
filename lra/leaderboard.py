"""From records to the leaderboard (`lra.board`): what stands in which table, column and row."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from rich.console import RenderableType

from lra import config as cfg
from lra.board import Board, Cell, Column, Cost, FloorRow, Row, Table, Track, Truncated
from lra.board_latex import as_latex
from lra.board_marks import Key, Marks, RowKey
from lra.board_published import as_markdown as reported
from lra.board_table import as_table
from lra.board_text import as_csv, as_json, as_markdown
from lra.earlier import of_one_code
from lra.floor_rules import MAJORITY
from lra.record import Found
from tasks.core import SAMPLE

Group = tuple[str, int, Track]  # protocol, version
Format = Literal["table", "md", "csv", "json", "latex", "html"]


def board(found: Iterable[Found], protocol: str | None = None) -> Board:
    """The leaderboard of these records.

    Args:
      found:    runs and floors (`lra.record.find`); other kinds are left out
      protocol: `small`, or `small@1`; None: all
    """
    found = list(found)
    floors = [f for f in found if f.record["kind"] == "floor"]
    groups: dict[Group, list[Found]] = defaultdict(list)
    tunings = [f for f in found if f.record["kind"] == "tuning"]
    others = set()
    for f in found:
        if f.record["kind"] == "run":
            name, version = f.record["column"]["protocol"], f.record["column"]["protocol_version"]
            if protocol not in (None, name, f"{name}@{version}"):
                others.add(f"{name}@{version}")
                continue
            modified = f.record["column"]["modified"] or bool(changes(f.record))
            groups[name, version, "modified" if modified else "matched"].append(f)
            if trials := _trials(f, tunings):
                groups[name, version, "tuned"].append(dataclasses.replace(f, trials=trials))
    tracks = get_args(Track)
    ordered = sorted(groups, key=lambda g: (_place(g[0], cfg.PROTOCOLS), -g[1], tracks.index(g[2])))
    shown = {column_key(f) for runs in groups.values() for f in runs}
    floors = [f for f in floors if column_key(f) in shown]
    return Board(
        tables=tuple(_table(group, part, groups[group], floors) for group in ordered for part in _parts(groups[group])),
        found=(*(f for group in ordered if group[2] != "tuned" for f in groups[group]), *floors),
        others=tuple(sorted(others)),
    )


def _trials(run: Found, tunings: Iterable[Found]) -> int:
    """How many learning rates were tried before the one of this run was chosen; 0: none was."""
    for f in tunings:
        r = f.record
        if (
            f.origin == run.origin
            and (column_key(f), r["mixer"]["label"]) == (column_key(run), run.record["mixer"]["label"])
            and r["learning_rate"] == run.record["config"]["train"]["learning_rate"]
            and all(change.startswith("train.learning_rate=") for change in changes(run.record))
            and all(r["column"][k] == run.record["column"][k] for k in ("protocol", "protocol_version"))
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
    from lra.page import as_html  # its views use this module

    return as_html(board)


def _page(board: Board) -> str:
    return "\n".join([as_markdown(board), "", *reported(board)]).rstrip()


def changes(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What a run changed of its protocol, `train.steps=500`: compared with today's protocol, whatever the run says.

    Where that has another version, a modified run is named by a hash of its configuration.
    """
    column, config = record["column"], record["config"]
    told = []
    if config.get("limit") is not None:
        told.append(f"limit={config['limit']}")
    try:
        base = cfg.meaning(cfg.protocol(column["task"], column["protocol"]))
    except cfg.ConfigError:
        base = {}
    if base.get("version") == column["protocol_version"]:
        told += _different(config, {k: base[k] for k in ("max_len", "model", "train")})
        if told or not column["modified"] or config["variant"] != base["variant"]:
            return tuple(told)
    if not column["modified"]:
        return ()
    setting = {k: v for k, v in config.items() if k not in ("seed", "source") and not k.startswith("mixer")}
    return (f"configuration {hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:8]}",)


def _different(config: Mapping[str, Any], base: Mapping[str, Any], path: str = "") -> list[str]:
    told = []
    for name, value in base.items():
        if name in config and config[name] != value:
            if isinstance(value, Mapping) and isinstance(config[name], Mapping):
                told += _different(config[name], value, f"{path}{name}.")
            else:
                told.append(f"{path}{name}={config[name]}")
    return told


def hardware(record: Mapping[str, Any]) -> str:
    """`AMD EPYC 7B13, 2 cores` or `4 x NVIDIA H100`."""
    e = record["environment"]
    if e["backend"] == "cpu":
        return f"{e['device']}, {e['cores']} core{'s' * (e['cores'] != 1)}"
    return (f"{e['device_count']} x " if e["device_count"] > 1 else "") + e["device"]


def _table(group: Group, runs: Sequence[Found], beside: Sequence[Found], floors: Sequence[Found]) -> Table:
    finished = _first_of_each_seed(f for f in runs if f.record["status"] != "truncated")
    columns = _columns(finished)
    rows: dict[RowKey, dict[Key, list[Found]]] = defaultdict(lambda: defaultdict(list))
    for f in finished:
        rows[_row(f)][column_key(f)].append(f)
    below = _floor_rows(columns, finished, floors)
    marks = Marks(rows, {k: max((f.accuracies[i] or 0.0 for f in below), default=0.0) for i, k in enumerate(columns)})
    made = [
        Row(*row, cells := tuple(marks.cell(row, k) if k in cells_of else None for k in columns), _mean(columns, cells))
        for row, cells_of in rows.items()
    ]
    made.sort(key=lambda r: (r.origin == "committed", -_standing(r), r.label, r.changes))
    truncated = [f for f in runs if f.record["status"] == "truncated"]
    truncated.sort(key=lambda f: (f.origin == "committed", _task_order(column_key(f)), *_row(f)[1:], f.record["seed"]))
    everywhere = _columns(runs)
    reference = {column_key(f): f.record["parameters"] for f in finished if f.record["mixer"]["label"] == "softmax"}
    costs = [cost for r in made for cost in _costs(r, columns, rows[r.origin, r.label, r.changes], reference)]
    return Table(
        *group,
        about=_about(group, runs),
        columns=tuple(columns.values()),
        beside=tuple(_columns(beside).values()),
        rows=tuple(made),
        floors=tuple(below),
        truncated=tuple(_truncated(f, everywhere[column_key(f)]) for f in truncated),
        costs=tuple(costs),
    )


def _parts(runs: Sequence[Found]) -> list[list[Found]]:
    """Runs on several data sets of one task stand in tables of their own.

    The user's data come first, then those with the most rows; among equals samples are last.
    """
    columns = {column_key(f): f.record["column"] for f in runs}
    mine = {column_key(f) for f in runs if f.origin == "yours"}
    rows = {key: len({_row(f) for f in runs if column_key(f) == key}) for key in columns}

    def place(key: Key) -> tuple[Any, ...]:
        return key not in mine, -rows[key], columns[key]["source"].startswith(SAMPLE), _task_order(key)

    part: dict[Key, int] = {}
    for key in sorted(columns, key=place):
        part[key] = sum(other[:2] == key[:2] for other in part)
    return [[f for f in runs if part[column_key(f)] == i] for i in range(max(part.values()) + 1)]


def _about(group: Group, runs: Sequence[Found]) -> str:
    name, version, track = group
    if track == "modified":
        return "the protocol with the changes that each row names"
    if track == "tuned":
        return "the protocol with the learning rate that was best on validation, from a grid that is the same for all"
    try:
        base = cfg.protocol(runs[0].record["column"]["task"], name)
    except cfg.ConfigError:
        return ""
    return base.about if base.version == version else ""


def column_key(f: Found) -> Key:
    c = f.record["column"]
    return c["task"], c["variant"], c["task_version"], c["data_sha256"]


def _row(f: Found) -> RowKey:
    told = (f"{f.trials} learning rates tried",) if f.trials else changes(f.record)
    return f.origin, f.record["mixer"]["label"], told


def _place(name: str, order: Sequence[str]) -> tuple[int, str]:
    return (order.index(name), "") if name in order else (len(order), name)


def _task_order(key: Key) -> tuple[Any, ...]:
    return _place(key[0], cfg.TASKS), key[1] != "full", *key[1:]


def _first_of_each_seed(runs: Iterable[Found]) -> list[Found]:
    """Return one run for each seed of a cell: its earliest, so that results cannot be cherry-picked."""
    cells: dict[Any, list[Found]] = defaultdict(list)
    for f in sorted(runs, key=lambda f: f.record["created"]):
        cells[_row(f), column_key(f)].append(f)
    first: dict[Any, Found] = {}
    for cell, found in cells.items():
        for f in of_one_code(found):
            first.setdefault((cell, f.record["seed"]), f)
    return sorted(first.values(), key=lambda f: f.record["seed"])


def _columns(runs: Iterable[Found]) -> dict[Key, Column]:
    by_key: dict[Key, list[Mapping[str, Any]]] = defaultdict(list)
    for f in runs:
        by_key[column_key(f)].append(f.record)
    columns = {}
    for key in sorted(by_key, key=_task_order):
        sources = " or ".join(sorted({r["column"]["source"] for r in by_key[key]}))  # several may give the same data
        counts = {r["test"]["count"] for r in by_key[key] if r["test"] and r["config"].get("limit") is None}
        columns[key] = Column(*key, sources, max(counts, default=None))
    return columns


def _mean(columns: Mapping[Key, Column], cells: Sequence[Cell | None]) -> float | None:
    return five_task_mean(columns, [None if c is None else c.mean for c in cells])


def five_task_mean(columns: Iterable[Key], values: Sequence[float | None]) -> float | None:
    """The mean over LRA's five tasks, if each of them has exactly one value; else None. Nothing else is averaged."""
    there = [(key[0], v) for key, v in zip(columns, values, strict=True) if v is not None]
    return statistics.fmean(v for _, v in there) if sorted(t for t, _ in there) == sorted(cfg.TASKS) else None


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


def _floor_rows(columns: Iterable[Key], runs: Sequence[Found], floors: Sequence[Found]) -> list[FloorRow]:
    known: dict[str, dict[Key, float]] = {MAJORITY: {}}
    for f in sorted(runs, key=lambda f: f.record["config"].get("limit") is None):  # whole tests have the last word
        known[MAJORITY][column_key(f)] = f.record["majority_accuracy"]
    for f in sorted(floors, key=lambda f: f.record["created"]):
        known.setdefault(f.record["mixer"]["label"], {})[column_key(f)] = f.record["test"]["accuracy"]
    rows = []
    for name, values in known.items():
        accuracies = tuple(values.get(key) for key in columns)
        if any(a is not None for a in accuracies):
            rows.append(FloorRow(name, accuracies, five_task_mean(columns, accuracies)))
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
        at_chance=r["test"]["at_chance"],
        majority=r["majority_accuracy"],
        minutes=r["seconds"] / 60 / r.get("seeds_together", 1),
        hardware=hardware(r),
    )
