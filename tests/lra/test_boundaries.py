"""Ties and boundaries: what is equal, the smallest sizes, exactly at a threshold."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lra.api import configure
from lra.errors import ConfigError
from lra.leaderboard.build import board, render
from lra.leaderboard.comparison import difference, interval
from lra.leaderboard.types import Board, LeaderboardCell
from lra.protocols import CURVE_POINTS
from lra.record import files as record
from lra.record.build import result_of
from lra.record.schema import at_chance as is_at_chance
from lra.record.validate import validate
from lra.sweep.reproduce import compare_with_expected
from lra.training.history import History
from lra.training.step_functions import StepFunctions
from lra.training.trainer import train
from tasks.core import Prepared
from tasks.listops import CARD
from tests.lra.conftest import tiny_config, tiny_split
from tests.lra.leaderboard.test_leaderboard import run, trivial
from tests.lra.record.test_validation import data, made, prepared, put
from tests.lra.sweep.test_reproduction import EXPECTED

__all__ = ["data", "prepared"]  # fixtures


# ---- records


@pytest.mark.parametrize(
    ("correct", "count", "majority", "at_chance"),
    [
        (60, 100, 0.5, True),  # 0.5 + 2 * 0.05, exactly
        (61, 100, 0.5, False),
        (24, 25, 0.8, True),  # 0.8 + 2 * 0.08
        (25, 25, 0.8, False),
        (50, 100, 0.5, True),
        (0, 100, 0.5, True),
        (1, 1, 1.0, True),  # one class alone: every answer is right
        (1, 1, 0.0, False),
        (0, 1, 0.0, True),
        (16, 100, 0.1, True),  # 0.1 + 2 * 0.03
        (17, 100, 0.1, False),
    ],
)
def test_at_chance_is_up_to_two_standard_errors(correct: int, count: int, majority: float, at_chance: bool) -> None:
    assert is_at_chance(correct, count, majority) is at_chance


@pytest.mark.parametrize("right", [0, 1])
@pytest.mark.parametrize("count", [1, 8, 9])
def test_scores_of_nothing_and_of_everything_right(right: int, count: int) -> None:
    labels = np.arange(count).astype(np.uint8) % 3
    test = result_of(labels if right else (labels + 1) % 3, labels, 3)
    assert (test.accuracy, test.correct, test.count) == (right, right * count, count)
    bits = np.unpackbits(record.unpack(test.correct_bits, math.ceil(count / 8)))[:count]
    assert (bits == right).all()
    assert np.array(test.confusion).trace() == right * count
    assert np.array(test.confusion).sum(1).tolist() == np.bincount(labels, minlength=3).tolist()
    low, high = interval(test.accuracy, count)
    assert (low == 0, high == 1) == (not right, bool(right))
    assert 0 <= low < high <= 1


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_record_of_nothing_and_of_everything_right_is_valid(data: Prepared, tmp_path: Path, share: float) -> None:
    labels = data.splits["test"].labels
    whole = made(data, predictions=(labels + (share == 0)).astype(np.uint8) % 10)
    assert whole["test"]["accuracy"] == share
    (report,) = validate([put(whole, tmp_path)])
    assert (report.verdict, report.problems) == ("PASS", ())


def test_of_equal_validations_the_earliest_is_the_best() -> None:
    history = History(30)
    assert history.best_step is None
    for step, accuracy in ((5, 0.25), (10, 0.75), (15, 0.75), (20, 0.5), (25, 0.75)):
        history.record_validation(step, 1.0, accuracy)
    assert history.best_step == 10
    history.record_validation(30, 9.0, 0.750001)  # accuracy decides, not the loss
    assert history.best_step == 30


@pytest.mark.parametrize("steps", [1, 199, 200, 201, 399, 1_000])
def test_a_curve_has_every_step_and_no_more_points_than_allowed(steps: int) -> None:
    history = History(steps)
    for step in range(steps):
        history.record(step, float(step), step / steps, 1.0)
    assert len(history.curve) <= CURVE_POINTS == 200
    assert history.curve[-1][0] == steps
    width = math.ceil(steps / CURVE_POINTS)
    assert [point[0] for point in history.curve] == sorted({*range(width, steps + 1, width), steps})
    before = 0
    for end, loss, accuracy in history.curve:
        inside = np.arange(before, end)
        assert loss == pytest.approx(inside.mean())
        assert accuracy == pytest.approx((inside / steps).mean())
        before = int(end)


# ---- the board


def cells(shown: Board) -> dict[str, LeaderboardCell]:
    (table,) = shown.tables
    return {row.label: row.cells[0] for row in table.rows if row.cells[0] is not None}


def test_a_row_that_equals_its_baseline_does_not_beat_it() -> None:
    found = cells(board([run(0.4), run(0.401, mixer="fnet"), run(0.2, mixer="lru"), trivial(0.4)]))
    assert {label: cell.below_baseline for label, cell in found.items()} == {
        **{"cosformer": True, "fnet": False, "lru": True},
    }
    (majority,) = cells(board([run(0.2, majority=0.2)])).values()
    assert majority.below_baseline  # the majority class is a baseline too


def test_a_mean_that_equals_the_baseline_does_not_beat_it() -> None:
    found = cells(board([run(0.25, seed=0), run(0.75, seed=1), trivial(0.5)]))
    assert (found["cosformer"].mean, found["cosformer"].below_baseline) == (0.5, True)


def test_equal_rows_are_in_the_order_of_their_names_and_one_is_best() -> None:
    found = [run(0.5, mixer=name, seed=seed) for name in ("lru", "fnet", "softmax") for seed in (0, 1)]
    (table,) = board(found).tables
    assert [row.label for row in table.rows] == ["fnet", "lru", "softmax"]
    verdicts = sorted(row.cells[0].comparison.verdict for row in table.rows if row.cells[0])
    assert verdicts == ["best", "not significantly different", "not significantly different"]
    assert [row.label for row in board(found[::-1]).tables[0].rows] == ["fnet", "lru", "softmax"]


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_rows_at_the_ends_are_shown_in_every_format(accuracy: float) -> None:
    shown = board([run(accuracy, mixer=name, seed=seed) for name in ("fnet", "lru") for seed in (0, 1)])
    for cell in cells(shown).values():
        assert (cell.mean, cell.deviation) == (accuracy, 0)
    for form in ("md", "csv", "json", "latex", "html"):
        assert f"{100 * accuracy:.1f}" in str(render(shown, form)) or form in ("csv", "json")  # type: ignore[arg-type]


def test_rows_that_are_right_in_the_same_examples_do_not_differ() -> None:
    right = {seed: np.ones(5, bool) for seed in (0, 1)}
    same = difference(right, right)
    assert same is not None
    assert (same.low, same.mean, same.high, same.p_value) == (0, 0, 0, 1)
    one = difference({0: np.ones(1, bool)}, {0: np.zeros(1, bool)})
    assert one is not None
    assert (one.mean, one.seeds, one.p_value) == (1, 1, None)
    assert one.low < 1


@pytest.mark.parametrize(("accuracy", "passes"), [(0.37, True), (0.39, True), (0.369, False), (0.391, False)])
def test_a_score_exactly_at_its_tolerance_passes(accuracy: float, passes: bool) -> None:
    """38 ± 1 are expected. All figures are of 1,000 examples."""
    expected = dataclasses.replace(EXPECTED, score=38.0, tolerance=1.0)
    assert compare_with_expected([run(accuracy).record], expected).passes is passes


def test_the_mean_over_seeds_is_judged_and_no_other_average() -> None:
    """36, 36 and 42 have the mean 38, the median 36 and the middle 39."""
    found = [run(a, seed=seed).record for seed, a in enumerate((0.36, 0.36, 0.42))]
    for score, passes in ((38.0, True), (36.0, False), (39.0, False)):
        assert compare_with_expected(found, dataclasses.replace(EXPECTED, score=score, tolerance=0.5)).passes is passes


# ---- configurations


@pytest.mark.parametrize(
    "place",
    [
        *("max_len", "model.layers", "model.d_model", "model.heads", "model.qkv_dim", "model.mlp_dim"),
        *("train.steps", "train.batch_size", "train.eval_every", "train.micro_batch", "train.dispatch_steps"),
    ],
)
def test_a_size_is_at_least_one(place: str) -> None:
    for value in (0, -1):
        with pytest.raises(ConfigError, match=place):
            tiny_config("linear", **{place: value})
    tiny_config("linear", **({"model.qkv_dim": 2} if place == "model.qkv_dim" else {place: 1}))


def test_selection_starts_before_the_last_step() -> None:
    for share in (0.0, 0.99):
        assert tiny_config("linear", **{"train.select_after": share}).train.select_after == share
    for share in (-0.01, 1.0):
        with pytest.raises(ConfigError, match="select_after"):
            tiny_config("linear", **{"train.select_after": share})


@pytest.mark.parametrize("field", ["limit", "seed"])
def test_a_limit_is_at_least_one_and_a_seed_at_least_zero(field: str) -> None:
    least = {"limit": 1, "seed": 0}[field]
    assert getattr(configure("listops", "linear", protocol="quick", **{field: least}), field) == least
    with pytest.raises(ConfigError, match=field):
        configure("listops", "linear", protocol="quick", **{field: least - 1})


@pytest.mark.parametrize("rate", ["model.dropout", "model.attention_dropout"])
def test_a_rate_of_dropout_is_below_one(rate: str) -> None:
    tiny_config("linear", **{rate: 0.0})
    tiny_config("linear", **{rate: 0.99})
    for value in (1.0, -0.01):
        with pytest.raises(ConfigError, match="dropout"):
            tiny_config("linear", **{rate: value})


# ---- runs


def test_the_smallest_run_there_can_be(tmp_path: Path) -> None:
    """Inputs of one token, a batch of all examples, one to evaluate, a warm-up of all steps, which nothing divides."""
    sizes = {"train": tiny_split(4, 1), "validation": tiny_split(2, 2), "test": tiny_split(1, 3)}
    examples = Prepared("listops", "full", CARD.version, "tiny", "0" * 64, sizes)
    changes: dict[str, Any] = {"max_len": 1, "train.batch_size": 4, "train.steps": 3, "train.eval_every": 2}
    config = dataclasses.replace(tiny_config("linear", **changes, **{"train.warmup": 3}), limit=1)
    outcome = train(StepFunctions(config, CARD), examples, tmp_path)
    assert outcome.status == "complete"
    assert [point[0] for point in outcome.history.validation] == [2, 3]
    assert {point[2] for point in outcome.history.validation} <= {0.0, 1.0}
    assert outcome.test is not None
    assert len(outcome.test.predictions) == 1
    assert math.isfinite(outcome.test.loss)
