"""Records: written whole and once, read with care."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lra.record import REQUIRED, REQUIRED_OF, RecordError, at_chance, find, pack, read, scores, unpack, write


def record(steps: int = 10, status: str = "complete", name: str = "run") -> dict:
    return {
        "schema": 1,
        "kind": "run",
        "status": status,
        "id": name,
        "created": "2026-01-01T00:00:00+00:00",
        "column": dict.fromkeys(REQUIRED["column"]),
        "mixer": dict.fromkeys(REQUIRED["mixer"]),
        "seed": 0,
        "test": {},
        "environment": {},
        "code": {},
        **dict.fromkeys(REQUIRED_OF["run"]),
        "steps": {"done": steps, "planned": 10},
    }


@given(arrays(np.uint8, st.integers(0, 300)))
def test_packing_loses_nothing(values):
    np.testing.assert_array_equal(unpack(pack(values)), values)


def test_scores_agree_with_each_other():
    labels = np.array([0, 1, 2, 2, 1, 0, 2], np.uint8)
    predictions = np.array([0, 1, 2, 0, 0, 0, 2], np.uint8)
    said = scores(predictions, labels, 3)
    assert (said["correct"], said["count"], said["accuracy"]) == (5, 7, 5 / 7)
    assert said["confusion"] == [[2, 0, 0], [1, 1, 0], [1, 0, 2]]
    np.testing.assert_array_equal(unpack(said["predictions"]), predictions)
    bits = np.unpackbits(unpack(said["correct_bits"]))[:7]
    np.testing.assert_array_equal(bits, predictions == labels)


def test_chance():
    assert at_chance(510, 1000, 0.5)
    assert not at_chance(540, 1000, 0.5)
    assert at_chance(100, 1000, 0.5)


def test_a_record_is_never_overwritten_and_a_truncated_one_never_in_the_way(tmp_path):
    short = write(tmp_path, record(4, "truncated"))
    further = write(tmp_path, record(7, "truncated"))
    whole = write(tmp_path, record(10))
    assert len({short, further, whole}) == 3
    with pytest.raises(FileExistsError):
        write(tmp_path, record(10))
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_find_keeps_the_furthest_record_of_a_run(tmp_path):
    runs, results = tmp_path / "runs", tmp_path / "results"
    for steps, status in ((4, "truncated"), (7, "truncated")):
        write(runs / "a" / "records", record(steps, status, "a"))
    write(results, record(10, "complete", "a"))
    (runs / "a" / "config.json").write_text("{}")
    found = find([(results, "committed"), (runs, "yours")])
    assert [(f.origin, f.record["steps"]["done"]) for f in found] == [("committed", 10), ("yours", 7)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not readable"),
        ("[]", "missing"),
        ("{}", "schema, kind"),
        ('{"column": 3}', "column.task"),
        (json.dumps({**record(), "schema": 99}), "schema 99"),
    ],
)
def test_what_is_not_a_record_is_named(tmp_path, text, told):
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(RecordError, match=told) as error:
        read(path)
    assert "odd.json" in str(error.value)
