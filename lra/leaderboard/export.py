"""A leaderboard as CSV and as JSON. What a record brings along is text: no control characters, no formulas."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping
from typing import Any

from lra.leaderboard.published import export
from lra.leaderboard.text import clean
from lra.leaderboard.types import Board
from lra.paths import ROOT
from lra.record.facts import computing_code, reported_variant
from lra.record.files import Found, chance, has_process_memory, is_at_chance, predicts_one_class

CSV_HEAD = (
    *("origin", "file", "kind", "status", "id", "created", "task", "variant", "task_version", "source", "data_sha256"),
    *("protocol", "protocol_version", "modified", "mixer", "options", "mixer_sha256", "seed"),
    *("steps_done", "steps_planned", "accuracy", "correct", "count", "loss"),
    *("chance", "at_chance", "one_class", "majority_accuracy"),
    *("selection", "selected_step", "parameters", "seconds", "steps_per_second", "peak_bytes", "peak_of_process"),
    *("backend", "device", "device_count", "cores", "python", "jax", "flax"),
    *("config_sha256", "code_sha256", "computing_sha256", "git_commit", "git_clean", "message"),
    *("deviation", "form", "quoted_in", "family", "averaging"),  # of published figures only
)


def as_csv(board: Board) -> str:
    """Return one line per record, in the order of the board, then one per published figure (`export.lines`).

    A record's line has every fact but curve, confusion and predictions. A published line has the publication as its
    source and, as its protocol, the one that follows the publication.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_HEAD, lineterminator="\n")
    writer.writeheader()
    for facts in (*map(_facts, board.found), *export.lines()):
        writer.writerow({name: _csv(facts.get(name)) for name in CSV_HEAD})
    return text.getvalue().removesuffix("\n")


def _facts(f: Found) -> dict[str, Any]:
    r = f.record
    steps, selection = r.get("steps", {}), r.get("selection", {})
    within = f.path.is_relative_to(ROOT)
    return {
        **r,
        **r["column"],
        **r["test"],
        **r["environment"],
        **_judged(r["test"]),
        "variant": reported_variant(r),  # as in the tables
        "origin": f.origin,
        "file": f.path.relative_to(ROOT).as_posix() if within else f.path.name,
        "mixer": r["mixer"]["label"],
        "options": json.dumps(r["mixer"]["options"], sort_keys=True),
        "mixer_sha256": r["mixer"]["sha256"],
        "steps_done": steps.get("done"),
        "steps_planned": steps.get("planned"),
        "selection": selection.get("rule"),
        "selected_step": selection.get("step"),
        "code_sha256": r["code"]["sha256"],
        "computing_sha256": computing_code(r),
        "peak_of_process": has_process_memory(r) if r["kind"] == "run" else None,
        "git_commit": r["code"]["git_commit"],
        "git_clean": r["code"]["git_clean"],
    }


def _judged(test: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a test compares with chance, computed again: what a record says of it may follow an earlier rule."""
    if not test:
        return {}
    return {"chance": chance(test), "at_chance": is_at_chance(test), "one_class": predicts_one_class(test)}


def _csv(value: object) -> object:
    """Return a value for a cell; a text that a spreadsheet would run as a formula gets an apostrophe."""
    if not isinstance(value, str):
        return value
    line = clean(value)
    return f"'{line}" if line.lstrip().startswith(("=", "+", "-", "@")) else line


def as_json(board: Board) -> str:
    """Return the board itself (tables, columns, rows, cells, marks, every seed) and the published tables."""
    tables = [{"label": t.label, **dataclasses.asdict(t)} for t in board.tables]
    return json.dumps({"tables": tables, "retired": len(board.retired), "published": export.values()}, indent=1)
