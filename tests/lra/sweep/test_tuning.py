"""The learning rate is chosen on validation, whatever the test says, and the board shows what was tried."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from lra import config
from lra.config import Protocol, RunConfig, protocol
from lra.errors import RunError
from lra.leaderboard.build import board
from lra.protocols import tuning_grid
from lra.record.facts import changes
from lra.record.files import RecordFile, find
from lra.record.schema import RunRecord, TuningRecord
from lra.sweep import plan as sweep
from lra.sweep import tuning
from lra.sweep.job import Job
from lra.sweep.plan import Sweep
from tests.lra.leaderboard.test_leaderboard import run

Run = RecordFile[RunRecord]
RATE = protocol("listops", "quick").train.learning_rate


def trial(rate: float, validation: float, test: float | None, seed: int = 0, mixer: str = "cosformer") -> Run:
    overrides = {} if rate == RATE else {"train.learning_rate": rate}
    return run(test, mixer=mixer, seed=seed, overrides=overrides, validation=[[10, 2.0, 0.1], [20, 1.5, validation]])


def records(*found: Run) -> dict[float, RunRecord]:
    return {f.record.config.train.learning_rate: f.record for f in found}


def test_the_grid_has_the_protocols_rate() -> None:
    assert tuning_grid(protocol("listops", "quick"))[1] == RATE
    configs = tuning.trials("listops", "cosformer", "quick")
    assert list(configs) == tuning_grid(protocol("listops", "quick"))
    assert [c.modified for c in configs.values()] == [True, False, True]


def test_the_grid_is_that_of_the_mixers_own_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a protocol has other sizes for a mixer, its rate is one of them."""

    def for_fnet(base: Protocol, name: str, options: Any) -> Protocol:
        faster = dataclasses.replace(base.train, learning_rate=2 * base.train.learning_rate)
        return dataclasses.replace(base, train=faster) if name == "fnet" else base

    monkeypatch.setattr(tuning, "protocol_for", for_fnet)
    assert list(tuning.trials("listops", "fnet", "quick"))[1] == 2 * RATE
    assert list(tuning.trials("listops", "cosformer", "quick"))[1] == RATE
    monkeypatch.setattr(config, "protocol_for", for_fnet)
    fast = run(0.4, mixer="fnet", overrides={"train.learning_rate": 2 * RATE}).record
    assert changes(fast) == ()
    assert changes(run(0.4, mixer="fnet").record) == (f"train.learning_rate={RATE}",)
    assert changes(run(0.4).record) == ()


def test_validation_chooses() -> None:
    assert tuning.choose(records(trial(0.1, 0.30, 0.9), trial(0.2, 0.40, 0.1))) == 0.2
    assert tuning.choose(records(trial(0.2, 0.40, 0.1), trial(0.1, 0.40, 0.1))) == 0.1  # equals: the smaller
    assert tuning.choose(records(trial(0.1, 0.30, 0.9), trial(0.2, 0.99, None))) == 0.1  # diverged
    with pytest.raises(RunError, match=r"every rate of 0.1, 0.2 diverged"):
        tuning.choose(records(trial(0.1, 0.3, None), trial(0.2, 0.3, None)))


def test_a_choice_is_recorded_once_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRA_RUNS", str(tmp_path))
    tried = [trial(0.3 * RATE, 0.3, 0.39), trial(RATE, 0.2, 0.2), trial(3 * RATE, 0.4, 0.35)]
    assert tuning.write_tuning(records(*tried)) == pytest.approx(3 * RATE)
    before = [path.read_bytes() for path in sorted(tmp_path.rglob("*.json"))]
    tuning.write_tuning(records(*tried))
    assert [path.read_bytes() for path in sorted(tmp_path.rglob("*.json"))] == before
    (choice,) = find([(tmp_path, "yours")])
    assert isinstance(choice.record, TuningRecord)
    assert [t.validation for t in choice.record.trials] == [0.3, 0.2, 0.4]

    others = [trial(3 * RATE, 0.4, 0.37, seed=1), trial(3 * RATE, 0.4, 0.3, mixer="softmax")]
    made = board([*tried, *others, choice])
    tracks = {t.track: t for t in made.tables}
    assert list(tracks) == ["matched", "tuned", "modified"]
    (row,) = tracks["tuned"].rows
    assert (row.label, row.changes) == ("cosformer", ("3 learning rates tried",))
    assert row.cells[0] is not None
    assert row.cells[0].accuracies == (0.35, 0.37)
    assert len(tracks["matched"].rows) == 1
    assert len(made.runs) == len(tried) + len(others)  # each record once


def test_a_choice_counts_where_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Your own tuning says nothing of committed runs."""
    monkeypatch.setenv("LRA_RUNS", str(tmp_path))
    tried = [trial(0.3 * RATE, 0.3, 0.39), trial(RATE, 0.2, 0.2), trial(3 * RATE, 0.4, 0.35)]
    tuning.write_tuning(records(*tried))
    committed = [dataclasses.replace(f, origin="committed") for f in tried]
    assert [t.track for t in board([*committed, *find([(tmp_path, "yours")])]).tables] == ["matched", "modified"]


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that a suite would run."""
    jobs: list[Job] = []

    def run_jobs(wanted: list[Job], slots: Any) -> list[str]:
        jobs.extend(wanted)
        return []

    monkeypatch.setenv("LRA_RUNS", str(tmp_path))
    monkeypatch.setattr(sweep, "run_jobs", run_jobs)
    monkeypatch.setattr(sweep, "write_baselines", lambda *_: [])
    return jobs


def rate_of(job: Job) -> str | None:
    words = job.arguments
    return words[words.index("--train.learning-rate") + 1] if "--train.learning-rate" in words else None


def test_a_suite_continues_with_the_best_rate(started: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    """The trials of both mixers first; those of fnet are complete, so its seeds run at the same time."""
    reached = dict(zip(tuning_grid(protocol("listops", "quick")), [0.3, 0.2, 0.4], strict=True))

    def run_record(config: RunConfig, _: str) -> RunRecord | None:
        if config.mixer == "cosformer" and not started:
            return None
        return trial(config.train.learning_rate, reached[config.train.learning_rate], 0.1).record

    monkeypatch.setattr(tuning, "run_record", run_record)
    monkeypatch.setattr(tuning, "write_tuning", tuning.choose)
    assert sweep.suite(Sweep(["listops"], ["cosformer", "fnet"], protocol="quick", seeds=2, tune=True)) == []
    rates = [str(rate) for rate in reached]
    assert [rate_of(job) for job in started] == [*rates, rates[2], rates[2], rates[2], rates[2]]
    assert [job.name for job in started[3:]] == [f"listops {m} seed {s}" for m in ("fnet", "cosformer") for s in (0, 1)]
    assert [job.arguments[-1] for job in started[3:]] == ["0", "1", "0", "1"]


def test_nothing_is_chosen_from_half_a_grid(started: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "run_record", lambda *_: None)
    (failed,) = sweep.suite(Sweep(["listops"], ["cosformer"], protocol="quick", tune=True))
    assert "not every learning rate of the grid is complete" in failed
    assert len(started) == 3


def test_a_mixer_that_diverges_at_every_rate_keeps_no_other_waiting(
    started: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_record(config: RunConfig, _: str) -> RunRecord:
        return trial(config.train.learning_rate, 0.3, None if config.mixer == "cosformer" else 0.2).record

    monkeypatch.setattr(tuning, "run_record", run_record)
    (failed,) = sweep.suite(Sweep(["listops"], ["cosformer", "fnet"], protocol="quick", tune=True))
    assert failed.startswith("listops cosformer: tuning: every rate of")
    assert [job.name for job in started] == ["listops fnet seed 0"]


def test_without_a_validation_split_the_protocols_rate_stays(started: list[Job], capsys: Any) -> None:
    sweep.suite(Sweep(["text"], ["cosformer"], protocol="quick", tune=True))
    assert [rate_of(job) for job in started] == [None]
    assert "text has no validation split to choose a learning rate by" in capsys.readouterr().err
