"""Checks of a record against itself, its protocol, the labels of its data and the other records."""

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
from lra.config import RunConfig, id_hashes, short_hashes
from lra.errors import ConfigError
from lra.protocols import CURVE_POINTS, tuning_grid
from lra.provenance.code import sha256_of
from lra.record.baseline_models import DETERMINISTIC, FITTED
from lra.record.baseline_models import version_of as rule_version
from lra.record.baselines import baseline_id
from lra.record.facts import changed_settings, mixer_version, protocol_of, reported_variant, retired, tuning_id
from lra.record.files import unpack
from lra.record.schema import BaselineRecord, Record, Result, RunRecord, TuningRecord, at_chance
from lra.selection import best_step, first_selectable, selection_rule
from lra.typed_json import short_repr
from tasks import load_task
from tasks.core import base_variant


@dataclasses.dataclass(frozen=True)
class GroundTruth:
    """What prepared data say of a record.

    Attributes:
      variant: under which they are reported
      labels: uint8 [N] of test
      most_frequent: label of train
      baselines: predictions of the deterministic baselines, uint8 [N]
    """

    variant: str
    labels: np.ndarray
    most_frequent: int
    baselines: Mapping[str, np.ndarray]


Lookup = Callable[[str, str, str], GroundTruth | None]  # task, variant, hash of the data


def check_record(record: Record, lookup: Lookup, known: Sequence[Record]) -> tuple[list[str], list[str]]:
    """Return the problems of a record, and what could not be verified."""
    column, mixer = record.column, record.mixer
    card = load_task(column.task).CARD
    problems, unverified = [*_mixer(record), *_code(record)], []
    if not ran_from_a_commit(record):
        unverified.append("code: not a clean commit, so nobody can look up what ran")
    if mixer.sha256 is not None:
        unverified.append("mixer: from a file of its author; the record has only its hash")
    unverified += [f"retired: {reason}" for reason in retired(record)]
    current = column.task_version == card.version and base_variant(column.variant) not in card.former_variants
    if current and base_variant(column.variant) not in card.variants:
        return [f"column.variant: {card.name} has {', '.join(card.variants)}"], unverified
    limit = None
    if isinstance(record, TuningRecord):
        wrong, missing = _trials(record, known)
        return [*problems, *_tuning(record), *wrong], [*unverified, *missing]
    if isinstance(record, RunRecord):
        config, wrong = _config(record)
        problems += wrong + _course(record, config)
        limit = config.limit if config else None
        rule = selection_rule(card.selection, config.train) if config else card.selection
        if current and record.selection.rule != rule:
            problems.append(f"selection.rule is {short_repr(record.selection.rule)}, task and protocol say {rule}")
    else:
        if record.id != (identity := baseline_id(column, mixer.name, mixer.version)):
            problems.append(f"id is not that of this trivial baseline, {identity}")
        if mixer.name in FITTED:
            unverified.append("trivial baseline: fitted by scikit-learn, which validation does not repeat")
    if record.test is None or record.status == "diverged":
        return problems, [*unverified, "diverged: it has no test that could be checked"]
    truth = lookup(column.task, column.variant, column.data_sha256) if current else None
    if truth is None:
        unverified.append(f"test: the labels of data {column.data_sha256[:8]} are not available")
    elif truth.variant != (variant := reported_variant(record)):
        problems.append(f"column.variant is {variant}, the data are {truth.variant}")
    try:
        classes = len(card.classes) if current else len(record.test.confusion)
        problems += _test(record, record.test, classes, truth, limit)
    except ValueError as error:
        problems.append(str(error))
    return problems, unverified


def ran_from_a_commit(record: Record) -> bool:
    """Return whether every session of a run was computed by the code of a git commit, without changes to it."""
    sessions = record.later_sessions if isinstance(record, RunRecord) else []
    return all(code.git_commit and code.git_clean for code in (record.code, *(session.code for session in sessions)))


def _mixer(record: Record) -> Iterator[str]:
    """Check the mixer's name, and that its label is that of its name and options.

    Nothing that the record names is imported, except a mixer of the project.
    """
    from models import mixers

    mixer = record.mixer
    if isinstance(record, BaselineRecord):
        if mixer.name not in (*DETERMINISTIC, *FITTED):
            yield f"mixer.name: no trivial baseline {short_repr(mixer.name)} in this project"
        elif mixer.label != mixer.name:
            yield f"mixer.label is {short_repr(mixer.label)}, not {short_repr(mixer.name)}"
        return
    known = mixer.name in mixers.available()
    if mixer.sha256 is None and not known:
        yield f"mixer.name: no mixer {short_repr(mixer.name)} in this project, and no hash of a file of its author"
    start = mixer.name if mixer.sha256 is None else f"{mixer.name}@{mixer.sha256[:8]}"
    options = _with_tuples(mixer.options)
    listed = re.fullmatch(re.escape(start) + r"(?:\((.*)\))?( \[block\])?", mixer.label, re.DOTALL)
    if listed is None:
        yield f"mixer.label does not begin with {short_repr(start)}"
    elif mixer.sha256 is not None:
        if sorted((listed[1] or "").split(", ")) not in [_listed(mixer.options), _listed(options)]:
            yield f"mixer.label is {short_repr(mixer.label)}, which does not list mixer.options"
    elif known and mixer.version == mixer_version(mixer.name):
        try:  # its constructor says which options are defaults
            wanted = mixers.label(mixer.name, options)
        except ValueError as error:
            yield f"mixer.options: {str(error)[:200]}"
            return
        if mixer.label != wanted:
            yield f"mixer.label is {short_repr(mixer.label)}, by mixer.options {short_repr(wanted)}"


def _listed(options: Mapping[str, Any]) -> list[str]:
    """Return the parts of a label's list of options, sorted: options may be given in another order than it has."""
    return sorted(", ".join(f"{name}={value}" for name, value in options.items()).split(", "))


def _with_tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as they were before they were JSON, which has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def _code(record: Record) -> Iterator[str]:
    """Check the files that computed a run against their hash and the mixer. Earlier records do not name them."""
    computing, file = record.code.computing, f"models/mixers/{record.mixer.name}.py"
    if computing is None:
        return
    if computing.sha256 != sha256_of(computing.files):
        yield "code.computing.sha256 is not the hash of code.computing.files"
    if isinstance(record, RunRecord) and record.mixer.sha256 is None and file not in computing.files:
        yield f"code.computing.files does not name the mixer's file, {file}"


def _config(record: RunRecord) -> tuple[RunConfig | None, list[str]]:
    """Check that the configuration is that of the record's name and column, and of its protocol unless `modified`."""
    stated, column, mixer = record.config.as_json(), record.column, record.mixer
    try:
        config = RunConfig.from_text(json.dumps({"mixer": mixer.name, **stated}))
        base = protocol_of(record)
        overrides = cfg.differences(config, base)
        names = ("mixer", "mixer_label", "mixer_options", "mixer_sha256", "task_version", "seed", "source", "limit")
        resolved = cfg.resolve(base, overrides=overrides, **{name: getattr(config, name) for name in names})
    except ConfigError as error:
        return None, [f"config: {error}"]
    same = ("task", "task_version", "protocol", "protocol_version", "modified")
    wanted: dict[str, Any] = {name: getattr(column, name) for name in same}
    wanted |= {"seed": record.seed, "variant": base_variant(column.variant)}
    wanted |= {f"mixer_{name}": getattr(mixer, name) for name in ("label", "options", "sha256")}
    if base.version == column.protocol_version:
        wanted["recipe"] = base.recipe
    different = [(name, getattr(config, name), value) for name, value in wanted.items()]
    problems = [
        f"config.{name} is {short_repr(value)}, the record says {short_repr(other)}"
        for name, value, other in different
        if value != other
    ]
    if config.train.steps != record.steps.planned:
        problems.append(f"steps.planned is {record.steps.planned}, config.train.steps {config.train.steps}")
    digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
    if record.config_sha256 != digest:
        problems.append(f"config_sha256 is not the hash of config, {digest[:8]}")
    hashes = short_hashes(digest, column.data_sha256, record.code.computing_sha256)
    if record.id != (name := "-".join([config.run_name(column.variant), *hashes])):
        problems.append(f"id is not that of its configuration, data and code, {name}")
    if base.version == column.protocol_version and resolved.modified != column.modified:
        protocol = f"{column.protocol}@{column.protocol_version}"
        limited = [f"limit={config.limit}"] if config.limit is not None else []
        changed = [*limited, *changed_settings(cfg.hashed_fields(config), cfg.hashed_fields(base))]
        departure = ", ".join(changed or [f"variant={config.variant}"])
        what = f"departs from {protocol}: {departure}" if resolved.modified else f"is {protocol} unchanged"
        problems.append(f"column.modified is {str(column.modified).lower()}, but the run {what}")
    return config, problems


def _course(record: RunRecord, config: RunConfig | None) -> list[str]:
    """Compare steps, curve, validation and selection with one another."""
    done, planned, status = record.steps.done, record.steps.planned, record.status
    problems = []
    if done > planned or (status != "diverged" and (done == planned) != (status == "complete")):
        problems.append(f"steps.done: {done} of {planned} is not {status}")
    for name, points in (("curve", record.curve), ("validation", record.validation)):
        if points and not 0 < points[0][0] <= points[-1][0] <= done:
            problems.append(f"{name} has steps outside of 1 to {done}")
    if len(record.curve) > CURVE_POINTS:
        problems.append(f"curve has {len(record.curve)} points, more than {CURVE_POINTS}")
    selection = record.selection
    best = best_step(record.validation, first_selectable(selection.rule, config.train) if config else 1)
    chosen = None if status == "diverged" else done if best is None else best
    if (selection.best_step, selection.step) != (best, chosen):
        problems.append(f"selection: by its validation the best step is {best}, the tested one {chosen}")
    return problems


def _tuning(record: TuningRecord) -> Iterator[str]:
    """Check that the whole grid was tried, and that the rate that was best on validation (the smallest) was chosen."""
    column, trials = record.column, sorted(record.trials, key=lambda t: t.learning_rate)
    name = tuning_id(column, record.trials[0].run)
    hashes = {tuple(id_hashes(t.run)[1:]) for t in trials}
    if record.id != name or hashes != {tuple(short_hashes("", column.data_sha256, record.code.computing_sha256)[1:])}:
        yield f"id is not that of its trials, data and code, {name}"
    base, rates = protocol_of(record), [t.learning_rate for t in trials]
    if base.version == column.protocol_version and rates != sorted(tuning_grid(base)):
        yield f"trials: rates {', '.join(map(str, rates))} are not the grid of the protocol"
    reached = [(t.validation, t.learning_rate) for t in trials if t.validation is not None]
    if not reached or record.learning_rate != max(reached, key=lambda pair: pair[0])[1]:
        yield "learning_rate is not that of the best validation"


def _trials(record: TuningRecord, known: Sequence[Record]) -> tuple[list[str], list[str]]:
    """Compare the trials with the records of their runs; return problems, and which records are missing."""
    problems, missing = [], []
    runs = {r.id: r for r in known if isinstance(r, RunRecord) and r.status != "truncated"}
    for trial in record.trials:
        run = runs.get(trial.run)
        if run is None:
            missing.append(f"trials: there is no record of {trial.run}")
        elif trial.validation != run.best_accuracy:
            problems.append(f"trials: the record of {trial.run} has another validation accuracy")
    return problems, missing


def _test(
    record: RunRecord | BaselineRecord, test: Result, classes: int, truth: GroundTruth | None, limit: int | None
) -> Iterator[str]:
    """Compare the parts of a test with one another, and with the labels.

    Raises:
      ValueError: predictions or correct bits do not unpack
    """
    count, correct, mixer = test.count, test.correct, record.mixer
    confusion = np.array(test.confusion, np.int64)
    predictions = _unpacked(test, "predictions", count)
    bits = np.unpackbits(_unpacked(test, "correct_bits", (count + 7) // 8))[:count].astype(bool)
    if len(confusion) != classes:
        yield f"test.confusion has {len(confusion)} classes, the task {classes}"
        return
    if predictions.max() >= classes:
        yield f"test.predictions: there is a class {predictions.max()}; the task has {classes}"
        return
    predicted, right = (np.bincount(p, minlength=classes) for p in (predictions, predictions[bits]))
    if bits.sum() != correct:
        yield f"test.correct is {correct}, test.correct_bits say {bits.sum()}"
    if not math.isclose(test.accuracy, correct / count, rel_tol=1e-12):
        yield f"test.accuracy is {test.accuracy}, {correct} of {count} are {correct / count}"
    if not np.array_equal(confusion.sum(0), predicted) or not np.array_equal(confusion.diagonal(), right):
        yield "test.confusion is not that of test.predictions and test.correct_bits"
    shares = [n / count for n in confusion.sum(1).tolist()]
    majority, chance = record.majority_accuracy, record.chance
    if not any(math.isclose(share, majority, rel_tol=1e-12) for share in shares):
        yield f"majority_accuracy is {majority}, the share of no class in test.confusion"
    if chance is not None and not math.isclose(chance, max(shares), rel_tol=1e-12):
        yield f"chance is {chance}, the largest class of test.confusion has a share of {max(shares)}"
    threshold = majority if chance is None else chance  # records without `chance` were judged by majority_accuracy
    if test.at_chance != at_chance(correct, count, threshold):
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
    if not math.isclose(share := float((labels == truth.most_frequent).mean()), majority, rel_tol=1e-12):
        yield f"majority_accuracy is {majority}, by the labels of the task {share}"
    repeatable = isinstance(record, BaselineRecord) and mixer.version == rule_version(mixer.name)
    expected = truth.baselines.get(mixer.name) if mixer.name in DETERMINISTIC else predictions
    if repeatable and (expected is None or not np.array_equal(expected, predictions)):
        yield "test.predictions are not those of this trivial baseline"


def _unpacked(test: Result, name: str, size: int) -> np.ndarray:
    try:
        return unpack(getattr(test, name), size)
    except ValueError as error:
        raise ValueError(f"test.{name} does not unpack to {size:,} bytes, as test.count wants") from error
