"""Records of trivial baselines: predictors without a sequence model, above which a score must be to show anything.

They are fitted on train alone (`lra.record.baseline_models`). In records they have the kind "floor".
"""

from __future__ import annotations

import sys
from pathlib import Path

from lra.paths import results_directory, runs_directory
from lra.record.baseline_models import MAJORITY, rules, version_of
from lra.record.build import build, column_of, largest_share, result_of
from lra.record.files import complete_record_path, write
from lra.record.schema import BaselineColumn, BaselineRecord, Column
from tasks.core import Card, Prepared


def baseline_id(column: Column, name: str, version: int) -> str:
    """Return the id of a trivial baseline: its rule and version, and task, variant, version and hash of its data."""
    plain = name.replace(",", "").replace(" ", "_").replace("-", "_") + (f"_{version}" if version > 1 else "")
    return f"{column.task}-{column.variant}-{plain}-v{column.task_version}-{column.data_sha256[:6]}"


def baseline_record(prepared: Prepared, card: Card, name: str) -> BaselineRecord:
    """Compute a trivial baseline and return its record."""
    train, test, classes = prepared.splits["train"], prepared.splits["test"], len(card.classes)
    rule, column, version = rules(card), _column(prepared), version_of(name)
    return build(
        BaselineRecord,
        baseline_id(column, name, version),
        column,
        {"name": name, "label": name, "options": {}, "sha256": None, "version": version},
        seed=None,
        test=result_of(rule[name](train, test, classes), test.labels, classes),
        chance=largest_share(test.labels),
        majority_accuracy=float((rule[MAJORITY](train, test, classes) == test.labels).mean()),
    )


def write_baselines(prepared: Prepared, card: Card) -> list[Path]:
    """Compute the trivial baselines of a data set that are neither committed nor among the runs of this machine.

    Returns:
      The paths of all of them, old and new.
    """
    paths = []
    for name in rules(card):
        path = complete_record_path(runs_directory() / baseline_id(_column(prepared), name, version_of(name)))
        known = [p for p in (results_directory() / "floors" / path.name, path) if p.exists()]
        if not known and name != MAJORITY:
            print(f"{card.name} {prepared.column_variant}: the trivial baseline '{name}'", file=sys.stderr, flush=True)
        paths.append(known[0] if known else write(path.parent, baseline_record(prepared, card, name)))
    return paths


def _column(prepared: Prepared) -> BaselineColumn:
    return BaselineColumn(**column_of(prepared, None, None, False))
