"""Records: written whole and once, read with care."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lra.api import make_record, summary
from lra.errors import RecordError
from lra.provenance.code import Code
from lra.provenance.sessions import continued
from lra.record.build import largest_share, result_of
from lra.record.files import find, pack, read, unpack, write
from lra.record.schema import RunRecord, at_chance
from lra.training.evaluation import Evaluation
from lra.training.history import History
from lra.training.trainer import Outcome
from tasks import listops
from tasks.core import SPLITS, Prepared, Split
from tests.lra.conftest import tiny_config
from tests.lra.edited import edited
from tests.lra.record import test_validation


def record(steps: int = 500, status: str = "complete", seed: int = 0) -> dict[str, Any]:
    """Of a run of 500 steps."""
    splits = {name: Split.from_documents([b"0", b"1"] * 20, [0, 1] * 20) for name in SPLITS}
    made = test_validation.made(Prepared("listops", "short", 1, "tiny", "0" * 64, splits), seed=seed)
    return made | {"status": status, "steps": {"done": steps, "planned": 500}}


@given(arrays(np.uint8, st.integers(0, 300)))
def test_packing_loses_nothing(values):
    np.testing.assert_array_equal(unpack(pack(values), len(values)), values)


def test_scores_agree_with_each_other():
    labels = np.array([0, 1, 2, 2, 1, 0, 2], np.uint8)
    predictions = np.array([0, 1, 2, 0, 0, 0, 2], np.uint8)
    result = result_of(predictions, labels, 3)
    assert (result.correct, result.count, result.accuracy) == (5, 7, 5 / 7)
    assert result.confusion == [[2, 0, 0], [1, 1, 0], [1, 0, 2]]
    np.testing.assert_array_equal(unpack(result.predictions, 7), predictions)
    bits = np.unpackbits(unpack(result.correct_bits, 1))[:7]
    np.testing.assert_array_equal(bits, predictions == labels)


def test_chance():
    assert at_chance(510, 1000, 0.5)
    assert not at_chance(540, 1000, 0.5)
    assert at_chance(100, 1000, 0.5)


def test_chance_and_one_class_come_from_the_confusion():
    labels = np.array([0] * 3 + [1] * 5 + [2] * 2, np.uint8)
    constant, mixed = result_of(np.full(10, 2), labels, 3), result_of(labels, labels, 3)
    assert (constant.chance, mixed.chance) == (0.5, 0.5)
    assert largest_share(labels) == 0.5
    assert (constant.predicts_one_class, mixed.predicts_one_class) == (True, False)
    assert (constant.is_at_chance, mixed.is_at_chance) == (True, False)


def test_a_new_record_is_judged_by_the_labels_of_test(tiny):
    """Train is mostly of class 1 and test of class 3; the model names 3 always."""
    train, test = np.repeat([1, 3], [30, 20]), np.repeat([1, 3], [45, 55])
    splits = {"train": Split.from_documents([b"0"] * 50, train), "test": Split.from_documents([b"0"] * 100, test)}
    data = Prepared("listops", "full", 1, "tiny", "0" * 64, splits)
    evaluation = Evaluation(np.full(100, 3, np.uint8), test.astype(np.uint8), 1.0)
    sessions = continued((), 0)
    outcome = Outcome("complete", 12, History(12), 1, 2.5, 7, test=evaluation, sessions=sessions)
    made = make_record("a", tiny_config(), listops.CARD, data, Code({"a.py": "0" * 64}), outcome, mixer_version=1)
    assert (made.chance, made.majority_accuracy, made.test.at_chance) == (0.55, 0.45, True)
    assert (made.steps_per_second, made.peak_bytes) == (2.5, 7)
    result = summary(made)
    assert "This is chance: the largest class has 55.00% of the test labels." in result
    assert "The model predicts the same class for every test example." in result
    stale = edited(made, {"test.at_chance": False})
    assert summary(stale) == result
    sure = made.model_copy(update={"test": result_of(test, test, 10)})
    assert "chance" not in summary(sure)
    assert "same class" not in summary(sure)


def written(steps: int = 500, status: str = "complete") -> RunRecord:
    return RunRecord.model_validate(record(steps, status))


def test_a_record_is_never_overwritten_and_a_truncated_one_never_in_the_way(tmp_path):
    short = write(tmp_path, written(4, "truncated"))
    further = write(tmp_path, written(7, "truncated"))
    whole = write(tmp_path, written())
    assert len({short, further, whole}) == 3
    with pytest.raises(FileExistsError):
        write(tmp_path, written())
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_find_keeps_the_furthest_record_of_a_run(tmp_path):
    runs, results = tmp_path / "runs", tmp_path / "results"
    for steps, status in ((4, "truncated"), (7, "truncated")):
        write(runs / "a" / "records", written(steps, status))
    write(results, written())
    (runs / "a" / "config.json").write_text("{}")
    found = find([(results, "committed"), (runs, "yours")])
    assert [(f.origin, f.record.steps.done) for f in found] == [("committed", 500), ("yours", 7)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", "no object"),
        ("{}", "kind is None, not run or floor or tuning"),
        (
            '{"column": 3, "kind": "run"}',
            "schema is missing; .*column is 3, not an object",
        ),
        (json.dumps({**record(), "schema": 99}), "schema is 99, not 1"),
        (json.dumps({**record(), "id": []}), r"id is \[\], not a plain name"),
        (json.dumps({**record(), "steps": [3]}), r"steps is \[3\], not an object"),
        (json.dumps({**record(), "seconds": math.nan}), "seconds is nan, not a finite number"),
        (json.dumps({**record(), "status": "diverged", "test": {"x": 1}}), "test.accuracy is missing"),
        ("[" * 100_000, "nested deeper than"),
    ],
)
def test_what_is_not_a_record_is_named(tmp_path, text, message):
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(RecordError, match=message) as error:
        read(path)
    assert "odd.json" in str(error.value)


def test_a_number_that_is_none_is_not_written(tmp_path):
    with pytest.raises(RecordError, match="could not be read again: seconds is inf, not a finite number"):
        write(tmp_path / "records", written().model_copy(update={"seconds": math.inf}))
    assert not (tmp_path / "records").exists()


def test_a_bomb_is_not_unpacked():
    text = pack(np.zeros(50_000_000, np.uint8))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="not 40 bytes"):
            unpack(text, 40)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
