"""The results of `python -m benchmarks.gpu`: one JSON object per line, on the disk as soon as it is known.

Kinds of lines: `plan` (all cases of a part), `start` and `result` (of a case), `end` (of a part).
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "results.jsonl"
PARTS = {0: "environment", 1: "mixers", 2: "numerics", 3: "bench", 4: "trainer utilisation", 5: "training"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The arguments of a part.

    Attributes:
      output: directory of the results
      mixers: of parts 1 and 2, see `models.mixers`
      seconds: until the part is ended, counted from the start of its process
    """

    part: int
    output: str
    mixers: tuple[str, ...]
    tiny: bool
    seconds: float


def append(output: Path, part: int, kind: str, **fields: Any) -> None:
    """Append a line by a single write, and flush it to the disk. Numbers that are not finite become null."""
    line = json.dumps(_finite({"part": part, "kind": kind, **fields}), allow_nan=False) + "\n"
    descriptor = os.open(output / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(output: Path, part: int) -> list[dict[str, Any]]:
    """Return the lines of a part in the order in which they were written."""
    path = output / NAME
    text = path.read_text("utf-8") if path.exists() else ""
    return [line for line in map(json.loads, text.splitlines()) if line["part"] == part]


def results(output: Path, part: int) -> dict[str, dict[str, Any]]:
    """Return the results of a part by case."""
    return {line["case"]: line for line in read(output, part) if line["kind"] == "result"}


def left(output: Path, part: int) -> tuple[list[str], list[str]]:
    """Return the cases that were started and have no result, and those that were not started.

    The latter are `all cases` where the process of the part ended before it listed them.
    """
    lines = read(output, part)
    planned: list[str] = next((line["cases"] for line in lines if line["kind"] == "plan"), ["all cases"])
    started = {line["case"] for line in lines if line["kind"] == "start"}
    without = [case for case in planned if case not in results(output, part)]
    return [c for c in without if c in started], [c for c in without if c not in started]


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
