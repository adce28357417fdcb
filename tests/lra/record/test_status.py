"""What `run_lra.py status` says of runs that go on, were killed, stopped, failed, diverged, finished, or wait."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import run_lra
from lra.config import RunConfig
from lra.paths import write_atomically
from lra.record import files as record
from lra.record import status
from lra.runtime import heartbeat
from lra.runtime.heartbeat import Heartbeat, write_beat
from lra.runtime.locks import run_lock
from lra.training import trainer
from lra.training.step_functions import StepFunctions
from lra.training.trainer import train
from tasks.listops import CARD
from tests.lra.conftest import tiny_config
from tests.lra.leaderboard.test_leaderboard import STEPS, run

ROOT = Path(__file__).resolve().parents[3]
PROCESS = """
import sys, time
from pathlib import Path
from lra.runtime.heartbeat import Heartbeat
from lra.runtime.locks import run_lock

with run_lock(Path(sys.argv[1])), Heartbeat(Path(sys.argv[1]), 500) as heartbeat:
    heartbeat.update(300, 0.25)
    time.sleep(1.5)
    print("written", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LRA_RUNS", str(tmp_path))
    return tmp_path


def begun(runs: Path, seed: int, **fields: Any) -> Path:
    """The directory of a run that has only been planned, as `train` makes it."""
    made = run(0.5, seed=seed, **fields).record
    directory = runs / made.id
    config = {**made.config.as_json(), "mixer": made.mixer.name}
    write_atomically(directory / "config.json", json.dumps(config))
    return directory


@pytest.fixture
def process() -> Iterator[Any]:
    """Starts a process that works on a run."""
    started = []

    def start(directory: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROCESS, str(directory)]
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        started.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()


def shown(width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(status.as_table(status.statuses()))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_state_of_every_kind_of_run(runs: Path, process: Any) -> None:
    places = [begun(runs, seed) for seed in range(8)]
    process(places[0])
    killed = process(places[1])
    killed.kill()
    killed.wait()
    with pytest.raises(ValueError, match="a cause"), run_lock(places[2]), Heartbeat(places[2], STEPS):
        raise ValueError("a cause")
    with run_lock(places[3]), Heartbeat(places[3], STEPS) as beat:
        beat.update(7, None)
    for seed, accuracy in ((5, None), (6, 0.5)):
        validation = [[300, 1.5, 0.3], [STEPS, 1.2, 0.4]]
        record.write(places[seed] / "records", run(accuracy, seed=seed, validation=validation).record)
    truncated = run(0.4, seed=7, status="truncated").record
    record.write(places[7] / "records", truncated)

    found = status.statuses()
    states = ["running", "died", "failed", "stopped", "waiting", "diverged", "finished"]
    of_seed = {r.seed: r for r in found}
    assert [of_seed[seed].state for seed in range(8)] == [*states, "stopped"]
    assert [r.state for r in found] == sorted([*states, "stopped"], key=states.index)
    assert [of_seed[seed].step for seed in range(8)] == [300, 300, None, 7, None, STEPS, STEPS, 120]
    accuracies = [of_seed[seed].validation_accuracy for seed in range(8)]
    assert accuracies == [0.25, 0.25, None, None, None, 0.4, 0.4, 0.3]
    assert of_seed[2].message == "ValueError: a cause"
    assert "without a message" in of_seed[1].message
    assert all(0 <= of_seed[seed].sign_age_s < 30 for seed in (0, 1, 2, 3))  # type: ignore[operator]
    assert of_seed[4].sign_age_s is None

    expected = shown()
    head = "1 running, 1 died, 1 failed, 2 stopped, 1 waiting, 1 diverged, 1 finished"
    assert expected.splitlines()[0] == f"{runs}: {head}"
    assert f"{places[1].name}: died: its process ended without a message" in expected
    row = next(line for line in expected.splitlines() if " running " in line).split()
    assert row[:6] == ["listops", "cosformer", "quick", "running", "0", "300/500"]
    assert row[-2] == "25.00%"


def test_another_machine_is_believed_for_a_while(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its lock cannot be seen from here."""
    directory = begun(runs, 0)
    monkeypatch.setattr(heartbeat.socket, "gethostname", lambda: "elsewhere")
    write_beat(directory, "running", step=5)
    monkeypatch.undo()
    monkeypatch.setenv("LRA_RUNS", str(runs))
    assert status.statuses()[0].state == "running"
    later = time.time() + status.LOST_SECONDS + 1
    monkeypatch.setattr(status.time, "time", lambda: later)
    assert status.statuses()[0].state == "died"
    write_beat(directory, "running", step=5)  # by this machine, whose locks are seen
    assert status.statuses()[0].state == "died"


def test_time_left_is_counted_without_the_first_step(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0, 105.0])
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: next(clock))
    directory = begun(runs, 0)
    beat = Heartbeat(directory, STEPS)
    for step in (200, 201, 211):  # read from a checkpoint; compiled; trained
        beat.update(step, None)
    beat._write("running")
    monkeypatch.setattr(status, "has_process", lambda _: True)
    (found,) = status.statuses()
    assert found.steps_per_second == 2.0
    assert found.seconds_left == (STEPS - 211) / 2
    assert " 2m " in shown()


@pytest.mark.slow
def test_the_trainer_gives_signs(runs: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL_SECONDS", 0.0)
    directory = begun(runs, 0)
    seen: list[status.RunStatus] = []
    real = trainer.train_steps

    def looking(*arguments: Any) -> Any:
        if arguments[1].step == 6:
            time.sleep(1.2)  # the first beat
            seen.extend(status.statuses())
            raise RuntimeError("the power went")
        return real(*arguments)

    monkeypatch.setattr(trainer, "train_steps", looking)
    with pytest.raises(RuntimeError):
        train(StepFunctions(tiny_config(), CARD), tiny, directory)
    seen.extend(status.statuses())
    monkeypatch.setattr(trainer, "train_steps", real)
    outcome = train(StepFunctions(tiny_config(), CARD), tiny, directory)
    seen.extend(status.statuses())
    assert [(r.state, r.step) for r in seen] == [("running", 6), ("failed", 6), ("stopped", 12)]
    assert seen[1].message == "RuntimeError: the power went"
    assert seen[0].validation_accuracy == outcome.history.validation[0][2]
    assert seen[2].validation_accuracy == outcome.history.validation[-1][2]


def test_hundreds_of_runs_and_files_that_are_none(runs: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is read once."""
    for seed in range(300):
        place = begun(runs, seed, mixer="softmax[x]")
        record.write(place / "records", run(0.5, seed=seed, mixer="softmax[x]").record)
    (runs / "other").mkdir()
    (runs / "other" / "config.json").write_text("{")
    broken = begun(runs, 300) / "records" / "broken.json"
    write_atomically(broken, "{}")
    reads: list[Path] = []
    load, read = record.load, RunConfig.read
    monkeypatch.setattr(record, "load", lambda path: reads.append(path) or load(path))
    monkeypatch.setattr(RunConfig, "read", lambda path: reads.append(path) or read(path))
    assert run_lra.main(["status", "--format", "json"]) == 0
    assert len(reads) == len(set(reads)) == 301 + 302  # records and configurations
    found = json.loads(capsys.readouterr().out)
    assert [r["state"] for r in found] == ["waiting"] + 300 * ["finished"]
    assert str(broken) in found[0]["message"]
    assert "softmax[x]" in shown()
    assert len(reads) == 301 + 2 * 302  # `status --watch` reads a record again only after it has changed


def test_watching_goes_on_until_interrupted(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = begun(runs, 0)

    def sleep(_: float) -> None:
        if (place / "records").exists():
            raise KeyboardInterrupt
        record.write(place / "records", run(0.5).record)

    monkeypatch.setattr(status.time, "sleep", sleep)
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    status.watch(console)
    expected = console.file.getvalue()  # type: ignore[attr-defined]
    assert expected.index("1 waiting") < expected.index("1 finished")


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.4, "0s"), (59, "59s"), (150, "2m"), (3_900, "1h05m"), (180_000, "2d2h")]
)
def test_durations_are_short(seconds: float, expected: str) -> None:
    assert status.duration(seconds) == expected
