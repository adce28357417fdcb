"""Is a record what it says? Whatever can be checked without running it again.

A record that comes from elsewhere may be meant to deceive: nothing that it names is imported or opened, and nothing is
unpacked beyond the size that it claims. PASS wants the labels: where the prepared data of its column is not at hand, a
record that agrees with itself is "not verified".
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
import re
import reprlib
import types
import typing
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from lra import config as cfg
from lra import record as rec
from lra.data import prepared_directory
from lra.floors import MAJORITY, ROOT_OPERATOR, floors
from lra.journal import CURVE_POINTS
from lra.leaderboard import changes
from tasks import load_task
from tasks.core import DataError, read_prepared

MAX_BYTES, MAX_VALUES, MAX_DEPTH, MAX_EXAMPLES, MAX_TOLD = 32 * 2**20, 1_000_000, 12, 10_000_000, 12
PLAIN = re.compile(r"[A-Za-z0-9_@=+-][A-Za-z0-9._@=+-]{0,199}")

Record = Mapping[str, Any]
Kind = tuple[str, Callable[[Any], bool]]  # what a value must be, in words and as a test
Verdict = Literal["FAIL", "not verified", "PASS"]


@dataclasses.dataclass(frozen=True)
class Report:
    """What validation found of one file.

    problems:   what is wrong; one of them is a FAIL
    unverified: what could not be checked here, or is worth a reviewer's look
    """

    path: Path
    verdict: Verdict
    problems: tuple[str, ...]
    unverified: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Truth:
    """Of prepared data: the labels of test [N], the most frequent one of train, the predictions of the floors [N]."""

    labels: np.ndarray
    common: int
    floors: Mapping[str, np.ndarray]


Lookup = Callable[[str, str, str], Truth | None]  # task, variant, hash of the data


def validate(paths: Sequence[Path] = ()) -> list[Report]:
    """Checks records, each against itself, its protocol, its labels where they are at hand, and the committed records.

    Args:
      paths: files, or directories of records or of runs; none: `results/`

    Raises:
      RecordError: a path does not exist, or there is no record in it; whatever is wrong in a file is in its report.
    """
    given = list(dict.fromkeys(file.absolute() for path in paths or [rec.results_directory()] for file in _files(path)))
    everything = list(dict.fromkeys([*given, *(f.absolute() for f in _json_in(rec.results_directory()))]))
    loaded = {path: _load(path) for path in everything}
    known = {path: record for path, (record, problems) in loaded.items() if not problems}
    same: dict[str, list[Path]] = {}
    for path, record in known.items():
        same.setdefault(_name(record), []).append(path)
    lookup, reports = cache(truth_at_hand), []
    for path in given:
        record, problems = loaded[path]
        unverified: list[str] = []
        if not problems:
            if path.name != _name(record):
                problems.append(f"the file is called {_told(path.name)}, the record {_name(record)}")
            twins = [other for other in same[_name(record)] if other != path and not _is_copy(path, other, known)]
            problems += [f"id: {_place(other)} is a record of the same run" for other in twins]
            found, unverified = _judge(record, lookup, list(known.values()))
            problems += found
        if len(problems) > MAX_TOLD:
            problems = [*problems[:MAX_TOLD], f"and {len(problems) - MAX_TOLD:,} more"]
        verdict: Verdict = "FAIL" if problems else "not verified" if unverified else "PASS"
        reports.append(Report(path, verdict, tuple(problems), tuple(unverified)))
    return reports


def validation_table(reports: Sequence[Report]) -> Table:
    """One row a file: verdict, place, and why it is not PASS."""
    counts = ", ".join(f"{n} {v}" for v in typing.get_args(Verdict) if (n := sum(r.verdict == v for r in reports)))
    table = Table(title=Text(counts), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("verdict", min_width=12)
    table.add_column("record", overflow="fold", ratio=1)
    table.add_column("why", overflow="fold", ratio=1)
    for r in reports:
        style = {"PASS": "green", "FAIL": "red"}.get(r.verdict, "yellow")
        table.add_row(Text(r.verdict, style), Text(_place(r.path)), Text("\n".join([*r.problems, *r.unverified])))
    return table


def truth_at_hand(task: str, variant: str, data_sha256: str) -> Truth | None:
    """What prepared data of this hash says, if it lies here already; nothing is prepared for it."""
    card = load_task(task).CARD
    for meta in sorted(prepared_directory().glob(f"{task}-{variant}-*/meta.json")):
        try:
            if json.loads(meta.read_text()).get("sha256") == data_sha256:
                data = read_prepared(meta.parent, card)
                common = np.bincount(data.splits["train"].labels, minlength=len(card.classes)).argmax()
                predicted = {f.name: f.predictions for f in floors(data, card)}
                return Truth(data.splits["test"].labels, int(common), predicted)
        except (OSError, ValueError, AttributeError, DataError):
            continue  # torn, or of another version: as good as none
    return None


# ---- files


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            raise rec.RecordError(f"{path}: there is no such file; name a record, a directory of records, or nothing")
        return [path]
    runs = [*path.glob("records/*.json"), *path.glob("*/records/*.json")]
    found = sorted(p for p in runs if not p.name.startswith(".")) or _json_in(path)
    if not found:
        raise rec.RecordError(f"{path}: no record in it; name a record, a directory of records, or nothing")
    return found


def _json_in(directory: Path) -> list[Path]:
    return sorted(p for p in directory.rglob("*.json") if not p.name.startswith("."))


def _load(path: Path) -> tuple[Any, list[str]]:
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
    if kind == "floor" or (kind == "run" and record.get("status") != "diverged"):
        kinds |= TEST
    return record, _odd_values(record) or _mistaken(record, kinds)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{_told(next(n for n in names if names.count(n) > 1))} stands twice in one object")
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
            names = [k if k.isidentifier() and len(k) < 40 else _told(k) for k in value]
            waiting += [(f"{place}.{k}".strip("."), v, depth + 1) for k, v in zip(names, value.values(), strict=True)]
            problems += [f"{place}: the name {_told(k)} cannot be printed" for k in value if not k.isprintable()]
        elif isinstance(value, list):
            if len(value) > MAX_VALUES - seen:
                break
            waiting += [(f"{place}[{i}]", v, depth + 1) for i, v in enumerate(value)]
        elif isinstance(value, str):
            if not value.isprintable():
                problems.append(f"{place} has characters that cannot be printed")
        elif isinstance(value, int | float) and not -(2**63) < value < 2**63:
            problems.append(f"{place} is {_told(value)}, not a finite number")
    return [f"more than {MAX_VALUES:,} values"]


# ---- the shape of a record


def _mistaken(record: Record, kinds: Mapping[str, Kind]) -> list[str]:
    """Fields that are missing, or are not what they must be."""
    problems = []
    for place, (wanted, holds) in kinds.items():
        value: Any = record
        for name in place.split("."):
            value = value.get(name, _MISSING) if isinstance(value, dict) else _MISSING
        if value is _MISSING:
            problems.append(f"{place} is missing")
        elif not holds(value):
            problems.append(f"{place} is {_told(value)}, not {wanted}")
    return problems


def _whole(low: int) -> Kind:
    return f"a whole number from {low}", lambda v: type(v) is int and v >= low


def _one_of(*names: Any) -> Kind:
    return " or ".join(map(str, names)), lambda v: type(v) in (str, int) and v in names


def _or_none(kind: Kind) -> Kind:
    return f"{kind[0]}, or null", lambda v: v is None or kind[1](v)


def _number(v: Any) -> bool:
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
        and all(_number(p[1]) and _share(p[2]) for p in v)
    )


def _share(v: Any) -> bool:
    return _number(v) and v <= 1


def _square(v: Any) -> bool:
    rows = isinstance(v, list) and v != [] and all(isinstance(row, list) and len(row) == len(v) for row in v)
    return rows and all(type(n) is int and 0 <= n <= MAX_EXAMPLES for row in v for n in row)


def _trials(v: Any) -> bool:
    return isinstance(v, list) and v != [] and all(isinstance(t, dict) and not _mistaken(t, TRIAL) for t in v)


_MISSING = object()
TEXT: Kind = ("a text", lambda v: isinstance(v, str) and v != "")
FLAG: Kind = ("true or false", lambda v: type(v) is bool)
OBJECT: Kind = ("an object", lambda v: isinstance(v, dict))
NUMBER: Kind = ("a number from 0", _number)
SHARE: Kind = ("a number from 0 to 1", _share)
SHA256: Kind = ("a SHA-256", _matches("[0-9a-f]{64}"))
NAME: Kind = (f"a plain name, of {PLAIN.pattern}", _matches(PLAIN.pattern))
POINTS: Kind = ("a list of [step, loss, accuracy] with growing steps", _points)
PROTOCOL = {"column.protocol": _one_of(*cfg.PROTOCOLS), "column.protocol_version": _whole(1), "seed": _whole(0)}
EVERY = {
    "schema": _one_of(rec.SCHEMA),
    "kind": _one_of("run", "floor", "tuning"),
    "status": _one_of("complete", "truncated", "diverged"),
    "id": NAME,
    "created": ("a date with its zone", _date),
    "column.task": _one_of(*cfg.TASKS),
    "column.variant": NAME,
    "column.task_version": _whole(1),
    "column.source": TEXT,
    "column.data_sha256": SHA256,
    "column.modified": FLAG,
    "mixer.name": TEXT,
    "mixer.label": TEXT,
    "mixer.options": OBJECT,
    "mixer.sha256": _or_none(SHA256),
    "test": OBJECT,
    **{f"environment.{k}": TEXT for k in ("python", "jax", "jaxlib", "flax", "optax", "numpy", "backend", "device")},
    **{f"environment.{k}": _whole(1) for k in ("device_count", "cores")},
    "code.sha256": SHA256,
    "code.git_commit": _or_none(("a commit", _matches("[0-9a-f]{40}|[0-9a-f]{64}"))),
    "code.git_clean": _or_none(FLAG),
}
RUN = {
    **PROTOCOL,
    "steps.done": _whole(0),
    "steps.planned": _whole(1),
    "config": OBJECT,
    "config_sha256": SHA256,
    "parameters": _whole(0),
    "selection.rule": TEXT,
    "majority_accuracy": SHARE,
    "validation": POINTS,
    "curve": POINTS,
    "seconds": NUMBER,
    "steps_per_second": _or_none(NUMBER),
    "peak_bytes": _whole(0),
}
TEST = {
    "test.accuracy": SHARE,
    "test.correct": _whole(0),
    "test.count": (f"a whole number from 1 to {MAX_EXAMPLES:,}", lambda v: type(v) is int and 1 <= v <= MAX_EXAMPLES),
    "test.confusion": ("rows of counts", _square),
    "test.predictions": TEXT,
    "test.correct_bits": TEXT,
    "test.at_chance": FLAG,
}
TRIAL = {"learning_rate": NUMBER, "run": NAME, "validation": _or_none(SHARE)}
KINDS = {
    "run": RUN,
    "floor": {"status": _one_of("complete"), "majority_accuracy": SHARE},
    "tuning": {
        **PROTOCOL,
        "status": _one_of("complete"),
        "learning_rate": NUMBER,
        "trials": ("a list of trials", _trials),
    },
}


# ---- what a record says, against itself, its protocol and its labels


def _judge(record: Record, lookup: Lookup, known: Sequence[Record]) -> tuple[list[str], list[str]]:
    """Problems, and what could not be verified."""
    column, code, kind = record["column"], record["code"], record["kind"]
    card = load_task(column["task"]).CARD
    problems, unverified = list(_mixer(record)), []
    if code["git_commit"] is None or not code["git_clean"]:
        unverified.append("code: not a clean commit, so nobody can look up what ran")
    if record["mixer"]["sha256"] is not None:
        unverified.append("mixer: a file of one's own, of which only the hash is here")
    if today := column["task_version"] == card.version:
        if column["variant"] not in card.variants:
            return [f"column.variant: {card.name} has {', '.join(card.variants)}"], unverified
    else:
        unverified.append(f"retired: of task version {column['task_version']}; today's is {card.version}")
    if kind == "tuning":
        wrong, missing = _trials_here(record, known)
        return [*problems, *_tuning(record), *wrong], [*unverified, *missing]
    limit = None
    if kind == "run":
        config, wrong, old = _config(record)
        problems, unverified = problems + wrong + _course(record), unverified + old
        limit = config.limit if config else None
        if today and record["selection"]["rule"] != card.selection:
            problems.append(f"selection.rule is {_told(record['selection']['rule'])}, the task says {card.selection}")
    elif record["id"] != (name := _floor_id(record)):
        problems.append(f"id is not that of this floor, {name}")
    if record["status"] == "diverged":
        return problems, [*unverified, "diverged: it has no test that could be checked"]
    truth = lookup(column["task"], column["variant"], column["data_sha256"]) if today else None
    if truth is None:
        unverified.append(f"test: the labels of data {column['data_sha256'][:8]} are not at hand")
    try:
        problems += _test(record, len(card.classes) if today else len(record["test"]["confusion"]), truth, limit)
    except ValueError as error:
        problems.append(str(error))
    return problems, unverified


def _mixer(record: Record) -> Iterator[str]:
    """The mixer's name is looked for among names of files; nothing is imported for it."""
    from models.mixers import available

    mixer, known = record["mixer"], (MAJORITY, ROOT_OPERATOR) if record["kind"] == "floor" else available()
    if mixer["sha256"] is None and mixer["name"] not in known:
        yield f"mixer.name: no mixer {_told(mixer['name'])} in this project, and no hash of a file of one's own"
    start = mixer["name"] if mixer["sha256"] is None else f"{mixer['name']}@{mixer['sha256'][:8]}"
    if re.fullmatch(re.escape(start) + r"(\(.*\))?( \[block\])?", mixer["label"]) is None:
        yield f"mixer.label does not begin with {_told(start)}"


def _config(record: Record) -> tuple[cfg.RunConfig | None, list[str], list[str]]:
    """Is the configuration that of the record's name, its column and, unless it says otherwise, of its protocol?"""
    said, column, mixer = record["config"], record["column"], record["mixer"]
    try:
        config = cfg.from_json({"mixer": mixer["name"], **said})
        if wrong := _mistyped(config, cfg.RunConfig, "config"):
            return None, wrong, []
        base = cfg.protocol(column["task"], column["protocol"])
        overrides = cfg.differences(config, base)
        names = ("mixer", "mixer_label", "mixer_options", "mixer_sha256", "task_version", "seed", "source", "limit")
        anew = cfg.resolve(base, overrides=overrides, **{name: getattr(config, name) for name in names})
    except cfg.ConfigError as error:
        return None, [f"config: {error}"], []
    same = ("task", "variant", "task_version", "protocol", "protocol_version", "modified")
    wanted: dict[str, Any] = {name: column[name] for name in same} | {"seed": record["seed"]}
    wanted |= {f"mixer_{name}": mixer[name] for name in ("label", "options", "sha256")}
    departing = [(k, getattr(config, k), v) for k, v in wanted.items() if getattr(config, k) != v]
    problems = [f"config.{k} is {_told(ours)}, the record says {_told(theirs)}" for k, ours, theirs in departing]
    if config.limit is not None and config.limit < 1:
        problems.append(f"config.limit is {config.limit}, not null or a whole number from 1")
    if config.train.steps != record["steps"]["planned"]:
        problems.append(f"steps.planned is {record['steps']['planned']}, config.train.steps {config.train.steps}")
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    if record["config_sha256"] != digest:
        problems.append(f"config_sha256 is not the hash of config, {digest[:8]}")
    name = f"{config.run_id('').rsplit('-', 2)[0]}-{digest[:8]}-{column['data_sha256'][:6]}"
    if record["id"] != name:
        problems.append(f"id is not that of its configuration and data, {name}")
    where = f"{column['protocol']}@{column['protocol_version']}"
    if base.version != column["protocol_version"]:
        return config, problems, [f"protocol: {where} is not today's, @{base.version}"]
    if anew.modified != column["modified"]:
        changed = changes({**record, "config": cfg.meaning(config)}) or (f"variant={config.variant}",)
        what = (
            f"it departs from {where} unmarked: {', '.join(changed)}" if anew.modified else f"it is {where} unchanged"
        )
        problems.append(f"column.modified is {str(column['modified']).lower()}, but {what}")
    return config, problems, []


def _mistyped(value: Any, wanted: Any, place: str) -> list[str]:
    """Values of a configuration that are not of the type of their field."""
    origin, inside = typing.get_origin(wanted), typing.get_args(wanted)
    if dataclasses.is_dataclass(wanted):
        hints = typing.get_type_hints(wanted)
        return [told for k, hint in hints.items() for told in _mistyped(getattr(value, k), hint, f"{place}.{k}")]
    if origin in (typing.Union, types.UnionType):
        fits = any(not _mistyped(value, one, place) for one in inside)
    elif origin is Literal:
        fits = type(value) is str and value in inside
    elif origin is tuple:
        fits = isinstance(value, tuple) and not any(_mistyped(v, inside[0], place) for v in value)
    elif wanted is float:
        fits = type(value) in (int, float)
    else:
        fits = isinstance(value, Mapping) if origin else type(value) is wanted
    return [] if fits else [f"{place} is {_told(value)}, not of type {getattr(wanted, '__name__', wanted)}"]


def _course(record: Record) -> list[str]:
    """Steps, curve, validation and selection against one another."""
    done, planned, status = record["steps"]["done"], record["steps"]["planned"], record["status"]
    problems = []
    if done > planned or (status != "diverged" and (done == planned) != (status == "complete")):
        problems.append(f"steps.done: {done} of {planned} is not {status}")
    for name in ("curve", "validation"):
        if record[name] and not 0 < record[name][0][0] <= record[name][-1][0] <= done:
            problems.append(f"{name} has steps outside of 1 to {done}")
    if len(record["curve"]) > CURVE_POINTS:
        problems.append(f"curve has {len(record['curve'])} points, more than {CURVE_POINTS}")
    if not _whole(1)[1](record.get("seeds_together", 1)):
        problems.append("seeds_together is not a whole number from 1")
    best, selection = _best(record)[0], record["selection"]
    chosen = None if status == "diverged" else done if best is None else best
    if (selection.get("best_step"), selection.get("step")) != (best, chosen):
        problems.append(f"selection: by its validation the best step is {best}, the tested one {chosen}")
    return problems


def _best(run: Record) -> tuple[int | None, float | None]:
    """Step and accuracy of the best validation."""
    best = max(run["validation"], key=lambda point: point[2], default=(None, None, None))
    return best[0], best[2]


def _name(record: Record) -> str:
    """The name of a record's file (see `record.write`)."""
    ended = "" if record["status"] == "complete" else f"-{record['status']}-{record['steps']['done']}"
    return f"{record['id']}{ended}.json"


def _is_copy(path: Path, other: Path, known: Mapping[Path, Record]) -> bool:
    """Whether one is the record of a run of this machine and the other its copy among the committed ones."""
    committed = [p.is_relative_to(rec.results_directory().absolute()) for p in (path, other)]
    return committed[0] != committed[1] and known[path] == known[other]


def _floor_id(record: Record) -> str:
    column, name = record["column"], record["mixer"]["name"].replace(" ", "_")
    return f"{column['task']}-{column['variant']}-{name}-v{column['task_version']}-{column['data_sha256'][:6]}"


def _tuning(record: Record) -> Iterator[str]:
    """Was the whole grid tried, and the rate chosen that was best on validation, of equals the smaller?"""
    from lra.tuning import grid

    column, trials = record["column"], sorted(record["trials"], key=lambda t: t["learning_rate"])
    first = record["trials"][0]["run"].split("-")
    name = "-".join([column["task"], column["variant"], column["protocol"], "tuning", *first[-2:]])
    if record["id"] != name or first[-1] != column["data_sha256"][:6]:
        yield f"id is not that of its trials and data, {name}"
    try:
        today = cfg.protocol(column["task"], column["protocol"]).version == column["protocol_version"]
    except cfg.ConfigError as error:
        yield f"column.protocol: {error}"
        return
    rates = [t["learning_rate"] for t in trials]
    if today and rates != sorted(grid(column["task"], column["protocol"])):
        yield f"trials: rates {', '.join(map(str, rates))} are not the grid of the protocol"
    reached = [t for t in trials if t["validation"] is not None]
    if not reached or record["learning_rate"] != max(reached, key=lambda t: t["validation"])["learning_rate"]:
        yield "learning_rate is not that of the best validation"


def _trials_here(record: Record, known: Sequence[Record]) -> tuple[list[str], list[str]]:
    """The trials against the records of their runs."""
    problems, missing = [], []
    runs = {r["id"]: r for r in known if r["kind"] == "run" and r["status"] != "truncated"}
    for trial in record["trials"]:
        run = runs.get(trial["run"])
        if run is None:
            missing.append(f"trials: the record of {trial['run']} is not here")
        elif trial["validation"] != (_best(run)[1] if run["status"] == "complete" else None):
            problems.append(f"trials: the record of {trial['run']} has another validation accuracy")
    return problems, missing


def _test(record: Record, classes: int, truth: Truth | None, limit: int | None) -> Iterator[str]:
    """The parts of a test against one another, and against the labels.

    Raises:
      ValueError: predictions or correct bits do not unpack
    """
    test, count, correct = record["test"], record["test"]["count"], record["test"]["correct"]
    confusion = np.array(test["confusion"], np.int64)
    predictions = _unpacked(test, "predictions", count)
    bits = np.unpackbits(_unpacked(test, "correct_bits", (count + 7) // 8))[:count].astype(bool)
    if len(confusion) != classes:
        yield f"test.confusion has {len(confusion)} classes, the task {classes}"
        return
    if predictions.max() >= classes:
        yield f"test.predictions: there is a class {predictions.max()}; the task has {classes}"
        return
    named, right = (np.bincount(p, minlength=classes) for p in (predictions, predictions[bits]))
    if bits.sum() != correct:
        yield f"test.correct is {correct}, test.correct_bits say {bits.sum()}"
    if not math.isclose(test["accuracy"], correct / count, rel_tol=1e-12):
        yield f"test.accuracy is {test['accuracy']}, {correct} of {count} are {correct / count}"
    if not np.array_equal(confusion.sum(0), named) or not np.array_equal(confusion.diagonal(), right):
        yield "test.confusion is not that of test.predictions and test.correct_bits"
    majority = record["majority_accuracy"]
    if not any(math.isclose(n / count, majority, rel_tol=1e-12) for n in confusion.sum(1).tolist()):
        yield f"majority_accuracy is {majority}, the share of no class in test.confusion"
    if test["at_chance"] != rec.at_chance(correct, count, majority):
        yield f"test.at_chance is not what {correct} of {count} and majority_accuracy give"
    if limit is not None and count > limit:
        yield f"test.count is {count}, config.limit {limit}"
    if truth is None:
        return
    labels = truth.labels[:limit]
    if len(labels) != count:
        yield f"test.count is {count}, the data have {len(labels)} examples"
        return
    if (hits := int((predictions == labels).sum())) != correct or not np.array_equal(predictions == labels, bits):
        yield f"test.correct is {correct} of {count}; by the labels of the task test.predictions have {hits}"
    if not np.array_equal(confusion.sum(1), np.bincount(labels, minlength=classes)):
        yield "test.confusion has other labels than the task"
    if not math.isclose(share := float((labels == truth.common).mean()), majority, rel_tol=1e-12):
        yield f"majority_accuracy is {majority}, by the labels of the task {share}"
    if record["kind"] == "floor" and not np.array_equal(truth.floors.get(record["mixer"]["name"], []), predictions):
        yield "test.predictions are not those of this floor"


def _unpacked(test: Record, name: str, size: int) -> np.ndarray:
    """`record.unpack` that stops at `size` bytes, whatever the text would grow to."""
    try:
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(base64.b64decode(test[name], validate=True), size + 1)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"test.{name} does not unpack: {error}") from error
    if len(raw) != size or not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"test.{name} does not unpack to {size:,} bytes, as test.count wants")
    return np.frombuffer(raw, np.uint8)


# ---- what is told


_told = reprlib.repr  # short, and nothing in it that a terminal would obey


def _place(path: Path) -> str:
    text = str(path.relative_to(rec.ROOT) if path.is_relative_to(rec.ROOT) else path)
    return text if text.isprintable() else ascii(text)
