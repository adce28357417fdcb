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
from lra.config import id_hashes, short_hashes
from lra.config_file import from_json
from lra.errors import ConfigError
from lra.protocols import CURVE_POINTS
from lra.provenance.code import sha256_of
from lra.record import files as rec
from lra.record.baseline_models import COUNTED, FITTED
from lra.record.baseline_models import version_of as rule_version
from lra.record.baselines import floor_id
from lra.record.facts import changes, mixer_version, protocol_of, reported_variant, retired, tuning_id
from lra.record.schema import Record, told
from lra.selection import best_step, first_selectable, selection_rule
from tasks import load_task
from tasks.core import base_variant


@dataclasses.dataclass(frozen=True)
class Truth:
    """What prepared data say of a record.

    variant: under which they are reported
    labels: uint8 [N] of test
    common: the most frequent label of train
    floors: predictions of the counted floors, uint8 [N]
    """

    variant: str
    labels: np.ndarray
    common: int
    floors: Mapping[str, np.ndarray]


Lookup = Callable[[str, str, str], Truth | None]  # task, variant, hash of the data


def judge(record: Record, lookup: Lookup, known: Sequence[Record]) -> tuple[list[str], list[str]]:
    """Return the problems of a record, and what could not be verified."""
    column, code, kind = record["column"], record["code"], record["kind"]
    card = load_task(column["task"]).CARD
    problems, unverified = [*_mixer(record), *_code(record)], []
    sessions = [code, *(session["code"] for session in record.get("later_sessions", []))]
    if any(state["git_commit"] is None or not state["git_clean"] for state in sessions):
        unverified.append("code: not a clean commit, so nobody can look up what ran")
    if record["mixer"]["sha256"] is not None:
        unverified.append("mixer: a file of one's own, of which only the hash is here")
    unverified += [f"retired: {reason}" for reason in retired(record)]
    today = column["task_version"] == card.version
    if today and base_variant(column["variant"]) not in card.variants:
        return [f"column.variant: {card.name} has {', '.join(card.variants)}"], unverified
    if kind == "tuning":
        wrong, missing = _trials_here(record, known)
        return [*problems, *_tuning(record), *wrong], [*unverified, *missing]
    limit = None
    if kind == "run":
        config, wrong = _config(record)
        problems += wrong + _course(record, config)
        limit = config.limit if config else None
        rule = selection_rule(card.selection, config.train) if config else card.selection
        if today and record["selection"]["rule"] != rule:
            problems.append(f"selection.rule is {told(record['selection']['rule'])}, task and protocol say {rule}")
    else:
        name = record["mixer"]["name"]
        if record["id"] != (identity := floor_id(column, name, record["mixer"].get("version", 1))):
            problems.append(f"id is not that of this trivial baseline, {identity}")
        if name in FITTED:
            unverified.append("trivial baseline: fitted by scikit-learn, and not fitted again here")
    if record["status"] == "diverged":
        return problems, [*unverified, "diverged: it has no test that could be checked"]
    truth = lookup(column["task"], column["variant"], column["data_sha256"]) if today else None
    if truth is None:
        unverified.append(f"test: the labels of data {column['data_sha256'][:8]} are not at hand")
    elif truth.variant != (variant := reported_variant(record)):
        problems.append(f"column.variant is {variant}, the data are {truth.variant}")
    try:
        problems += _test(record, len(card.classes) if today else len(record["test"]["confusion"]), truth, limit)
    except ValueError as error:
        problems.append(str(error))
    return problems, unverified


def _mixer(record: Record) -> Iterator[str]:
    """Check the mixer's name, and that its label is that of its name and options.

    Nothing that the record names is imported, except a mixer of the project.
    """
    from models.mixers import available

    mixer, options = record["mixer"], record["mixer"]["options"]
    if record["kind"] == "floor":
        if mixer["name"] not in (*COUNTED, *FITTED):
            yield f"mixer.name: no trivial baseline {told(mixer['name'])} in this project"
        elif mixer["label"] != mixer["name"]:
            yield f"mixer.label is {told(mixer['label'])}, not {told(mixer['name'])}"
        return
    own, known = mixer["sha256"] is not None, mixer["name"] in available()
    if not own and not known:
        yield f"mixer.name: no mixer {told(mixer['name'])} in this project, and no hash of a file of one's own"
    start = f"{mixer['name']}@{mixer['sha256'][:8]}" if own else mixer["name"]
    listed = re.fullmatch(re.escape(start) + r"(?:\((.*)\))?( \[block\])?", mixer["label"], re.DOTALL)
    if listed is None:
        yield f"mixer.label does not begin with {told(start)}"
    elif own:
        if sorted((listed[1] or "").split(", ")) not in [_listed(options), _listed(_with_tuples(options))]:
            yield f"mixer.label is {told(mixer['label'])}, which does not list mixer.options"
    elif known and mixer.get("version", 1) == mixer_version(mixer["name"]):
        yield from _label(mixer)


def _code(record: Record) -> Iterator[str]:
    """Check the files that computed a run against their hash and the mixer. Earlier records do not name them."""
    computing, mixer = record["code"].get("computing"), record["mixer"]
    if computing is None:
        return
    if computing["sha256"] != sha256_of(computing["files"]):
        yield "code.computing.sha256 is not the hash of code.computing.files"
    if record["kind"] == "run" and mixer["sha256"] is None and _file(mixer["name"]) not in computing["files"]:
        yield f"code.computing.files does not name the mixer's file, {_file(mixer['name'])}"


def _file(mixer: str) -> str:
    return f"models/mixers/{mixer}.py"


def _label(mixer: Mapping[str, Any]) -> Iterator[str]:
    """Check the label of a mixer of the project, whose constructor says which options are defaults."""
    from models import mixers

    try:
        wanted = mixers.label(mixer["name"], _with_tuples(mixer["options"]))
    except ValueError as error:
        yield f"mixer.options: {str(error)[:200]}"
        return
    if mixer["label"] != wanted:
        yield f"mixer.label is {told(mixer['label'])}, by mixer.options {told(wanted)}"


def _listed(options: Mapping[str, Any]) -> list[str]:
    """Return the parts of a label's list of options, sorted: options may be given in another order than it has."""
    return sorted(", ".join(f"{name}={value}" for name, value in options.items()).split(", "))


def _with_tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as they were before they were JSON, which has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def _config(record: Record) -> tuple[cfg.RunConfig | None, list[str]]:
    """Check that the configuration is that of the record's name and column, and of its protocol unless `modified`."""
    stated, column, mixer = record["config"], record["column"], record["mixer"]
    try:
        config = from_json({"mixer": mixer["name"], **stated})
        base = protocol_of(record)
        overrides = cfg.differences(config, base)
        names = ("mixer", "mixer_label", "mixer_options", "mixer_sha256", "task_version", "seed", "source", "limit")
        resolved = cfg.resolve(base, overrides=overrides, **{name: getattr(config, name) for name in names})
    except ConfigError as error:
        return None, [f"config: {error}"]
    same = ("task", "task_version", "protocol", "protocol_version", "modified")
    wanted: dict[str, Any] = {name: column[name] for name in same}
    wanted |= {"seed": record["seed"], "variant": base_variant(column["variant"])}
    wanted |= {f"mixer_{name}": mixer[name] for name in ("label", "options", "sha256")}
    departing = [(k, getattr(config, k), v) for k, v in wanted.items() if getattr(config, k) != v]
    problems = [f"config.{k} is {told(ours)}, the record says {told(theirs)}" for k, ours, theirs in departing]
    if config.train.steps != record["steps"]["planned"]:
        problems.append(f"steps.planned is {record['steps']['planned']}, config.train.steps {config.train.steps}")
    digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
    if record["config_sha256"] != digest:
        problems.append(f"config_sha256 is not the hash of config, {digest[:8]}")
    code_sha256 = (record["code"].get("computing") or {}).get("sha256")
    run_name = config.run_name(column["variant"])
    name = "-".join([run_name, *short_hashes(digest, column["data_sha256"], code_sha256)])
    if record["id"] != name:
        problems.append(f"id is not that of its configuration, data and code, {name}")
    if base.version == column["protocol_version"] and resolved.modified != column["modified"]:
        where = f"{column['protocol']}@{column['protocol_version']}"
        changed = changes({**record, "config": cfg.hashed_fields(config)}) or (f"variant={config.variant}",)
        what = f"departs from {where}: {', '.join(changed)}" if resolved.modified else f"is {where} unchanged"
        problems.append(f"column.modified is {str(column['modified']).lower()}, but the run {what}")
    return config, problems


def _course(record: Record, config: cfg.RunConfig | None) -> list[str]:
    """Compare steps, curve, validation and selection with one another."""
    done, planned, status = record["steps"]["done"], record["steps"]["planned"], record["status"]
    problems = []
    if done > planned or (status != "diverged" and (done == planned) != (status == "complete")):
        problems.append(f"steps.done: {done} of {planned} is not {status}")
    for name in ("curve", "validation"):
        if record[name] and not 0 < record[name][0][0] <= record[name][-1][0] <= done:
            problems.append(f"{name} has steps outside of 1 to {done}")
    if len(record["curve"]) > CURVE_POINTS:
        problems.append(f"curve has {len(record['curve'])} points, more than {CURVE_POINTS}")
    selection = record["selection"]
    first = first_selectable(selection["rule"], config.train) if config else 1
    best = best_step(record["validation"], first)
    chosen = None if status == "diverged" else done if best is None else best
    if (selection.get("best_step"), selection.get("step")) != (best, chosen):
        problems.append(f"selection: by its validation the best step is {best}, the tested one {chosen}")
    return problems


def _best_accuracy(run: Record) -> float | None:
    """Return the accuracy of the best validation."""
    return max((accuracy for _, _, accuracy in run["validation"]), default=None)


def _tuning(record: Record) -> Iterator[str]:
    """Was the whole grid tried, and the rate chosen that was best on validation, of equals the smaller?"""
    from lra.protocols import tuning_grid

    column, trials = record["column"], sorted(record["trials"], key=lambda t: t["learning_rate"])
    name = tuning_id(column, record["trials"][0]["run"])
    code_sha256 = (record["code"].get("computing") or {}).get("sha256")
    hashes = {tuple(id_hashes(t["run"])[1:]) for t in trials}
    if record["id"] != name or hashes != {tuple(short_hashes("", column["data_sha256"], code_sha256)[1:])}:
        yield f"id is not that of its trials, data and code, {name}"
    base, rates = protocol_of(record), [t["learning_rate"] for t in trials]
    if base.version == column["protocol_version"] and rates != sorted(tuning_grid(base)):
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
        elif trial["validation"] != (_best_accuracy(run) if run["status"] == "complete" else None):
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
    shares = [n / count for n in confusion.sum(1).tolist()]
    majority, chance = record["majority_accuracy"], record.get("chance")
    if not any(math.isclose(share, majority, rel_tol=1e-12) for share in shares):
        yield f"majority_accuracy is {majority}, the share of no class in test.confusion"
    if chance is not None and not math.isclose(chance, max(shares), rel_tol=1e-12):
        yield f"chance is {chance}, the largest class of test.confusion has a share of {max(shares)}"
    threshold = majority if chance is None else chance  # records without `chance` were judged by majority_accuracy
    if test["at_chance"] != rec.at_chance(correct, count, threshold):
        yield f"test.at_chance is not what {correct} of {count} and a chance of {threshold} give"
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
    name, counted = record["mixer"]["name"], record["kind"] == "floor" and record["mixer"]["name"] in COUNTED
    today = record["mixer"].get("version", 1) == rule_version(name) if counted else False
    if today and not np.array_equal(truth.floors.get(name, []), predictions):
        yield "test.predictions are not those of this trivial baseline"


def _unpacked(test: Record, name: str, size: int) -> np.ndarray:
    try:
        return rec.unpack(test[name], size)
    except ValueError as error:
        raise ValueError(f"test.{name} does not unpack to {size:,} bytes, as test.count wants") from error
