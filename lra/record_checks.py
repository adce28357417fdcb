"""What a record says, against itself, its protocol, its labels and the other records."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lra import config as cfg
from lra import record as rec
from lra.code import sha256_of
from lra.config_file import from_json
from lra.floor_rules import COUNTED, FITTED
from lra.floors import floor_id
from lra.journal import CURVE_POINTS
from lra.leaderboard import changes
from lra.record_shape import Record, told
from lra.run_id import id_hashes, short_hashes
from tasks import load_task


@dataclasses.dataclass(frozen=True)
class Truth:
    """Of prepared data: the labels of test [N], the most frequent one of train, predictions of counted floors [N]."""

    labels: np.ndarray
    common: int
    floors: Mapping[str, np.ndarray]


Lookup = Callable[[str, str, str], Truth | None]  # task, variant, hash of the data


def judge(record: Record, lookup: Lookup, known: Sequence[Record]) -> tuple[list[str], list[str]]:
    """Problems, and what could not be verified."""
    column, code, kind = record["column"], record["code"], record["kind"]
    card = load_task(column["task"]).CARD
    problems, unverified = [*_mixer(record), *_code(record)], []
    sessions = [code, *(session["code"] for session in record.get("later_sessions", []))]
    if any(state["git_commit"] is None or not state["git_clean"] for state in sessions):
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
            problems.append(f"selection.rule is {told(record['selection']['rule'])}, the task says {card.selection}")
    elif record["id"] != (name := floor_id(column, record["mixer"]["name"])):
        problems.append(f"id is not that of this floor, {name}")
    elif record["mixer"]["name"] in FITTED:
        unverified.append("floor: fitted by scikit-learn, and not fitted again here")
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

    mixer, known = record["mixer"], (*COUNTED, *FITTED) if record["kind"] == "floor" else available()
    if mixer["sha256"] is None and mixer["name"] not in known:
        yield f"mixer.name: no mixer {told(mixer['name'])} in this project, and no hash of a file of one's own"
    start = mixer["name"] if mixer["sha256"] is None else f"{mixer['name']}@{mixer['sha256'][:8]}"
    if re.fullmatch(re.escape(start) + r"(\(.*\))?( \[block\])?", mixer["label"]) is None:
        yield f"mixer.label does not begin with {told(start)}"


def _code(record: Record) -> Iterator[str]:
    """The files that computed a run against their hash, and against the mixer. Earlier records do not name them."""
    computing, mixer = record["code"].get("computing"), record["mixer"]
    if computing is None:
        return
    if computing["sha256"] != sha256_of(computing["files"]):
        yield "code.computing.sha256 is not the hash of code.computing.files"
    if record["kind"] == "run" and mixer["sha256"] is None and _file(mixer["name"]) not in computing["files"]:
        yield f"code.computing.files does not name the mixer's file, {_file(mixer['name'])}"


def _file(mixer: str) -> str:
    return f"models/mixers/{mixer}.py"


def _config(record: Record) -> tuple[cfg.RunConfig | None, list[str], list[str]]:
    """Is the configuration that of the record's name, its column and, unless it says otherwise, of its protocol?"""
    said, column, mixer = record["config"], record["column"], record["mixer"]
    try:
        config = from_json({"mixer": mixer["name"], **said})
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
    problems = [f"config.{k} is {told(ours)}, the record says {told(theirs)}" for k, ours, theirs in departing]
    if config.train.steps != record["steps"]["planned"]:
        problems.append(f"steps.planned is {record['steps']['planned']}, config.train.steps {config.train.steps}")
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    if record["config_sha256"] != digest:
        problems.append(f"config_sha256 is not the hash of config, {digest[:8]}")
    code_sha256 = (record["code"].get("computing") or {}).get("sha256")
    name = "-".join([config.run_name, *short_hashes(digest, column["data_sha256"], code_sha256)])
    if record["id"] != name:
        problems.append(f"id is not that of its configuration, data and code, {name}")
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
    best, selection = _best(record)[0], record["selection"]
    chosen = None if status == "diverged" else done if best is None else best
    if (selection.get("best_step"), selection.get("step")) != (best, chosen):
        problems.append(f"selection: by its validation the best step is {best}, the tested one {chosen}")
    return problems


def _best(run: Record) -> tuple[int | None, float | None]:
    """Step and accuracy of the best validation."""
    best = max(run["validation"], key=lambda point: point[2], default=(None, None, None))
    return best[0], best[2]


def _tuning(record: Record) -> Iterator[str]:
    """Was the whole grid tried, and the rate chosen that was best on validation, of equals the smaller?"""
    from lra.tuning import grid, tuning_id

    column, trials = record["column"], sorted(record["trials"], key=lambda t: t["learning_rate"])
    name = tuning_id(column, record["trials"][0]["run"])
    code_sha256 = (record["code"].get("computing") or {}).get("sha256")
    hashes = {tuple(id_hashes(t["run"])[1:]) for t in trials}
    if record["id"] != name or hashes != {tuple(short_hashes("", column["data_sha256"], code_sha256)[1:])}:
        yield f"id is not that of its trials, data and code, {name}"
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
    name = record["mixer"]["name"]
    if record["kind"] == "floor" and name in COUNTED and not np.array_equal(truth.floors.get(name, []), predictions):
        yield "test.predictions are not those of this floor"


def _unpacked(test: Record, name: str, size: int) -> np.ndarray:
    try:
        return rec.unpack(test[name], size)
    except ValueError as error:
        raise ValueError(f"test.{name} does not unpack to {size:,} bytes, as test.count wants") from error
