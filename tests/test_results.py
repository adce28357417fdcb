"""Committed records are what they say: readable, whole, consistent in themselves, free of anybody's paths."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from lra.config import RunConfig, id_hashes
from lra.paths import results_directory
from lra.record import files as record
from lra.record.files import of_kind
from lra.record.schema import RunRecord, at_chance

RUNS = of_kind(record.find([(results_directory(), "committed")]), RunRecord)
PATHS = sorted(results_directory().rglob("*.json"))


def test_there_are_results():
    assert {record.read(path).column.task for path in PATHS} == {
        "listops",
        "text",
        "retrieval",
        "image",
        "pathfinder",
    }


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_a_committed_record_is_consistent(path):
    output = record.read(path)
    assert record.as_text(output) == path.read_text()
    assert output.column.source not in ("tiny", "toy"), "a record of a test's own data is not a result"
    test = output.test
    predictions = record.unpack(test.predictions, test.count)
    bits = np.unpackbits(record.unpack(test.correct_bits, -(-test.count // 8)), count=test.count)
    confusion = np.array(test.confusion)
    assert len(predictions) == test.count == confusion.sum()
    assert bits.sum() == test.correct == confusion.trace()
    np.testing.assert_array_equal(np.bincount(predictions, minlength=len(confusion)), confusion.sum(0))
    assert test.accuracy == test.correct / test.count
    chance = (
        output.majority_accuracy if output.chance is None else output.chance
    )  # earlier records were judged by train's majority class
    assert test.at_chance == at_chance(test.correct, test.count, chance)
    if isinstance(output, RunRecord):
        assert (output.status == "complete") == (output.steps.done == output.steps.planned)
        assert output.curve[-1][0] <= output.steps.done
        assert len(output.curve) <= 200
    assert path.name == output.file_name
    assert (path.stem == output.id) == (output.status == "complete")
    assert "/home/" not in path.read_text()
    assert output.code.git_clean


def test_a_configuration_that_is_read_has_the_hash_that_its_committed_id_ends_in():
    """Of the settings that it states: settings that came later have defaults, and are no part of its hash."""

    def restated(config, stated):
        return {name: restated(config[name], v) if isinstance(v, dict) else config[name] for name, v in stated.items()}

    assert len(RUNS) > 100
    for f in RUNS:
        stated = f.record.config.as_json()
        config = RunConfig.from_text(json.dumps({"mixer": f.record.mixer.name, **stated}))
        text = json.dumps(restated(json.loads(config.as_text()), stated), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        assert digest == f.record.config_sha256
        assert id_hashes(f.record.id)[0] == digest[:8]
