"""A record that is not what it says FAILs, by the name of the field; one that cannot be checked is never PASS."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import sys
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from lra import config as cfg
from lra.config import RunConfig
from lra.errors import RecordError
from lra.leaderboard.build import board
from lra.paths import results_directory
from lra.record import files as rec
from lra.record.baseline_models import rules
from lra.record.baselines import baseline_record
from lra.record.build import result_of
from lra.record.facts import retired
from lra.record.files import MAX_BYTES, RecordFile
from lra.record.schema import at_chance
from lra.record.validate import ValidationReport, validate, validation_table
from lra.typed_json import short_repr
from tasks.core import SPLITS, Built, Prepared
from tasks.listops import CARD
from tasks.prepared import read_prepared, write_prepared
from tests.lra.conftest import tiny_split

CODE = {"sha256": "c" * 64, "git_commit": "a" * 40, "git_clean": True}
VERSIONS = dict.fromkeys(("python", "jax", "jaxlib", "flax", "optax", "numpy"), "1.0")
ENVIRONMENT = VERSIONS | {"backend": "cpu", "device": "a CPU", "device_count": 1, "cores": 2}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Prepared]:
    """ListOps, 40 examples a split, as `data prepare` leaves it."""
    directory = tmp_path_factory.mktemp("prepared")
    built = (Built(name, tiny_split(40, seed), "tiny") for seed, name in enumerate(SPLITS))
    write_prepared(directory / "listops-short-generated-v1", CARD, "short", built)
    return directory, read_prepared(directory / "listops-short-generated-v1", CARD)


@pytest.fixture
def data(prepared: tuple[Path, Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """The prepared data at hand; `results/` and `runs/` empty, in the test's own directory."""
    monkeypatch.setenv("LRA_PREPARED", str(prepared[0]))
    monkeypatch.setenv("LRA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LRA_RESULTS", str(tmp_path / "results"))
    return prepared[1]


def made(
    data: Prepared,
    *,
    seed: int = 0,
    overrides: dict[str, Any] | None = None,
    predictions: Any = None,
    protocol: str = "quick",
) -> dict[str, Any]:
    """The record of a run on this data that is right in three of four examples."""
    base = cfg.protocol("listops", protocol)
    named: dict[str, Any] = {"mixer": "cosformer", "mixer_label": "cosformer", "mixer_options": {}}
    config = cfg.resolve(base, **named, mixer_sha256=None, task_version=1, seed=seed, overrides=overrides)
    labels, steps = data.splits["test"].labels, config.train.steps
    if predictions is None:
        predictions = np.where(np.arange(len(labels)) % 4, labels, (labels + 1) % 10).astype(np.uint8)
    majority = float((labels == np.bincount(data.splits["train"].labels).argmax()).mean())
    chance = max(Counter(labels.tolist()).values()) / len(labels)
    test = result_of(predictions, labels, 10, loss=1.0)
    return {
        "schema": 1,
        "kind": "run",
        "status": "complete",
        "id": config.run_id(data.sha256, None),
        "created": "2026-01-01T00:00:00+00:00",
        "column": {
            **{"task": "listops", "variant": "short", "task_version": 1, "source": "tiny"},
            **{"data_sha256": data.sha256, "protocol": protocol, "protocol_version": base.version},
            "modified": config.modified,
        },
        "mixer": {"name": "cosformer", "label": "cosformer", "options": {}, "sha256": None},
        "seed": seed,
        "steps": {"done": steps, "planned": steps},
        "config": json.loads(json.dumps(cfg.hashed_fields(config))),
        "config_sha256": config.sha256,
        "parameters": 1,
        "selection": {"rule": "validation", "step": 100, "best_step": 100},
        "test": test.as_json(),
        "chance": chance,
        "majority_accuracy": majority,
        "validation": [[100, 2.0, 0.5], [steps, 2.0, 0.5]],
        "curve": [[1, 2.0, 0.1], [steps, 1.0, 0.9]],
        "message": "",
        "seconds": 1.0,
        "steps_per_second": None,
        "peak_bytes": 1,
        "environment": dict(ENVIRONMENT),
        "code": dict(CODE),
    }


def put(record: dict[str, Any], directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{record['id'].replace('../', 'up-')}.json"
    path.write_text(json.dumps(record))
    return path


def judged(record: dict[str, Any], directory: Path) -> ValidationReport:
    (report,) = validate([put(record, directory)])
    return report


def set_at(record: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(record)
    inside = changed
    *parents, last = place.split(".")
    for name in parents:
        inside = inside[name]
    if value is None and last in ENVIRONMENT:
        del inside[last]
    else:
        inside[last] = value
    return changed


def signed(record: dict[str, Any], **config: Any) -> dict[str, Any]:
    """A record with another configuration, its hashes and name made to fit."""
    changed = copy.deepcopy(record)
    for place, value in config.items():
        changed = set_at(changed, f"config.{place.replace('__', '.')}", value)
    run = RunConfig.from_text(json.dumps({"mixer": "cosformer", **changed["config"]}))
    return changed | {"config_sha256": run.sha256, "id": run.run_id(record["column"]["data_sha256"], None)}


def test_an_honest_record_passes_and_without_its_labels_is_not_verified(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = judged(made(data), tmp_path)
    assert (report.verdict, report.problems, report.unverified) == ("PASS", (), ())
    assert judged(set_at(made(data), "mixer.version", 1), tmp_path).verdict == "PASS"  # as without it
    changed = judged(made(data, overrides={"train.learning_rate": 0.1}), tmp_path)
    assert changed.verdict == "PASS"  # says that it is modified
    monkeypatch.setenv("LRA_PREPARED", str(tmp_path / "nothing"))
    report = judged(made(data), tmp_path)
    assert report.verdict == "not verified"
    assert "not available" in report.unverified[0]
    assert not (tmp_path / "nothing").exists()  # nothing was prepared for it


def test_prepared_data_that_is_none_is_as_good_as_none(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRA_PREPARED", str(tmp_path / "prepared"))
    for number, meta in enumerate(("[" * 100_000, "3", "{", json.dumps({"sha256": data.sha256}))):
        (tmp_path / "prepared" / f"listops-short-{number}").mkdir(parents=True)
        (tmp_path / "prepared" / f"listops-short-{number}" / "meta.json").write_text(meta)
    assert judged(made(data), tmp_path).verdict == "not verified"


def test_every_committed_record_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LRA_PREPARED", str(tmp_path))
    reports = validate()
    assert len(reports) > 100
    assert {r.verdict for r in reports} == {"not verified"}, [r for r in reports if r.problems]


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("test.accuracy", 0.9, "test.accuracy is 0.9"),
        ("test.correct", 31, "test.correct is 31, test.correct_bits say 30"),
        ("test.at_chance", True, "test.at_chance"),
        ("test.confusion", [[40]], "1 classes, the task 10"),
        ("test.predictions", "no base 64", "test.predictions does not unpack"),
        ("test.count", 41, "test.predictions does not unpack to 41"),
        ("majority_accuracy", 0.001, "majority_accuracy is 0.001"),
        ("chance", 0.9, "chance is 0.9, the largest class of test.confusion has a share of"),
        ("chance", 0.001, "chance is 0.001, the largest class of test.confusion has a share of"),
        ("mixer.version", 0, "mixer.version is 0, not a whole number from 1"),
        ("code.computing", {"sha256": [3]}, "code.computing.sha256 is [3], not a SHA-256"),
        ("steps.done", 3, "steps.done: 3 of 500 is not complete"),
        ("steps.planned", 600, "config.train.steps 500"),
        ("curve", [[2, 1.0, 0.5], [2, 1.0, 0.5]], "growing steps"),
        ("curve", [[9999, 1.0, 0.5]], "curve has steps outside"),
        ("selection.step", 500, "the best step is 100"),
        ("selection.rule", "last", "task and protocol say validation"),
        ("seed", True, "seed is True, not a whole number"),
        ("seed", 1, "config.seed is 0, the record says 1"),
        ("created", "yesterday", "created is 'yesterday'"),
        ("seconds", "60", "seconds is '60', not a number"),
        ("seconds", float("nan"), "seconds is nan"),
        ("parameters", float("inf"), "parameters is inf"),
        ("environment.jax", None, "environment.jax is missing"),
        ("environment.cores", "2", "environment.cores is '2'"),
        ("environment.device", "a\x1b[2J", "environment.device has characters"),
        ("mixer.name", "os", "no mixer 'os'"),
        ("mixer.label", "softmax", "mixer.label does not begin with 'cosformer'"),
        ("mixer.options", {"a": 1}, "config.mixer_options"),
        ("mixer.options", {"a": 1}, "mixer.options: cosformer has no option 'a'"),
        ("mixer.version", "1", "mixer.version is '1', not a whole number from 1"),
        ("column.data_sha256", "0" * 64, "id is not that of its configuration, data and code"),
        ("column.variant", "../..", "column.variant is '../..', not a plain name"),
        ("column.variant", "long", "column.variant: listops has"),
        ("column.protocol", "../x", "column.protocol is '../x'"),
        ("config_sha256", "0" * 64, "config_sha256 is not the hash"),
        ("config.seed", "0", "seed is '0': input should be a valid integer"),
        ("config.model.head", 3, "config: not the configuration of a run of this version (model.head is 3:"),
        ("config.model.secret", 3, "secret"),
        ("config.train.batch_size", 0, "train.batch_size is 0: input should be greater than or equal to 1"),
        ("id", "../x", "id is '../x', not a plain name"),
        ("id", "other", "id is not that of its configuration"),
        ("schema", 2, "schema is 2, not 1"),
        ("kind", ["run"], "kind is ['run'], not run or floor"),
        ("seeds_together", "2", "seeds_together"),
    ],
)
def test_a_field_that_is_not_what_it_must_be_is_named(
    data: Prepared, tmp_path: Path, place: str, value: Any, expected: str
) -> None:
    report = judged(set_at(made(data), place, value), tmp_path)
    assert report.verdict == "FAIL"
    assert any(expected in problem for problem in report.problems), report.problems


def test_one_flipped_prediction_is_seen_without_the_labels(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRA_PREPARED", str(tmp_path))
    record = made(data)
    for place in (4, 5):  # a wrong one and a right one
        predictions = rec.unpack(record["test"]["predictions"], record["test"]["count"]).copy()
        predictions[place] = (predictions[place] + 1) % 10
        report = judged(set_at(record, "test.predictions", rec.pack(predictions)), tmp_path)
        assert report.problems == ("test.confusion is not that of test.predictions and test.correct_bits",)
    confusion = np.array(record["test"]["confusion"])
    named = confusion.diagonal().argmax()
    confusion[named, named] -= 1
    confusion[named - 1, named] += 1
    report = judged(set_at(record, "test.confusion", confusion.tolist()), tmp_path)
    assert "test.confusion is not that of test.predictions and test.correct_bits" in report.problems
    predictions[5] = 10
    report = judged(set_at(record, "test.predictions", rec.pack(predictions)), tmp_path)
    assert "there is a class 10; the task has 10" in report.problems[0]


def test_labels_that_disagree_fail(data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that agrees with itself in everything, on labels that the task does not have."""
    record = made(data)
    labels = np.roll(data.splits["test"].labels, 1)
    invented = result_of(labels, labels, 10, loss=0.1).as_json()
    report = judged(record | {"test": invented}, tmp_path)
    assert report.verdict == "FAIL"
    assert "by the labels of the task" in report.problems[0]
    monkeypatch.setenv("LRA_PREPARED", str(tmp_path))
    assert judged(record | {"test": invented}, tmp_path).verdict == "not verified"


def test_a_record_has_the_recipe_of_its_protocol(data: Prepared, tmp_path: Path) -> None:
    record = made(data, protocol="quick+shuffle")
    assert judged(record, tmp_path).verdict == judged(made(data), tmp_path).verdict
    assert judged(record, tmp_path).verdict != "FAIL"
    without = copy.deepcopy(record)
    del without["config"]["recipe"]
    assert any("config.recipe is None" in problem for problem in judged(signed(without), tmp_path).problems)
    augmented = set_at(record, "column.protocol", "quick+augment")
    assert judged(augmented, tmp_path).verdict == "FAIL"


def test_a_departure_from_the_protocol_must_be_marked(data: Prepared, tmp_path: Path) -> None:
    report = judged(signed(made(data), train__learning_rate=0.5), tmp_path)
    assert report.problems == ("column.modified is false, but the run departs from quick@2: train.learning_rate=0.5",)
    record = signed(made(data), variant="full")
    report = judged(set_at(record, "column.variant", "full"), tmp_path)
    assert "departs from quick@2: variant=full" in report.problems[0]
    record = signed(made(data), modified=True)
    assert "is quick@2 unchanged" in judged(set_at(record, "column.modified", True), tmp_path).problems[0]


def test_versions_of_before_are_said_and_no_fault(data: Prepared, tmp_path: Path) -> None:
    record = signed(made(data), task_version=2)
    report = judged(set_at(record, "column.task_version", 2), tmp_path)
    assert report.verdict == "not verified"
    assert report.unverified[0] == "retired: task version 2, today's is 1"
    record = signed(made(data), protocol_version=7)
    report = judged(set_at(record, "column.protocol_version", 7), tmp_path)
    assert (report.verdict, report.unverified) == ("not verified", ("retired: protocol quick version 7, today's is 2",))
    report = judged(set_at(made(data), "code.git_clean", False), tmp_path)
    assert report.verdict == "not verified"


def test_records_of_a_former_variant_are_retired() -> None:
    (path,) = (results_directory() / "floors").glob("pathfinder-16-majority_class-v2-*.json")
    record = rec.read(path)
    assert retired(record) == ["variant 16 of an earlier version of the suite"]
    assert board([RecordFile(record, "committed", path)]).retired


def test_earlier_mixers_are_retired(data: Prepared, tmp_path: Path) -> None:
    report = judged(set_at(made(data), "mixer.version", 99), tmp_path)
    assert (report.verdict, report.unverified) == (
        "not verified",
        ("retired: mixer cosformer version 99, today's is 1",),
    )


def test_chance_is_the_largest_class_of_test(data: Prepared, tmp_path: Path) -> None:
    """Records from before `chance` was recorded keep the rule that they were judged by."""
    labels = data.splits["test"].labels
    record = made(data)
    assert record["chance"] > record["majority_accuracy"]  # else nothing would be tested here
    right = next(n for n in range(40) if at_chance(n, 40, record["chance"]) and not _by_majority(record, n))
    predictions = np.where(np.arange(40) < right, labels, (labels + 1) % 10).astype(np.uint8)
    record = made(data, predictions=predictions)
    assert record["test"]["at_chance"] is True
    assert judged(record, tmp_path).verdict == "PASS"
    stale = set_at(record, "test.at_chance", False)
    assert any("test.at_chance is not what" in problem for problem in judged(stale, tmp_path).problems)
    earlier = {k: v for k, v in stale.items() if k != "chance"}
    assert judged(earlier, tmp_path).verdict == "PASS"
    claimed = {k: v for k, v in record.items() if k != "chance"}
    assert any("test.at_chance is not what" in problem for problem in judged(claimed, tmp_path).problems)


def _by_majority(record: dict[str, Any], correct: int) -> bool:
    return at_chance(correct, 40, record["majority_accuracy"])


def with_options(data: Prepared, options: dict[str, Any], label: str, **mixer: Any) -> dict[str, Any]:
    record = made(data)
    record["mixer"] |= {"options": options, "label": label} | mixer
    return signed(record, mixer_options=options, mixer_label=label, mixer_sha256=record["mixer"]["sha256"])


@pytest.mark.parametrize(
    ("name", "options", "label", "wanted"),
    [
        ("cosformer", {"eps": 0.5}, "cosformer(eps=0.5)", None),
        ("cosformer", {"eps": 0.5}, "cosformer", "'cosformer(eps=0.5)'"),
        ("cosformer", {"eps": 0.5}, "cosformer(eps=0.4)", "'cosformer(eps=0.5)'"),
        ("cosformer", {}, "cosformer(eps=0.5)", "'cosformer'"),
        ("cosformer", {"eps": 1e-3}, "cosformer(eps=0.001)", None),
        ("local", {}, "local", None),
        ("local", {"window": 50}, "local", None),  # its default
        ("local", {"window": 64}, "local", "'local(window=64)'"),
        ("mega", {}, "mega [block]", None),
        ("mega", {}, "mega", "'mega [block]'"),
    ],
)
def test_a_label_agrees_with_its_options(
    data: Prepared, tmp_path: Path, name: str, options: dict[str, Any], label: str, wanted: str | None
) -> None:
    report = judged(with_options(data, options, label, name=name), tmp_path)
    assert report.problems == (() if wanted is None else (f"mixer.label is {label!r}, by mixer.options {wanted}",))


@pytest.mark.parametrize(
    ("options", "listed", "passes"),
    [
        ({}, "", True),
        ({"b": 2, "a": 0.5}, "(b=2, a=0.5)", True),
        ({"b": 2, "a": 0.5}, "(a=0.5, b=2)", True),  # as the constructor has them
        ({"a": [1, 2]}, "(a=(1, 2))", True),  # JSON has no tuples
        ({"a": [1, 2]}, "(a=[1, 2]) [block]", True),
        ({"a": 0.5}, "", False),
        ({"a": 0.5}, "(a=0.4)", False),
        ({"b": 2, "a": 0.5}, "(a=0.5)", False),
        ({}, "(a=0.5)", False),
    ],
)
def test_a_label_of_a_file_of_ones_own_lists_its_options(
    data: Prepared, tmp_path: Path, options: dict[str, Any], listed: str, passes: bool
) -> None:
    label = f"mine.py:Mine@bbbbbbbb{listed}"
    report = judged(with_options(data, options, label, name="mine.py:Mine", sha256="b" * 64), tmp_path)
    assert [p for p in report.problems if "mixer.label" in p] == (
        [] if passes else [f"mixer.label is {short_repr(label)}, which does not list mixer.options"]
    )
    assert report.verdict == ("not verified" if passes else "FAIL")


def test_a_run_is_recorded_once(data: Prepared, tmp_path: Path) -> None:
    record = made(data)
    first = put(record, tmp_path / "results" / "quick")
    assert judged(record, tmp_path / "mine").verdict == "PASS"  # a copy of what is committed
    other = judged(record | {"seconds": 2.0}, tmp_path / "mine")
    assert f"id: {first} is a record of the same run" in other.problems
    put(record, tmp_path / "results" / "elsewhere")
    assert [r.verdict for r in validate()] == ["FAIL", "FAIL"]
    renamed = first.rename(first.with_name("x.json"))
    assert "the file is called 'x.json'" in validate([renamed])[0].problems[0]


def test_a_bomb_is_not_unpacked(data: Prepared, tmp_path: Path) -> None:
    bomb = base64.b64encode(zlib.compress(bytes(50_000_000), 9)).decode()
    record = set_at(made(data), "test.predictions", bomb)
    tracemalloc.start()
    try:
        report = judged(record, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert report.problems == ("test.predictions does not unpack to 40 bytes, as test.count wants",)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda text: "[" * 100_000, "nested deeper"),
        (lambda text: text[:-1] + ', "extra": ' + "[" * 50 + "]" * 50 + "}", "nested deeper than"),
        (lambda text: text[:-1] + ', "seed": 0}', "'seed' occurs twice"),
        (lambda text: text.replace('"seconds": 1.0', '"seconds": 1e999'), "seconds is inf"),
        (lambda text: text.replace('"seconds": 1.0', f'"seconds": {"9" * 5000}'), "not readable as JSON"),
        (lambda text: text.replace('"seconds": 1.0', f'"seconds": {"9" * 4000}'), "not a finite number"),
        (lambda text: text.replace('"a CPU"', '"\\ud800"'), "environment.device has characters"),
        (lambda text: text + " " * MAX_BYTES, "at most"),
        (lambda text: "[" + "0," * 1_100_000 + "0]", "no object"),
        (lambda text: text[:-1] + ', "extra": [' + "0," * 1_100_000 + "0]}", "more than 1,000,000 values"),
        (lambda text: "[]", "no object"),
        (lambda text: "", "the file is empty"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_hostile_files_fail_without_a_traceback(
    data: Prepared, tmp_path: Path, spoil: Callable[[str], str], expected: str
) -> None:
    path = put(made(data), tmp_path)
    path.write_text(spoil(path.read_text()))
    (report,) = validate([path])
    assert expected in "; ".join(report.problems)
    console = Console(width=80, record=True)
    console.print(validation_table([report]))
    assert "FAIL" in console.export_text()


@pytest.mark.slow
def test_any_field_may_be_anything(data: Prepared, tmp_path: Path) -> None:
    """Every value of a record replaced by every kind of value: a report, never a traceback."""

    def places(value: Any, place: tuple[str, ...] = ()) -> Any:
        for k, v in value.items():
            yield (*place, k)
            if isinstance(v, dict):
                yield from places(v, (*place, k))

    record = made(data)
    anything: list[Any] = [None, -1, "x", [], [[]], {}, 1e300, True]
    for i, place in enumerate(places(record)):
        for j, value in enumerate(anything):
            changed = set_at(record, ".".join(place), value)
            (tmp_path / "any").mkdir(exist_ok=True)
            (tmp_path / "any" / f"{i}-{j}.json").write_text(json.dumps(changed))
    assert {r.verdict for r in validate([tmp_path / "any"])} == {"FAIL"}  # by the names of the files at least


def test_nothing_that_a_record_names_is_imported(data: Prepared, tmp_path: Path) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit")
    record = made(data)
    record["mixer"] |= {"name": "trap:Mixer", "label": "trap:Mixer@" + 8 * "b", "sha256": "b" * 64}
    record = signed(record, mixer_label=record["mixer"]["label"], mixer_sha256="b" * 64)
    sys.path.insert(0, str(tmp_path))
    try:
        assert judged(record, tmp_path).verdict == "not verified"
    finally:
        sys.path.remove(str(tmp_path))
    assert "trap" not in sys.modules


FILES = {"lra/training/trainer.py": "1" * 64, "models/mixers/cosformer.py": "2" * 64}
# By hand: "lra/training/trainer.py:111...\nmodels/mixers/cosformer.py:222...\n".
FILES_SHA256 = hashlib.sha256(
    f"lra/training/trainer.py:{64 * '1'}\nmodels/mixers/cosformer.py:{64 * '2'}\n".encode()
).hexdigest()


def coded(record: dict[str, Any], **computing: Any) -> dict[str, Any]:
    """A record with the code that computed it, and that code in its id."""
    computing = {"sha256": FILES_SHA256, "files": FILES} | computing
    code = record["code"] | {"computing": computing}
    return record | {"code": code, "id": f"{record['id']}-{computing['sha256'][:6]}", "later_sessions": []}


def test_a_record_with_its_code_passes_and_has_it_in_its_id(data: Prepared, tmp_path: Path) -> None:
    assert judged(coded(made(data)), tmp_path).verdict == "PASS"
    named = judged(coded(made(data)) | {"id": made(data)["id"]}, tmp_path)
    assert "id is not that of its configuration, data and code" in named.problems[0]
    named = judged(made(data) | {"id": coded(made(data))["id"]}, tmp_path)
    assert "id is not that of its configuration, data and code" in named.problems[0]
    other = judged(coded(made(data), files=FILES | {"lra/training/trainer.py": "3" * 64}), tmp_path)
    assert other.problems == ("code.computing.sha256 is not the hash of code.computing.files",)
    alone = {"lra/training/trainer.py": "1" * 64}
    sha256 = hashlib.sha256(f"lra/training/trainer.py:{64 * '1'}\n".encode()).hexdigest()
    other = judged(coded(made(data), files=alone, sha256=sha256), tmp_path)
    assert other.problems == ("code.computing.files does not name the mixer's file, models/mixers/cosformer.py",)


@pytest.mark.parametrize("files", [{}, [], None, {"a": "b"}, {"a": None}])
def test_files_that_are_no_hashes_are_named(data: Prepared, tmp_path: Path, files: Any) -> None:
    (problem,) = judged(coded(made(data), files=files), tmp_path).problems
    assert problem == f"code.computing.files is {files}, not a SHA-256 for each of one or more files"


def test_later_sessions_count_as_the_first_does(data: Prepared, tmp_path: Path) -> None:
    record = coded(made(data))
    session = {"step": 5, "started": record["created"], "environment": ENVIRONMENT, "code": CODE}
    assert judged(record | {"later_sessions": [session]}, tmp_path).verdict == "PASS"
    for code in ({"git_clean": False}, {"git_commit": None, "git_clean": None}):
        report = judged(record | {"later_sessions": [session, session | {"code": CODE | code}]}, tmp_path)
        assert report.unverified == ("code: not a clean commit, so nobody can look up what ran",)
    for odd, problem in (
        ({"step": -1}, "step is -1, not a whole number from 0"),
        ({"started": "today"}, "started is 'today', not a date with its zone"),
        ({"code": {}}, "code.sha256 is missing"),
        ({"environment": {}}, "environment.python is missing"),
    ):
        report = judged(record | {"later_sessions": [session | odd]}, tmp_path)
        assert report.problems[0] == f"later_sessions[0].{problem}"


def test_baselines_and_tunings(data: Prepared, tmp_path: Path) -> None:
    majority, root, digits = (baseline_record(data, CARD, name).as_json() | {"code": CODE} for name in rules(CARD))
    for baseline in (majority, root, digits):
        assert judged(baseline, tmp_path).verdict == "PASS"
    predicted = majority["test"] | {"at_chance": root["test"]["at_chance"]}
    assert (
        "test.predictions are not those of this trivial baseline"
        in judged(root | {"test": predicted}, tmp_path).problems
    )

    rate = cfg.protocol("listops", "quick").train.learning_rate
    rates = [float(f"{factor * rate:.3g}") for factor in (0.3, 1.0, 3.0)]
    runs = [made(data, overrides={} if r == rate else {"train.learning_rate": r}) for r in rates]
    trials = [{"learning_rate": r, "run": run["id"], "validation": 0.5} for r, run in zip(rates, runs, strict=True)]
    name = "-".join(["listops", "short", "quick", "tuning", *runs[0]["id"].split("-")[-2:]])
    shared = ("schema", "status", "created", "mixer", "seed", "environment", "code")
    column = runs[0]["column"] | {"modified": False}
    tuning = {k: runs[0][k] for k in shared} | {"kind": "tuning", "id": name, "column": column, "test": {}}
    tuning |= {"learning_rate": rates[0], "trials": trials}
    assert judged(tuning, tmp_path).verdict == "not verified"  # the runs are not here
    for run in runs:
        put(run, tmp_path / "results" / "quick")
    assert judged(tuning, tmp_path).verdict == "PASS"
    assert "best validation" in judged(tuning | {"learning_rate": rates[1]}, tmp_path).problems[0]
    better = [trials[0], trials[1] | {"validation": 0.6}, trials[2]]
    report = judged(tuning | {"learning_rate": rates[1], "trials": better}, tmp_path)
    assert "has another validation accuracy" in report.problems[0]
    assert "are not the grid" in judged(tuning | {"trials": trials[:2]}, tmp_path).problems[0]

    coded_trials = [t | {"run": f"{t['run']}-{FILES_SHA256[:6]}"} for t in trials]
    tuning = coded(tuning | {"trials": coded_trials})
    assert judged(tuning, tmp_path).problems == ()
    for odd in (trials, [*coded_trials[:2], trials[2]], [*coded_trials[:2], coded_trials[2] | {"run": "x"}]):
        assert "not that of its trials, data and code" in judged(tuning | {"trials": odd}, tmp_path).problems[0]


def test_a_place_without_records_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no such file"):
        validate([tmp_path / "x.json"])
    with pytest.raises(RecordError, match="no record in it"):
        validate([tmp_path])
