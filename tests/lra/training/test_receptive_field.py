"""The effective receptive field: of models whose field is known, and in the record."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lra.training.receptive_field import receptive_field, summarised
from lra.training.step_functions import StepFunctions
from lra.training.trainer import train
from tasks.core import Prepared
from tasks.listops import CARD
from tests.lra.conftest import tiny_config


def test_a_convolution_is_influenced_by_the_positions_of_its_kernel_only(tiny: Prepared) -> None:
    """One layer with a kernel of 5: nothing is farther away than 2."""
    config = dataclasses.replace(tiny_config("conv"), mixer_options={"kernel": 5})
    functions = StepFunctions(config, CARD)
    field = receptive_field(functions, functions.init(), functions.dataset(tiny.splits["test"]))
    assert field is not None
    assert field.half in (1, 2)
    within = dict(zip(field.distances, field.within, strict=True))
    assert 0 < within[0] < within[1] < within[2]
    assert within[2] == pytest.approx(1, abs=1e-5)


def test_attention_is_influenced_by_distant_positions(tiny: Prepared) -> None:
    functions = StepFunctions(tiny_config("softmax"), CARD)
    field = receptive_field(functions, functions.init(), functions.dataset(tiny.splits["test"]))
    assert field is not None
    lengths = tiny.splits["test"].lengths
    assert 2 < field.half < lengths.max() / 2
    assert field.within[2] < 0.99


def test_the_summary_weighs_examples_equally() -> None:
    influence = np.zeros((2, 10))
    influence[0, [0, 1]] = 1, 1
    influence[1, [0, 8]] = 300, 100
    field = summarised(influence)
    assert field is not None
    assert field.distances == [0, 1, 2, 4, 8]
    assert field.within == pytest.approx([0.625, 0.875, 0.875, 0.875, 1.0])
    assert field.half == 1  # of the 0.375 of other positions, 0.25 is at distance 1
    assert summarised(np.array([[1.0, 0.0]])) is None
    assert summarised(np.array([[1.0, np.nan]])) is None


def test_a_complete_run_has_one_and_a_truncated_one_has_none(tiny: Prepared, tmp_path: Path) -> None:
    config = tiny_config()
    outcome = train(StepFunctions(config, CARD), tiny, tmp_path / "complete")
    assert outcome.receptive_field is not None
    truncated = train(StepFunctions(config, CARD), tiny, tmp_path / "truncated", max_minutes=1e-9)
    assert (truncated.status, truncated.receptive_field) == ("truncated", None)
