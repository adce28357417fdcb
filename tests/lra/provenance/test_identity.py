"""A run is its settings, its data and its code: edited code is another run, and a record names who computed it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lra import api, finished
from lra.config import RunConfig
from lra.errors import Interrupted, RunError
from lra.leaderboard.build import board
from lra.provenance import code, environment, sessions
from lra.provenance.code import Code
from lra.record import earlier
from lra.record import files as record
from lra.runtime import distributed
from lra.sweep import plan as sweep
from lra.sweep import tuning
from lra.sweep.plan import Sweep, make_plan
from lra.training import trainer
from tasks.core import Prepared
from tests.lra.conftest import tiny_config
from tests.lra.edited import edited as edited_record
from tests.lra.leaderboard.test_leaderboard import run as recorded

pytestmark = pytest.mark.slow

FILE = "models/mixers/cosformer.py"
Edit = Callable[[str], None]


@pytest.fixture
def runs(tiny: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LRA_RUNS", str(tmp_path))
    for module in (api, finished):
        monkeypatch.setattr(module, "prepare", lambda *_, **__: tiny)
        monkeypatch.setattr(module, "use_compilation_cache", lambda: None)
    return tmp_path


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Edit:
    """As if a process had started with another content of the mixer's file; "" is the content that there is."""

    def edit(text: str) -> None:
        def computing(config: RunConfig) -> Code:
            files = dict(code.computing(config).files)
            return Code(files | ({FILE: text} if text else {}))

        for module in (api, earlier, trainer, finished, sweep, tuning):
            monkeypatch.setattr(module, "computing", computing)

    return edit


def stopped_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains until a signal comes after so many steps."""
    real = trainer.train_steps

    def interrupting(program: Any, state: Any, *arguments: Any) -> Any:
        if state.step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(program, state, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "train_steps", interrupting)
        with pytest.raises(Interrupted):
            api.run_config(tiny_config())


def test_edited_code_is_a_new_run_and_says_so(runs: Path, edited: Edit, capsys: Any) -> None:
    first = api.run_config(tiny_config())
    assert first.id.endswith(f"-{code.computing(tiny_config()).sha256[:6]}")
    assert first.code.computing is not None
    assert first.code.computing.as_json() == code.computing(tiny_config()).as_json()
    before = {path: path.read_bytes() for path in runs.rglob("*.json")}
    capsys.readouterr()

    assert api.run_config(tiny_config()) == first
    assert capsys.readouterr().err == f"{first.id}: complete since {first.created}, not trained again\n"

    edited("0" * 64)
    second = api.run_config(tiny_config())
    message = capsys.readouterr().err
    assert second.id != first.id
    assert second.id.rpartition("-")[0] == first.id.rpartition("-")[0]
    assert second.config_sha256 == first.config_sha256
    assert "step 12, validation" in message  # it was trained
    expected = f"not that of {first.id} (complete, test accuracy {first.test.accuracy:.2%})"
    assert expected in message
    assert f"  changed: {FILE}\n" in message
    assert f"check out commit {first.code.git_commit}" in message
    assert {path: path.read_bytes() for path in before} == before
    assert api.run_config(tiny_config()) == second
    assert "a new run" not in capsys.readouterr().err

    edited("")
    assert api.run_config(tiny_config()) == first


def test_an_earlier_run_that_was_stopped_is_not_resumed(
    runs: Path, edited: Edit, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    stopped_at(5, monkeypatch)
    capsys.readouterr()
    edited("0" * 64)
    api.run_config(tiny_config())
    message = capsys.readouterr().err
    assert "(stopped at step 5 of 12)" in message
    assert f"  changed: {FILE}\n" in message
    assert "step 4, validation" in message  # from the first step


def test_a_run_that_was_made_before_code_was_recorded_is_of_other_code(runs: Path, capsys: Any) -> None:
    record_now = api.run_config(tiny_config())
    old = runs / record_now.id.rpartition("-")[0]
    (runs / record_now.id).rename(old)
    (old / "code.json").unlink()
    path = old / "records" / f"{record_now.id}.json"
    fields = record_now.as_json()
    del fields["code"]["computing"]
    path.with_name(f"{old.name}.json").write_text(json.dumps(fields | {"id": old.name}))
    path.unlink()
    capsys.readouterr()
    assert api.run_config(tiny_config()).id == record_now.id
    message = capsys.readouterr().err
    assert f"not that of {old.name} (complete, test accuracy" in message
    assert "it was made before code was recorded" in message
    finished.evaluate_run(old.name)
    assert "it was made before code was recorded" in capsys.readouterr().err


def test_a_directory_that_was_copied_or_renamed_is_not_resumed(
    runs: Path, edited: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at(5, monkeypatch)
    (theirs,) = runs.iterdir()
    edited("0" * 64)
    config = tiny_config()
    mine = runs / config.run_id("0" * 64, trainer.computing(config).sha256)
    shutil.copytree(theirs, mine)
    with pytest.raises(RunError, match=rf"computed by other code and is not resumed \(changed: {FILE}\)"):
        api.run_config(config)
    edited("")
    whole = api.run_config(config)
    shutil.rmtree(mine)
    shutil.copytree(theirs, mine)
    (mine / "records" / f"{whole.id}.json").rename(mine / "records" / f"{mine.name}.json")
    edited("0" * 64)
    with pytest.raises(RunError, match=f"is the record of another run, {whole.id}"):
        api.run_config(config)


def test_processes_of_different_code_do_not_train_together(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert distributed.same_everywhere("ab" * 32)
    for others, same in (("ab" * 32, True), ("ab" * 31 + "ac", False)):
        with monkeypatch.context() as patched:
            patched.setattr(jax, "process_count", lambda: 2)
            gathered = lambda mine, others=others: np.stack([mine, np.frombuffer(bytes.fromhex(others), np.uint8)])  # noqa: E731
            patched.setattr(distributed.multihost_utils, "process_allgather", gathered)
            assert distributed.same_everywhere("ab" * 32) == same
    monkeypatch.setattr(trainer, "same_everywhere", lambda _: False)
    with pytest.raises(RunError, match="the processes that train this run have different code"):
        api.run_config(tiny_config())


def test_evaluating_a_run_of_other_code_names_the_files(runs: Path, edited: Edit, capsys: Any) -> None:
    made = api.run_config(tiny_config())
    capsys.readouterr()
    finished.evaluate_run(made.id)
    assert capsys.readouterr().err == ""
    edited("0" * 64)
    again, _ = finished.evaluate_run(made.id)
    message = capsys.readouterr().err
    assert message.startswith(f"note: the code here is not that which trained {made.id}")
    assert message.endswith(f"changed: {FILE}\n")
    assert again.correct.sum() == made.test.correct


def test_one_damaged_record_elsewhere_keeps_no_run_from_being_evaluated(runs: Path) -> None:
    made = api.run_config(tiny_config())
    (runs / "other" / "records").mkdir(parents=True)
    (runs / "other" / "records" / "other.json").write_text("")
    assert finished.trained(made.id).record == made


def test_the_board_shows_your_runs_of_the_code_here(runs: Path, edited: Edit, monkeypatch: pytest.MonkeyPatch) -> None:
    def shown() -> tuple[float, ...]:
        (table,) = board(record.find([(runs, "yours")])).tables
        (row,) = table.rows
        assert row.cells[0] is not None
        return row.cells[0].accuracies

    def run(accuracy: float, seed: int = 0) -> None:
        made = api.run_config(dataclasses.replace(tiny_config(), seed=seed))
        path = record.complete_record_path(runs / made.id)
        path.write_text(record.as_text(edited_record(made, {"test.accuracy": accuracy, "created": next(dates)})))

    dates = (f"2026-01-0{n}T00:00:00+00:00" for n in range(1, 9))
    run(0.1)
    run(0.2, seed=1)
    assert shown() == (0.1, 0.2)
    edited("0" * 64)
    run(0.3)
    assert shown() == (0.3,)
    edited("")
    assert shown() == (0.1, 0.2)  # as after `git checkout`
    edited("1" * 64)
    assert shown() == (0.3,)  # no run of this code: the newest


# ---- who computed it


def test_the_code_is_asked_before_the_data_are_prepared(
    runs: Path, tiny: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def prepare(*_: Any, **__: Any) -> Prepared:
        asked.extend([environment.code_state.cache_info().currsize, environment.versions.cache_info().currsize])
        return tiny

    environment.code_state.cache_clear()
    environment.versions.cache_clear()
    monkeypatch.setattr(api, "prepare", prepare)
    made = api.run_config(tiny_config())
    assert asked == [1, 1]
    fields = made.code.as_json()
    assert fields | environment.code_state() == fields


def test_every_session_that_differs_is_in_the_record(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, state = environment.environment(), environment.code_state()
    stopped_at(3, monkeypatch)
    stopped_at(5, monkeypatch)  # in every respect like the first
    monkeypatch.setattr(sessions, "environment", lambda: here | {"device": "another machine"})
    stopped_at(7, monkeypatch)
    monkeypatch.setattr(sessions, "environment", lambda: here)
    monkeypatch.setattr(sessions, "code_state", lambda: state | {"sha256": "1" * 64, "git_clean": False})
    made = api.run_config(tiny_config())
    assert made.environment.as_json() == here
    assert made.code.as_json() == state | {"computing": code.computing(tiny_config()).as_json()}
    later = made.later_sessions
    assert [session.step for session in later] == [5, 7]
    assert [session.environment.device for session in later] == ["another machine", here["device"]]
    assert [session.code.git_clean for session in later] == [state["git_clean"], False]
    (path,) = runs.glob("*/records/*.json")
    assert record.read(path) == made


def test_a_session_that_saved_nothing_has_no_part_in_the_record(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = environment.environment()
    monkeypatch.setattr(sessions, "environment", lambda: here | {"device": "another machine"})
    with monkeypatch.context() as patched:

        def killed(*_: Any) -> None:
            raise MemoryError

        patched.setattr(trainer, "train_steps", killed)
        with pytest.raises(MemoryError):
            api.run_config(tiny_config())
    monkeypatch.setattr(sessions, "environment", lambda: here)
    made = api.run_config(tiny_config())
    assert made.environment.as_json() == here
    assert made.later_sessions == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"code": None}, "it was made before code was recorded"),
        ({"code": {FILE: "0"}}, f"changed: {FILE}; added: lra/runtime/devices.py"),
        ({"sessions": None}, "another version"),
        ({"sessions": [{"step": 0}]}, "another version"),
        (
            {"sessions": [{"step": "0", "started": "", "environment": {}, "code": {}}]},
            "[0].step is '0': input should be a valid integer",
        ),
    ],
)
def test_sessions_of_any_content_are_read_or_refused(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    computing = code.computing(tiny_config())
    saved = sessions.as_json(computing, sessions.continued((), 0))
    assert sessions.from_json(json.loads(json.dumps(saved)), computing, tmp_path)[0].step == 0
    with pytest.raises(RunError) as error:
        sessions.from_json(saved | change, computing, tmp_path)
    assert expected in str(error.value)


# ---- sweeps


def test_a_sweep_and_its_trials_are_of_the_code_here(runs: Path, edited: Edit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "write_baselines", lambda *_: [])
    wanted, data = Sweep(["listops"], ["cosformer"], protocol="quick"), {"listops": ("0" * 64, "short")}
    (job,) = make_plan(wanted, data).jobs
    config = RunConfig.read(job.directory / "config.json")
    assert job.directory.name == config.run_id("0" * 64, code.computing(config).sha256)
    edited("0" * 64)
    (other,) = make_plan(wanted, data).jobs
    assert [d.name for d in runs.iterdir()] == [other.directory.name]  # what never began is not waited for
    assert other.directory != job.directory

    (other.directory / "records").mkdir()
    name = f"{other.directory.name}.json"
    ended = recorded(0.5).record
    monkeypatch.setattr(tuning.files, "load", lambda path: (edited_record(ended, {"message": path.name}), []))
    (other.directory / "records" / name).write_text("")
    found = tuning.run_record(config, data["listops"])
    assert found is not None
    assert found.message == name
    assert make_plan(wanted, data).jobs == []
    edited("")
    assert tuning.run_record(config, data["listops"]) is None
    (again,) = make_plan(wanted, data).jobs
    assert again.directory == job.directory
    assert other.directory.exists()
