"""The history of a run: what it records is finite, or the run has failed; the best validation selects."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from lra.config import protocol
from lra.errors import RunError
from lra.selection import best_step, first_selectable
from lra.training.history import History


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_a_failure(loss: float) -> None:
    trained, validated = History(10), History(10)
    trained.record(4, loss, 0.5, 1.0)
    validated.record_validation(3, 2.0, 0.5)
    validated.record_validation(6, loss, 0.9)
    assert trained.failed is not None
    assert validated.failed is not None
    assert (trained.failed[0], validated.failed[0]) == (4, 6)
    assert (trained.curve, validated.validation, validated.best_step) == ([], [[3, 2.0, 0.5]], 3)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"steps": "3"},
        {"stages": 3},
        {"steps": 3, "curve": [["a"]]},
    ],
)
def test_a_history_of_another_version_is_refused_with_advice(fields: dict[str, Any]) -> None:
    with pytest.raises(RunError, match="delete the run's directory"):
        History.from_json(fields)


def test_a_history_is_restored_from_json() -> None:
    history = History(10, curve=[[1, 0.5, 0.25]], validation=[[1, 2, 1]], seconds=1.5, failed=(3, math.nan, math.inf))
    again = History.from_json(json.loads(json.dumps(history.to_json())))
    assert (again.curve, again.validation, again.seconds) == (history.curve, history.validation, 1.5)
    assert again.failed is not None
    assert again.failed[0] == 3


VALIDATION = [[500, 1.0, 0.9], [1_000, 1.0, 0.5], [1_500, 1.0, 0.6], [2_000, 1.0, 0.6]]


@pytest.mark.parametrize(
    ("first", "step"), [(1, 500), (500, 500), (501, 1_500), (1_500, 1_500), (1_501, 2_000), (2_001, None), (None, None)]
)
def test_the_best_validation_is_selected_from_the_first_selectable_step_on(first: int | None, step: int | None) -> None:
    """Of equals the earliest; None: nothing is selected, and the last checkpoint is tested."""
    assert best_step(VALIDATION, first) == step
    assert History(2_000, first, validation=VALIDATION).best_step == step


@pytest.mark.parametrize(
    ("card", "selection", "select_after", "first"),
    [
        ("validation", "best", 0.0, 1),
        ("validation", "best", 0.2, 10_001),  # "after 20 % of 50,000 steps": step 10,000 is not after it
        ("validation", "last", 0.2, None),
        ("last", "best", 0.0, None),
    ],
)
def test_what_may_select(card: str, selection: str, select_after: float, first: int | None) -> None:
    train = dataclasses.replace(
        protocol("listops", "small").train, steps=50_000, selection=selection, select_after=select_after
    )
    assert first_selectable(card, train) == first
