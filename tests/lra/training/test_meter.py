"""Speed and memory of steps: of steps alone, however often a run was interrupted."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra.runtime.memory import Peak, kilobytes
from lra.training import meter, trainer
from lra.training.history import History
from lra.training.meter import Meter
from lra.training.step_functions import StepFunctions
from lra.training.trainer import Outcome
from tasks.core import Prepared
from tasks.listops import CARD
from tests.lra.conftest import tiny_config

pytestmark = pytest.mark.slow

MIB = 2**20


@dataclasses.dataclass
class Clock:
    """In the place of the module `time`."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(meter, "time", clock)
    return clock


def test_laps_add_up_and_what_is_no_step_does_not(clock: Clock) -> None:
    history = History(100, timed_steps=5, timed_seconds=50.0)
    measured = Meter(history, jnp.ones(3))
    clock.now += 2
    assert measured.lap(4) == 0.5
    clock.now += 1000  # an evaluation, or a checkpoint
    measured.restart()
    clock.now += 4
    assert measured.lap(1) == 4
    assert (history.timed_steps, history.timed_seconds) == (10, 56.0)
    assert history.steps_per_second == 10 / 56


def test_a_lap_that_compiled_does_not_count(clock: Clock) -> None:
    history = History(100)
    measured = Meter(history, jnp.ones(3))
    program = jax.jit(lambda x: jnp.sin(x) * 12.25)
    program(np.ones(3))
    clock.now += 30
    assert measured.lap(1) is None
    program(np.ones(3))
    clock.now += 2
    assert measured.lap(1) == 2
    program(np.ones(5))  # another shape: compiled late
    clock.now += 30
    assert measured.lap(1) is None
    assert history.steps_per_second == 0.5


def test_a_history_without_timed_steps_has_no_speed() -> None:
    history = History.from_json({"steps": 10, "curve": [[1, 2.0, 0.5]], "seconds": 9.0})
    assert (history.seconds, history.steps_per_second) == (9.0, None)
    history.record_time(3, 1.5)
    assert History.from_json(json.loads(json.dumps(history.to_json()))).steps_per_second == 2.0


@pytest.mark.parametrize("stops", [(), (5, 9)])
def test_the_speed_of_a_run_is_that_of_its_steps(
    tiny: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock, stops: tuple[int, ...]
) -> None:
    """A step takes a second, an evaluation a hundred: a step a second, over all sessions."""
    advance, evaluate, lap, calls = trainer.train_steps, trainer.evaluate, Meter.lap, 0

    def slow_advance(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in stops:
            os.kill(os.getpid(), signal.SIGTERM)
        clock.now += 1
        return advance(*arguments)

    def slow_evaluate(*arguments: Any) -> Any:
        clock.now += 100
        return evaluate(*arguments)

    def lap_without_compilation(self: Meter, steps: int) -> float | None:
        self._compiled = meter._compiled
        return lap(self, steps)

    monkeypatch.setattr(trainer, "train_steps", slow_advance)
    monkeypatch.setattr(trainer, "evaluate", slow_evaluate)
    monkeypatch.setattr(Meter, "lap", lap_without_compilation)
    ends: list[Outcome] = []
    while not ends or ends[-1].status == "interrupted":
        ends.append(trainer.train(StepFunctions(tiny_config(), CARD), tiny, tmp_path))
    assert len(ends) == 1 + len(stops)
    assert (ends[-1].history.timed_steps, ends[-1].history.timed_seconds) == (12, 12.0)
    assert ends[-1].steps_per_second == 1.0


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_memory_is_what_arrays_take_and_not_the_process(tiny: Prepared, tmp_path: Path) -> None:
    before = np.ones(300 * MIB, np.uint8)  # as of an interpreter and a compiler
    held = jnp.ones(64 * MIB, jnp.uint8)
    peak = Peak(held)
    assert peak.bytes() == pytest.approx(64 * MIB, abs=8 * MIB)
    step = np.ones(128 * MIB, np.uint8)
    del step
    assert peak.bytes() == pytest.approx(192 * MIB, abs=8 * MIB)
    peak.restart()
    assert peak.bytes() == pytest.approx(64 * MIB, abs=8 * MIB)

    outcome = trainer.train(StepFunctions(tiny_config(), CARD), tiny, tmp_path)
    resident = kilobytes(Path("/proc/self/status"), "VmRSS")
    assert resident is not None
    assert before.sum() < resident
    assert outcome.peak_bytes is not None
    assert 4 * 3 * outcome.parameters < outcome.peak_bytes < 100 * MIB  # parameters and the optimiser's two means
