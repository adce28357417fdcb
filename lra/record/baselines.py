"""Trivial baselines: predictors without a sequence model. What a score has above them is what it shows.

Their records are of kind "floor".

majority class         the most frequent label of train
root operator          ListOps: the most frequent answer per root operator
root operator, digits  ListOps: per root operator, least and greatest digit directly under it
byte n-grams           Text, Retrieval: logistic regression on hashed n-grams of 1 to 4 bytes; of a pair, on shared ones
pixels                 Image, Pathfinder: logistic regression on pixels

Each is fitted on train alone (`lra.record.baseline_models`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lra.paths import results_directory, runs_directory
from lra.provenance.environment import code_state, environment, now
from lra.record.baseline_models import MAJORITY, rules, version_of
from lra.record.files import SCHEMA, at_chance, largest_share, scores, whole_record, write
from tasks.core import Card, Prepared


def floor_id(column: Mapping[str, Any], name: str, version: int) -> str:
    """Return the id of a trivial baseline: its rule and version, and task, variant, version and hash of its data."""
    plain = name.replace(",", "").replace(" ", "_").replace("-", "_") + (f"_{version}" if version > 1 else "")
    return f"{column['task']}-{column['variant']}-{plain}-v{column['task_version']}-{column['data_sha256'][:6]}"


def _column(prepared: Prepared) -> dict[str, Any]:
    """Return the column of a trivial baseline. It has no protocol: it belongs to every protocol on the same data."""
    return {
        "task": prepared.task,
        "variant": prepared.column_variant,
        "task_version": prepared.version,
        "source": prepared.source,
        "data_sha256": prepared.sha256,
        "protocol": None,
        "protocol_version": None,
        "modified": False,
    }


def floor_record(prepared: Prepared, card: Card, name: str) -> dict[str, Any]:
    """Compute a trivial baseline, as a record."""
    train, held_out, classes = prepared.splits["train"], prepared.splits["test"], len(card.classes)
    rule, column = rules(card), _column(prepared)
    test = scores(rule[name](train, held_out, classes), held_out.labels, classes)
    majority = float((rule[MAJORITY](train, held_out, classes) == held_out.labels).mean())
    chance = largest_share(held_out.labels)
    return {
        "schema": SCHEMA,
        "kind": "floor",
        "status": "complete",
        "id": floor_id(column, name, version_of(name)),
        "created": now(),
        "column": column,
        "mixer": {"name": name, "label": name, "options": {}, "sha256": None, "version": version_of(name)},
        "seed": None,
        "test": {**test, "at_chance": at_chance(test["correct"], test["count"], chance)},
        "chance": chance,
        "majority_accuracy": majority,
        "environment": environment(),
        "code": code_state(),
    }


def write_floors(prepared: Prepared, card: Card) -> list[Path]:
    """Compute the trivial baselines of a data set that are neither committed nor among the runs of this machine.

    Returns:
      The paths of all of them, old and new.
    """
    paths = []
    for name in rules(card):
        made = floor_id(_column(prepared), name, version_of(name))
        mine = whole_record(runs_directory() / made)
        there = [p for p in (results_directory() / "floors" / mine.name, mine) if p.exists()]
        if not there and name != MAJORITY:
            print(f"{card.name} {prepared.column_variant}: the trivial baseline '{name}'", file=sys.stderr, flush=True)
        paths.append(there[0] if there else write(mine.parent, floor_record(prepared, card, name)))
    return paths
