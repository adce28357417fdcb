"""A leaderboard as CSV and JSON. Texts of records have no control characters and are no formulas."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from typing import Any

from lra.leaderboard.published import export
from lra.leaderboard.text import clean
from lra.leaderboard.types import Board
from lra.paths import ROOT
from lra.record.facts import reported_variant
from lra.record.files import RecordFile
from lra.record.schema import BaselineRecord, RunRecord

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
    for facts in (*map(_facts, board.runs), *map(_facts, board.baselines), *export.lines()):
        writer.writerow({name: _csv(facts.get(name)) for name in CSV_HEAD})
    return text.getvalue().removesuffix("\n")


def _facts(f: RecordFile[RunRecord] | RecordFile[BaselineRecord]) -> dict[str, Any]:
    r, test = f.record, f.record.test
    is_in_project = f.path.is_relative_to(ROOT)
    facts = {**vars(r.column), **vars(r.environment), **vars(r)}
    if test is not None:
        judged = {"at_chance": test.is_at_chance, "one_class": test.predicts_one_class, "chance": test.chance}
        facts |= vars(test) | judged  # judged again: what a record says of chance may follow an earlier rule
    if isinstance(r, RunRecord):
        facts |= {
            "steps_done": r.steps.done,
            "steps_planned": r.steps.planned,
            "selection": r.selection.rule,
            "selected_step": r.selection.step,
            "peak_of_process": r.has_process_memory,
        }
    return facts | {
        "variant": reported_variant(r),  # as in the tables
        "origin": f.origin,
        "file": f.path.relative_to(ROOT).as_posix() if is_in_project else f.path.name,
        "mixer": r.mixer.label,
        "options": json.dumps(r.mixer.options, sort_keys=True),
        "mixer_sha256": r.mixer.sha256,
        "code_sha256": r.code.sha256,
        "computing_sha256": r.code.computing_sha256,
        "git_commit": r.code.git_commit,
        "git_clean": r.code.git_clean,
    }


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
