"""The tested checkpoint is the selected one: parameters of step n are n, and evaluations say what they were given."""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lra import api, finished
from lra.errors import Interrupted
from lra.training import trainer
from lra.training.device_dataset import DeviceDataset
from lra.training.evaluation import Evaluation
from lra.training.step_functions import StepFunctions, TrainState
from lra.training.trainer import Outcome
from tasks.core import Card, Prepared
from tasks.listops import CARD
from tests.lra.conftest import tiny_config

Accuracies = dict[int, int]  # by step, right answers of 50 in validation


@pytest.fixture
def course(tiny: Prepared, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, int, int]]]:
    """Set what a validation gives after each step; return the evaluations: split, step, examples."""

    def set_course(right: Accuracies, stop_at: tuple[int, ...] = ()) -> list[tuple[str, int, int]]:
        seen: list[tuple[str, int, int]] = []
        stops = list(stop_at)

        def train_steps(program: StepFunctions, state: TrainState, _: Any, steps: int) -> tuple[TrainState, Any]:
            if stops and state.step == stops[0]:
                stops.pop(0)
                os.kill(os.getpid(), signal.SIGTERM)
            done = state.step + steps

            params = jax.tree.map(lambda leaf: np.full(leaf.shape, done, leaf.dtype), state.params)
            params = jax.device_put(params, program.replicated)
            return TrainState(done, params, state.buffers, state.opt_state), np.ones((steps, 3))

        def evaluate(program: StepFunctions, state: TrainState, split: DeviceDataset) -> Evaluation:
            (name,) = (n for n, s in tiny.splits.items() if np.shares_memory(s.labels, split.labels))
            params = [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]
            (step,) = {int(number) for leaf in params for number in (leaf.min(), leaf.max())}
            labels = split.labels[: split.count]
            predictions = np.full(split.count, step % 10, np.uint8)
            if name == "validation":
                correct = np.arange(split.count) < right[step]
                predictions = np.where(correct, labels, (labels + 1) % 10).astype(np.uint8)
            seen.append((name, step, split.count))
            return Evaluation(predictions, labels, 0.5)

        monkeypatch.setattr(trainer, "train_steps", train_steps)
        monkeypatch.setattr(trainer, "evaluate", evaluate)
        monkeypatch.setattr(finished, "evaluate", evaluate)
        monkeypatch.setattr(trainer, "compile_ahead", lambda *_: None)
        monkeypatch.setattr(trainer, "forward_flops", lambda *_: 1.0)
        return seen

    return set_course


@functools.cache
def compiled() -> tuple[StepFunctions, TrainState]:
    program = StepFunctions(tiny_config("linear"), CARD)
    return program, program.init()


def train(tiny: Prepared, place: Path, card: Card = CARD, limit: int | None = None, **changes: Any) -> Outcome:
    """Train with another configuration, by functions that were made once; the steps are not computed anyway."""
    made, start = compiled()
    max_minutes = changes.pop("max_minutes", None)
    program = copy.copy(made)
    program.config, program.card = dataclasses.replace(tiny_config("linear", **changes), limit=limit), card
    program.init = lambda: start  # type: ignore[method-assign]
    return trainer.train(program, tiny, place, max_minutes=max_minutes)


def selected(outcome: Outcome) -> int:
    """Return the step of the checkpoint that was tested; its parameters are those of this step."""
    assert outcome.test is not None
    assert outcome.selected_step is not None
    assert set(outcome.test.predictions.tolist()) == {outcome.selected_step % 10}
    return outcome.selected_step


@pytest.mark.parametrize(
    ("right", "best"),
    [
        ({4: 15, 8: 35, 12: 25}, 8),
        ({4: 35, 8: 25, 12: 15}, 4),
        ({4: 15, 8: 25, 12: 35}, 12),
        ({4: 25, 8: 25, 12: 25}, 4),  # of equals, the earliest
        ({4: 15, 8: 25, 12: 25}, 8),
        ({4: 0, 8: 0, 12: 0}, 4),
        ({4: 49, 8: 50, 12: 50}, 8),
    ],
)
def test_the_best_validation_is_tested(
    tiny: Prepared, tmp_path: Path, course: Callable[..., list[Any]], right: Accuracies, best: int
) -> None:
    seen = course(right)
    outcome = train(tiny, tmp_path)
    assert (selected(outcome), outcome.status, outcome.steps_done) == (best, "complete", 12)
    assert seen == [*(("validation", step, 50) for step in (4, 8, 12)), ("test", best, 50)]  # the test once
    assert outcome.history.validation == [[step, 0.5, count / 50] for step, count in right.items()]


@pytest.mark.parametrize(
    ("steps", "every", "validated"), [(10, 4, [4, 8, 10]), (3, 5, [3]), (5, 5, [5]), (3, 1, [1, 2, 3])]
)
def test_the_last_step_is_validated_whatever_divides_the_steps(
    tiny: Prepared, tmp_path: Path, course: Callable[..., list[Any]], steps: int, every: int, validated: list[int]
) -> None:
    seen = course({step: step for step in validated})
    outcome = train(tiny, tmp_path, **{"train.steps": steps, "train.eval_every": every})
    assert [step for split, step, _ in seen if split == "validation"] == validated
    assert selected(outcome) == steps


def test_a_task_without_validation_tests_the_last(tiny: Prepared, tmp_path: Path, course: Any) -> None:
    seen = course({})
    outcome = train(tiny, tmp_path, dataclasses.replace(CARD, selection="last"))
    assert (selected(outcome), outcome.history.best_step) == (12, None)
    assert seen == [("test", 12, 50)]


@pytest.mark.parametrize("dispatch", [1, 3])
def test_steps_of_a_dispatch_end_where_there_is_a_validation(
    tiny: Prepared, tmp_path: Path, course: Any, dispatch: int
) -> None:
    seen = course({5: 1, 10: 3, 11: 2})
    changes = {"train.dispatch_steps": dispatch, "train.steps": 11, "train.eval_every": 5}
    outcome = train(tiny, tmp_path, **changes)
    assert [step for _, step, _ in seen] == [5, 10, 11, 10]
    assert selected(outcome) == 10


def test_every_evaluation_keeps_to_the_limit(tiny: Prepared, tmp_path: Path, course: Any) -> None:
    seen = course({4: 1, 8: 1, 12: 1})
    outcome = train(tiny, tmp_path, limit=1)
    assert seen == [("validation", 4, 1), ("validation", 8, 1), ("validation", 12, 1), ("test", 4, 1)]
    assert outcome.history.validation[0][2] == 1.0


def test_a_run_that_was_stopped_selects_what_it_would_have(tiny: Prepared, tmp_path: Path, course: Any) -> None:
    course({4: 15, 8: 35, 12: 25}, stop_at=(5, 9))
    ends = [train(tiny, tmp_path) for _ in range(3)]
    assert [end.status for end in ends] == ["interrupted", "interrupted", "complete"]
    assert selected(ends[-1]) == 8


def test_a_truncated_run_tests_its_best_so_far(tiny: Prepared, tmp_path: Path, course: Any) -> None:
    """Without a validation yet, that is the state that it is in."""
    course({4: 15, 8: 35, 12: 25}, stop_at=(9,))
    first = train(tiny, tmp_path / "a", max_minutes=0)
    assert (first.status, first.steps_done, selected(first)) == ("truncated", 1, 1)
    assert train(tiny, tmp_path / "b").status == "interrupted"
    later = train(tiny, tmp_path / "b", max_minutes=0)
    assert (later.status, later.steps_done, selected(later)) == ("truncated", 11, 8)


@pytest.mark.parametrize(("selection", "step"), [("validation", 8), ("last", 12)])
def test_a_finished_run_is_evaluated_again_at_the_step_that_was_tested(
    tiny: Prepared, tmp_path: Path, course: Any, monkeypatch: pytest.MonkeyPatch, selection: str, step: int
) -> None:
    """In a run that was interrupted, of which two checkpoints are kept."""
    task = api.load_task("listops")
    monkeypatch.setattr(task, "CARD", dataclasses.replace(CARD, selection=selection))
    monkeypatch.setenv("LRA_RUNS", str(tmp_path))
    for module in (api, finished):
        monkeypatch.setattr(module, "prepare", lambda *_, **__: tiny)
        monkeypatch.setattr(module, "use_compilation_cache", lambda: None)
    course({4: 15, 8: 35, 12: 25}, stop_at=(9,))
    with pytest.raises(Interrupted):
        api.run_config(tiny_config("linear"))
    record = api.run_config(tiny_config("linear"))
    best_step = step if selection == "validation" else None
    assert (record.selection.rule, record.selection.step, record.selection.best_step) == (selection, step, best_step)
    again, recorded = finished.evaluate_run(record.id)
    assert set(again.predictions.tolist()) == {step % 10}
    assert recorded == record.test


@pytest.mark.parametrize(
    ("share", "best"),
    [
        (0.0, 4),
        (0.3, 4),  # up to step 3
        (1 / 3, 12),  # up to step 4, whose validation is the best
        (0.5, 12),
        (0.7, 12),  # up to step 8
        (0.999, 12),
    ],
)
def test_no_checkpoint_of_the_first_share_of_the_steps_is_selected(
    tiny: Prepared, tmp_path: Path, course: Any, share: float, best: int
) -> None:
    seen = course({4: 35, 8: 15, 12: 25})
    outcome = train(tiny, tmp_path, **{"train.select_after": share})
    assert selected(outcome) == best
    assert [step for split, step, _ in seen if split == "validation"] == [4, 8, 12]


def test_a_protocol_that_selects_the_last_tests_the_last(tiny: Prepared, tmp_path: Path, course: Any) -> None:
    seen = course({4: 35, 8: 15, 12: 25})
    outcome = train(tiny, tmp_path, **{"train.selection": "last"})
    assert (selected(outcome), outcome.history.best_step) == (12, None)
    assert [step for split, step, _ in seen if split == "validation"] == [4, 8, 12]  # for the curve


def test_a_run_that_ends_before_it_may_select_tests_what_it_has(tiny: Prepared, tmp_path: Path, course: Any) -> None:
    course({4: 35, 8: 15, 12: 25}, stop_at=(5,))
    assert train(tiny, tmp_path, **{"train.select_after": 0.9}).status == "interrupted"
    outcome = train(tiny, tmp_path, max_minutes=0, **{"train.select_after": 0.9})
    assert (outcome.status, selected(outcome), outcome.history.best_step) == ("truncated", 7, None)
