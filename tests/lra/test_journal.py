"""What a run writes down of itself is finite, or the run has failed."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from lra.interrupt import RunError
from lra.journal import Journal, Journals


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_a_failure(loss: float) -> None:
    trained, validated = Journal(10), Journal(10)
    trained.write(4, loss, 0.5, 1.0)
    validated.validate(3, 2.0, 0.5)
    validated.validate(6, loss, 0.9)
    assert trained.failed is not None
    assert validated.failed is not None
    assert (trained.failed[0], validated.failed[0]) == (4, 6)
    assert (trained.curve, validated.validation, validated.best_step) == ([], [[3, 2.0, 0.5]], 3)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"journals": 3},
        {"journals": [3]},
        {"journals": [{}]},
        {"journals": [{"steps": "3"}]},
        {"journals": [{"stages": 3}]},
    ],
)
def test_a_journal_of_another_version_says_what_to_do(fields: dict[str, Any]) -> None:
    with pytest.raises(RunError, match="delete the run's directory"):
        Journals.from_json(fields)


def test_a_journal_survives_its_checkpoint() -> None:
    journal = Journal(10, curve=[[1, 0.5, 0.25]], validation=[[1, 2, 1]], seconds=1.5, failed=(3, math.nan, math.inf))
    (again,) = Journals.from_json(json.loads(json.dumps(Journals([journal]).to_json()))).each
    assert (again.curve, again.validation, again.seconds) == (journal.curve, journal.validation, 1.5)
    assert again.failed is not None
    assert again.failed[0] == 3
