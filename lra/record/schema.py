"""The file of a record from elsewhere: is it JSON of a bearable size, and is every field there and of its kind?

It may be meant to deceive: nothing that it names is imported or opened.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from lra import config as cfg

SCHEMA = 1
MAX_BYTES, MAX_VALUES, MAX_DEPTH, MAX_EXAMPLES, MAX_TOLD = 32 * 2**20, 1_000_000, 12, 10_000_000, 12
LARGEST = 1e100  # a learning rate may be of any size; what is computed with it must not overflow
PLAIN = re.compile(r"[A-Za-z0-9_@=+-][A-Za-z0-9._@=+-]{0,199}")

Record = Mapping[str, Any]
Kind = tuple[str, Callable[[Any], bool]]  # what a value must be, in words and as a test
told = reprlib.repr  # short, and nothing in it that a terminal would obey


def load(path: Path) -> tuple[Any, list[str]]:
    """The content of a file, and what keeps it from being a record."""
    try:
        if path.is_symlink() or not path.is_file():
            return None, ["not a regular file"]
        if (size := path.stat().st_size) > MAX_BYTES:
            return None, [f"{size:,} bytes; a record has at most {MAX_BYTES:,}"]
        record = json.loads(path.read_text("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        return None, [f"nested deeper than {MAX_DEPTH}"]
    except (OSError, ValueError) as error:
        return None, [f"not readable as JSON: {error}"]
    if not isinstance(record, dict):
        return None, ["not a record: no object"]
    kind = record.get("kind")
    kinds = EVERY | (KINDS.get(kind, {}) if isinstance(kind, str) else {})
    if kind == "floor" or (kind == "run" and (record.get("status") != "diverged" or record.get("test"))):
        kinds |= TEST
    return record, _odd_values(record) or mistaken(record, kinds)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{told(next(n for n in names if names.count(n) > 1))} stands twice in one object")
    return made


def _odd_values(record: Record) -> list[str]:
    """Numbers that are none, texts that a terminal would obey, and content that only wants to be large."""
    problems: list[str] = []
    waiting: list[tuple[str, Any, int]] = [("", record, 0)]
    for seen in range(MAX_VALUES):
        if not waiting or len(problems) > MAX_TOLD:
            return problems
        place, value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            return [f"{place[:80]}: nested deeper than {MAX_DEPTH}"]
        if isinstance(value, dict):
            names = [k if k.isidentifier() and len(k) < 40 else told(k) for k in value]
            waiting += [(f"{place}.{k}".strip("."), v, depth + 1) for k, v in zip(names, value.values(), strict=True)]
            problems += [f"{place}: the name {told(k)} cannot be printed" for k in value if not k.isprintable()]
        elif isinstance(value, list):
            if len(value) > MAX_VALUES - seen:
                break
            waiting += [(f"{place}[{i}]", v, depth + 1) for i, v in enumerate(value)]
        elif isinstance(value, str):
            if not value.isprintable():
                problems.append(f"{place} has characters that cannot be printed")
        elif isinstance(value, int | float):
            most = LARGEST if isinstance(value, float) else 2**63
            if not -most < value < most:
                problems.append(f"{place} is {told(value)}, not a finite number")
    return [f"more than {MAX_VALUES:,} values"]


def mistaken(record: Record, kinds: Mapping[str, Kind]) -> list[str]:
    """Fields that are missing (but those with a question mark), or are not what they must be."""
    problems = []
    for place, (wanted, holds) in kinds.items():
        value: Any = record
        for name in place.removesuffix("?").split("."):
            value = value.get(name, _MISSING) if isinstance(value, dict) else _MISSING
        if value is _MISSING:
            problems += [] if place.endswith("?") else [f"{place} is missing"]
        elif not holds(value):
            problems.append(f"{place.removesuffix('?')} is {told(value)}, not {wanted}")
    return problems


def whole(low: int) -> Kind:
    return f"a whole number from {low}", lambda v: type(v) is int and v >= low


def _one_of(*names: Any) -> Kind:
    return " or ".join(map(str, names)), lambda v: type(v) in (str, int) and v in names


def _or_none(kind: Kind) -> Kind:
    return f"{kind[0]}, or null", lambda v: v is None or kind[1](v)


def number(v: Any) -> bool:
    return type(v) in (int, float) and v >= 0


def _matches(pattern: str) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, str) and re.fullmatch(pattern, v) is not None


def _date(v: Any) -> bool:
    try:
        return datetime.fromisoformat(v).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _points(v: Any) -> bool:
    rows = isinstance(v, list) and all(isinstance(p, list) and len(p) == 3 and type(p[0]) is int for p in v)
    return (
        rows
        and all(a[0] < b[0] for a, b in zip([[0], *v], v, strict=False))
        and all(number(p[1]) and _share(p[2]) for p in v)
    )


def _share(v: Any) -> bool:
    return number(v) and v <= 1


def _square(v: Any) -> bool:
    rows = isinstance(v, list) and v != [] and all(isinstance(row, list) and len(row) == len(v) for row in v)
    return rows and all(type(n) is int and 0 <= n <= MAX_EXAMPLES for row in v for n in row)


def _trials(v: Any) -> bool:
    return isinstance(v, list) and v != [] and all(isinstance(t, dict) and not mistaken(t, TRIAL) for t in v)


def _sessions(v: Any) -> bool:
    return isinstance(v, list) and all(isinstance(s, dict) and not mistaken(s, SESSION) for s in v)


def _computing(v: Any) -> bool:
    files = v.get("files") if isinstance(v, dict) else None
    return isinstance(files, dict) and files != {} and all(map(SHA256[1], [v.get("sha256"), *files.values()]))


_MISSING = object()
STRING: Kind = ("a text, or an empty one", lambda v: isinstance(v, str))
TEXT: Kind = ("a text", lambda v: isinstance(v, str) and v != "")
FLAG: Kind = ("true or false", lambda v: type(v) is bool)
OBJECT: Kind = ("an object", lambda v: isinstance(v, dict))
NUMBER: Kind = ("a number from 0", number)
SHARE: Kind = ("a number from 0 to 1", _share)
SHA256: Kind = ("a SHA-256", _matches("[0-9a-f]{64}"))
NAME: Kind = (f"a plain name, of {PLAIN.pattern}", _matches(PLAIN.pattern))
POINTS: Kind = ("a list of [step, loss, accuracy] with growing steps", _points)
PROTOCOL = {"column.protocol": _one_of(*cfg.PROTOCOLS), "column.protocol_version": whole(1), "seed": whole(0)}
ENVIRONMENT = {
    **{f"environment.{k}": TEXT for k in ("python", "jax", "jaxlib", "flax", "optax", "numpy", "backend", "device")},
    **{f"environment.{k}": whole(1) for k in ("device_count", "cores")},
    "environment.packages?": OBJECT,
    "environment.variables?": OBJECT,
}
CODE = {
    "code.sha256": SHA256,
    "code.git_commit": _or_none(("a commit", _matches("[0-9a-f]{40}|[0-9a-f]{64}"))),
    "code.git_clean": _or_none(FLAG),
}
EVERY = {
    "schema": _one_of(SCHEMA),
    "kind": _one_of("run", "floor", "tuning"),
    "status": _one_of("complete", "truncated", "diverged"),
    "id": NAME,
    "created": ("a date with its zone", _date),
    "column.task": _one_of(*cfg.TASKS),
    "column.variant": NAME,
    "column.task_version": whole(1),
    "column.source": TEXT,
    "column.data_sha256": SHA256,
    "column.modified": FLAG,
    "mixer.name": TEXT,
    "mixer.label": TEXT,
    "mixer.options": OBJECT,
    "mixer.sha256": _or_none(SHA256),
    "mixer.version?": whole(1),  # absent: 1
    "test": OBJECT,
    **ENVIRONMENT,
    **CODE,
    "code.computing?": _or_none(("a SHA-256, and one for each file", _computing)),
}
SESSION = {"step": whole(0), "started": ("a date with its zone", _date), **ENVIRONMENT, **CODE}
RUN = {
    **PROTOCOL,
    "steps.done": whole(0),
    "steps.planned": whole(1),
    "config.variant": NAME,
    "config.model": OBJECT,
    "config.train.batch_size": whole(0),
    "config.train.learning_rate": NUMBER,
    "config_sha256": SHA256,
    "parameters": whole(0),
    "selection.rule": TEXT,
    "selection.step?": _or_none(whole(0)),
    "majority_accuracy": SHARE,
    "chance?": SHARE,
    "validation": POINTS,
    "curve": POINTS,
    "seconds": NUMBER,
    "steps_per_second": _or_none(NUMBER),
    "peak_bytes": _or_none(whole(0)),
    "forward_flops?": _or_none(NUMBER),
    "message?": STRING,
    "seeds_together?": whole(1),
    "later_sessions?": ("a list of sessions", _sessions),
}
TEST = {
    "test.accuracy": SHARE,
    "test.correct": whole(0),
    "test.count": (f"a whole number from 1 to {MAX_EXAMPLES:,}", lambda v: type(v) is int and 1 <= v <= MAX_EXAMPLES),
    "test.confusion": ("rows of counts", _square),
    "test.predictions": TEXT,
    "test.correct_bits": TEXT,
    "test.at_chance": FLAG,
}
TRIAL = {"learning_rate": NUMBER, "run": NAME, "validation": _or_none(SHARE)}
KINDS = {
    "run": RUN,
    "floor": {
        "status": _one_of("complete"),
        "majority_accuracy": SHARE,
        "chance?": SHARE,
        "steps?": OBJECT,
        "selection?": OBJECT,
    },
    "tuning": {
        **PROTOCOL,
        "status": _one_of("complete"),
        "learning_rate": NUMBER,
        "trials": ("a list of trials", _trials),
    },
}
