"""Result records: what a run leaves behind, as one JSON file.

`runs/` holds what this machine did, `results/` committed records of runs that really happened. A record is written
as a whole and never overwritten; nothing that it names is ever imported to read it.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lra.errors import RecordError
from lra.paths import results_directory, runs_directory
from lra.record.schema import MAX_TOLD, load
from lra.record.schema import SCHEMA as SCHEMA

Origin = Literal["yours", "committed"]


def pack(values: np.ndarray) -> str:
    """uint8 values as text: zlib, base 64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values, np.uint8).tobytes(), 9)).decode()


def unpack(text: str, size: int) -> np.ndarray:
    """The inverse of `pack` for so many values. It stops there, whatever the text would grow to.

    Raises:
      ValueError: the text is none of `pack`, or of another number of values.
    """
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(base64.b64decode(text, validate=True), size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(raw) != size or not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"not {size:,} bytes")
    return np.frombuffer(raw, np.uint8)


def scores(predictions: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, Any]:
    """What a record says of a test: accuracy with counts, confusion (rows: true class), predictions, correct bits."""
    correct = predictions == labels
    confusion = np.bincount(labels.astype(int) * classes + predictions, minlength=classes * classes)
    return {
        "accuracy": float(correct.mean()),
        "correct": int(correct.sum()),
        "count": len(labels),
        "confusion": confusion.reshape(classes, classes).tolist(),
        "predictions": pack(predictions),
        "correct_bits": pack(np.packbits(correct)),
    }


def largest_share(labels: np.ndarray) -> float:
    """Return the share of the largest class of labels [N]: the accuracy of the best constant prediction."""
    return float(np.bincount(labels).max() / len(labels))


def at_chance(correct: int, count: int, chance: float) -> bool:
    """Return whether an accuracy is at most two standard errors above chance.

    Args:
      chance: share of the largest class of the test labels
    """
    return correct / count <= chance + 2 * math.sqrt(chance * (1 - chance) / count)


def chance(test: Mapping[str, Any]) -> float:
    """Return the share of the largest class of a record's test labels, by its confusion matrix."""
    sizes = [sum(row) for row in test["confusion"]]
    return max(sizes) / max(1, sum(sizes))


def is_at_chance(test: Mapping[str, Any]) -> bool:
    """Return whether the accuracy of a record's test is at chance, whatever the record says."""
    return at_chance(test["correct"], test["count"], chance(test))


def predicts_one_class(test: Mapping[str, Any]) -> bool:
    """Return whether all predictions of a record's test are of the same class, by its confusion matrix."""
    return sum(any(column) for column in zip(*test["confusion"], strict=True)) == 1


def has_process_memory(record: Mapping[str, Any]) -> bool:
    """Return whether `peak_bytes` is the resident memory of the whole process, as in earlier records from CPUs."""
    return record["environment"]["backend"] == "cpu" and "chance" not in record


def file_name(record: Mapping[str, Any]) -> str:
    """The name of a record's file. One that is not complete has its status and step in it."""
    ended = "" if record["status"] == "complete" else f"-{record['status']}-{record['steps']['done']}"
    return f"{record['id']}{ended}.json"


def whole_record(run: Path) -> Path:
    """Where the record of a complete run lies, or will lie, in the run's directory."""
    return run / "records" / f"{run.name}.json"


def write(directory: Path, record: dict[str, Any]) -> Path:
    """Writes a record under a name of its own, as a whole or not at all.

    A truncated record carries its step in its name: it never stands in the way of its own completion.

    Raises:
      FileExistsError: this record exists already.
      ValueError: a number in it is not finite; JSON has none of those.
    """
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    target = directory / file_name(record)
    directory.mkdir(parents=True, exist_ok=True)
    scratch = directory / f".{target.stem}.{os.getpid()}.partial"
    scratch.write_text(text)
    try:
        os.link(scratch, target)  # unlike a rename, refuses to replace
    finally:
        scratch.unlink()
    return target


def read(path: Path) -> dict[str, Any]:
    """Reads a record, which may come from elsewhere: all that others here ask of it is there, and of its kind.

    Raises:
      RecordError: it is not JSON, or not a record of this schema.
    """
    record, problems = load(path)
    if problems:
        raise RecordError(f"{path}: not a record: {'; '.join(problems[:MAX_TOLD])}")
    return record


@dataclasses.dataclass(frozen=True)
class Found:
    """A record and where it was found.

    trials: learning rates that were tried before this run's was chosen on validation
    """

    record: dict[str, Any]
    origin: Origin
    path: Path
    trials: int = 0


def find(directories: Iterable[tuple[Path, Origin]] | None = None) -> list[Found]:
    """All records of `runs/` and `results/`; a truncated record is left out where its run has come further.

    Raises:
      RecordError: a file in a place of records is none.
    """
    if directories is None:
        directories = [(results_directory(), "committed"), (runs_directory(), "yours")]
    found: list[Found] = []
    for directory, origin in directories:
        paths = (
            sorted(directory.rglob("*.json")) if origin == "committed" else sorted(directory.glob("*/records/*.json"))
        )
        here = [Found(read(path), origin, path) for path in paths if not path.name.startswith(".")]
        furthest: dict[str, int] = {}
        for f in here:
            furthest[f.record["id"]] = max(furthest.get(f.record["id"], 0), _progress(f.record))
        found += [f for f in here if _progress(f.record) == furthest[f.record["id"]]]
    return found


def _progress(record: dict[str, Any]) -> int:
    return record["steps"]["done"] if record["kind"] == "run" else 0
