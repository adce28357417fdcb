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
from lra.training.history import Journal, Journals
from lra.training.meter import Meter
from lra.training.trainer import Outcome
from tasks.core import Prepared
from tasks.listops import CARD
from tests.lra.conftest import tiny_config

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
    journals = Journals([Journal(100), Journal(100, timed_steps=5, timed_seconds=50.0)])
    measured = Meter(journals, jnp.ones(3))
    clock.now += 2
    assert measured.lap(4) == 0.5
    clock.now += 1000  # an evaluation, or a checkpoint
    measured.restart()
    clock.now += 4
    assert measured.lap(1) == 4
    assert [(j.timed_steps, j.timed_seconds) for j in journals.each] == [(5, 6.0), (10, 56.0)]
    assert [j.steps_per_second for j in journals.each] == [5 / 6, 10 / 56]


def test_a_lap_that_compiled_does_not_count(clock: Clock) -> None:
    journals = Journals([Journal(100)])
    measured = Meter(journals, jnp.ones(3))
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
    assert journals.each[0].steps_per_second == 0.5


def test_a_journal_without_a_time_of_steps_has_no_speed() -> None:
    """As one of a checkpoint from before it was kept: it goes on with the steps that follow."""
    (journal,) = Journals.from_json({"journals": [{"steps": 10, "curve": [[1, 2.0, 0.5]], "seconds": 9.0}]}).each
    assert (journal.seconds, journal.steps_per_second) == (9.0, None)
    again = Journals([dataclasses.replace(journal, timed_steps=3, timed_seconds=1.5)])
    (saved,) = Journals.from_json(json.loads(json.dumps(again.to_json()))).each
    assert saved.steps_per_second == 2.0


@pytest.mark.parametrize("stops", [(), (5, 9)])
def test_the_speed_of_a_run_is_that_of_its_steps(
    tiny: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock, stops: tuple[int, ...]
) -> None:
    """A step takes a second, an evaluation a hundred: a step a second, over all sessions."""
    advance, evaluate, lap, calls = trainer.advance, trainer.evaluate, Meter.lap, 0

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

    monkeypatch.setattr(trainer, "advance", slow_advance)
    monkeypatch.setattr(trainer, "evaluate", slow_evaluate)
    monkeypatch.setattr(Meter, "lap", lap_without_compilation)
    ends: list[Outcome] = []
    while not ends or ends[-1].status == "interrupted":
        ends.append(trainer.train(tiny_config(), CARD, tiny, tmp_path))
    assert len(ends) == 1 + len(stops)
    assert (ends[-1].journal.timed_steps, ends[-1].journal.timed_seconds) == (12, 12.0)
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

    outcome = trainer.train(tiny_config(), CARD, tiny, tmp_path)
    resident = kilobytes(Path("/proc/self/status"), "VmRSS")
    assert resident is not None
    assert before.sum() < resident
    assert outcome.peak_bytes is not None
    assert 4 * 3 * outcome.parameters < outcome.peak_bytes < 100 * MIB  # parameters and the optimiser's two means
