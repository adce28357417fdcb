"""Floors: what a column gives without any sequence model. A score means what it has above them.

majority class   the most frequent label of train
root operator    ListOps: the most frequent answer per root operator, fitted on train
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from lra.environment import code_state, environment
from lra.record import SCHEMA, at_chance, now, runs_directory, scores, write
from tasks.core import Card, Prepared, Split

MAJORITY, ROOT_OPERATOR = "majority class", "root operator"


@dataclasses.dataclass(frozen=True)
class Floor:
    """A prediction that reads next to nothing of the input.

    predictions: uint8 [N], one class for each example of test
    accuracy:    of these predictions, 0 to 1
    """

    name: str
    predictions: np.ndarray
    accuracy: float


def majority_class(train: Split, test: Split, classes: int) -> np.ndarray:
    """The most frequent label of train (the smallest of several) for every example of test, uint8 [N]."""
    return np.full(len(test), np.bincount(train.labels, minlength=classes).argmax(), np.uint8)


def root_operator(train: Split, test: Split, classes: int) -> np.ndarray:
    """The most frequent answer in train for the first byte of an example, uint8 [N].

    In ListOps that byte is the root operator. A first byte that train does not have gets the majority class.
    """
    counts = np.bincount(_first_byte(train).astype(int) * classes + train.labels, minlength=256 * classes)
    counts = counts.reshape(256, classes)  # [byte, class]
    table = np.where(counts.any(1), counts.argmax(1), counts.sum(0).argmax())
    return table[_first_byte(test)].astype(np.uint8)


def _first_byte(split: Split) -> np.ndarray:
    return split.data[split.offsets[split.items]]  # no document is empty


def floors(prepared: Prepared, card: Card) -> list[Floor]:
    """The floors of a prepared data set: the majority class, and for ListOps the root operator."""
    train, test = prepared.splits["train"], prepared.splits["test"]
    rules = {MAJORITY: majority_class}
    if card.name == "listops":
        rules[ROOT_OPERATOR] = root_operator
    predicted = {name: rule(train, test, len(card.classes)) for name, rule in rules.items()}
    return [Floor(name, p, float((p == test.labels).mean())) for name, p in predicted.items()]


def floor_records(prepared: Prepared, card: Card) -> list[dict[str, Any]]:
    """The floors as records. Their column has no protocol: a floor is beside every protocol on the same data."""
    labels, classes = prepared.splits["test"].labels, len(card.classes)
    found = floors(prepared, card)
    majority = next(f.accuracy for f in found if f.name == MAJORITY)
    records = []
    for floor in found:
        test = scores(floor.predictions, labels, classes)
        name = floor.name.replace(" ", "_")
        records.append(
            {
                "schema": SCHEMA,
                "kind": "floor",
                "status": "complete",
                "id": f"{card.name}-{prepared.variant}-{name}-v{prepared.version}-{prepared.sha256[:6]}",
                "created": now(),
                "column": {
                    "task": card.name,
                    "variant": prepared.variant,
                    "task_version": prepared.version,
                    "source": prepared.source,
                    "data_sha256": prepared.sha256,
                    "protocol": None,
                    "protocol_version": None,
                    "modified": False,
                },
                "mixer": {"name": floor.name, "label": floor.name, "options": {}, "sha256": None},
                "seed": None,
                "test": {**test, "at_chance": at_chance(test["correct"], test["count"], majority)},
                "majority_accuracy": majority,
                "environment": environment(),
                "code": code_state(),
            }
        )
    return records


def write_floors(prepared: Prepared, card: Card, directory: Path | None = None) -> list[Path]:
    """Writes the floor records of a data set that are not there yet.

    Args:
      directory: where they go; None: each beside the runs of this machine, where the board finds it

    Returns:
      the paths of all of them, old and new
    """
    paths = []
    for record in floor_records(prepared, card):
        place = directory or runs_directory() / record["id"] / "records"
        path = place / f"{record['id']}.json"
        paths.append(path if path.exists() else write(place, record))
    return paths
