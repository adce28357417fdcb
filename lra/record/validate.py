"""Validation of records: everything that can be checked without running them again.

A record from elsewhere may be meant to deceive: nothing that it names is imported or opened, and nothing is unpacked
beyond the size that it claims. A PASS requires the labels: without the prepared data of its column, a record that is
consistent is "not verified".
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from rich.table import Table
from rich.text import Text

from lra.errors import RecordError
from lra.paths import ROOT, prepared_directory, results_directory
from lra.plain_table import plain_table
from lra.record.baseline_models import DETERMINISTIC, rules
from lra.record.checks import GroundTruth, check_record
from lra.record.files import MAX_PROBLEMS, load
from lra.record.schema import Record
from lra.typed_json import short_repr
from tasks import load_task
from tasks.core import base_variant
from tasks.errors import DataError
from tasks.prepared import read_prepared

Verdict = Literal["FAIL", "not verified", "PASS"]


@dataclasses.dataclass(frozen=True)
class ValidationReport:
    """The validation of one file.

    Attributes:
      problems: what is wrong; one of them is a FAIL
      unverified: what could not be checked here, or deserves a reviewer's look
    """

    path: Path
    verdict: Verdict
    problems: tuple[str, ...]
    unverified: tuple[str, ...]


def validate(paths: Sequence[Path] = ()) -> list[ValidationReport]:
    """Check records against themselves, their protocols, their labels where available, and the committed records.

    Args:
      paths: files, or directories of records or of runs; none: `results/`

    Raises:
      RecordError: a path does not exist, or there is no record in it. Whatever is wrong in a file is in its report.
    """
    given = list(dict.fromkeys(file.absolute() for path in paths or [results_directory()] for file in _files(path)))
    everything = list(dict.fromkeys([*given, *(f.absolute() for f in _json_in(results_directory()))]))
    loaded = {path: load(path) for path in everything}
    known = {path: record for path, (record, _) in loaded.items() if record is not None}
    by_name: dict[str, list[Path]] = {}
    for path, record in known.items():
        by_name.setdefault(record.file_name, []).append(path)
    lookup, reports = cache(ground_truth), []
    for path in given:
        _, problems = loaded[path]
        unverified: list[str] = []
        if path in known:
            name = known[path].file_name
            if path.name != name:
                problems.append(f"the file is called {short_repr(path.name)}, the record {name}")
            duplicates = [other for other in by_name[name] if other != path and not _is_copy(path, other, known)]
            problems += [f"id: {_place(other)} is a record of the same run" for other in duplicates]
            wrong, unverified = check_record(known[path], lookup, list(known.values()))
            problems += wrong
        if len(problems) > MAX_PROBLEMS:
            problems = [*problems[:MAX_PROBLEMS], f"and {len(problems) - MAX_PROBLEMS:,} more"]
        verdict: Verdict = "FAIL" if problems else "not verified" if unverified else "PASS"
        reports.append(ValidationReport(path, verdict, tuple(problems), tuple(unverified)))
    return reports


def validation_table(reports: Sequence[ValidationReport]) -> Table:
    """Return a row for each file: verdict, path, and why it is not PASS."""
    counts = ", ".join(f"{n} {v}" for v in typing.get_args(Verdict) if (n := sum(r.verdict == v for r in reports)))
    table = plain_table(title=Text(counts), title_justify="left", title_style="bold", padding=(0, 1))
    table.add_column("verdict", min_width=12)
    table.add_column("record", overflow="fold", ratio=1)
    table.add_column("why", overflow="fold", ratio=1)
    for r in reports:
        style = {"PASS": "green", "FAIL": "red"}.get(r.verdict, "yellow")
        table.add_row(Text(r.verdict, style), Text(_place(r.path)), Text("\n".join([*r.problems, *r.unverified])))
    return table


def ground_truth(task: str, variant: str, data_sha256: str) -> GroundTruth | None:
    """Return what the prepared data of this hash say; None if they are not prepared here."""
    card = load_task(task).CARD
    for meta in sorted(prepared_directory().glob(f"{task}-{base_variant(variant)}-*/meta.json")):
        try:
            if json.loads(meta.read_text()).get("sha256") == data_sha256:
                data = read_prepared(meta.parent, card)
                train, test, classes = data.splits["train"], data.splits["test"], len(card.classes)
                deterministic = [(name, rule) for name, rule in rules(card).items() if name in DETERMINISTIC]
                baselines = {name: rule(train, test, classes) for name, rule in deterministic}
                return GroundTruth(data.column_variant, test.labels, train.majority, baselines)
        except (OSError, ValueError, AttributeError, RecursionError, DataError):
            continue  # incomplete, or of another version
    return None


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            raise RecordError(f"{path}: there is no such file; name a record, a directory of records, or nothing")
        return [path]
    runs = [*path.glob("records/*.json"), *path.glob("*/records/*.json")]
    files = sorted(p for p in runs if not p.name.startswith(".")) or _json_in(path)
    if not files:
        raise RecordError(f"{path}: no record in it; name a record, a directory of records, or nothing")
    return files


def _json_in(directory: Path) -> list[Path]:
    return sorted(p for p in directory.rglob("*.json") if not p.name.startswith("."))


def _is_copy(path: Path, other: Path, known: Mapping[Path, Record]) -> bool:
    """Whether one is the record of a run of this machine and the other its copy among the committed ones."""
    committed = [p.is_relative_to(results_directory().absolute()) for p in (path, other)]
    return committed[0] != committed[1] and known[path] == known[other]


def _place(path: Path) -> str:
    text = str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
    return text if text.isprintable() else ascii(text)
