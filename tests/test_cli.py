"""The command line as a person uses it: train, stop, go on, evaluate in a new process, look at the board."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lra
import run_lra
from lra import config as cfg
from lra.errors import Interrupted, RunError
from lra.record import files as record
from lra.training import trainer as train
from models.mixers import available
from tasks import load_task
from tests.soak import COMPARED

ROOT = Path(__file__).resolve().parent.parent
TINY = ["--task", "listops", "--protocol", "quick", "--source", "sample", "--model.layers", "1"]
TINY += ["--model.d-model", "16", "--model.qkv-dim", "16", "--model.mlp-dim", "16", "--train.batch-size", "8"]

MIXER = '''
import jax.numpy as jnp
from models.core import QKVAttention


class Mean(QKVAttention):
    """Every place gets the mean of the values of the real ones."""

    def __init__(self, dims, *, scale: float = 1.0, rngs):
        super().__init__(dims, rngs=rngs)
        self.scale = scale

    def attend(self, q, k, v, mask, rng_keys):
        real = mask[:, :, None, None]
        mean = jnp.where(real, v, 0).sum(1, keepdims=True) / jnp.maximum(real.sum(1, keepdims=True), 1)
        return jnp.broadcast_to(self.scale * mean, v.shape)
'''


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("LRA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LRA_PREPARED", str(ROOT / ".cache" / "prepared-for-tests"))
    return tmp_path / "runs"


def command(*words: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    done = [sys.executable, str(ROOT / "run_lra.py"), *words]
    return subprocess.run(done, capture_output=True, text=True, env={**os.environ, "COLUMNS": "140"}, **kwargs)


def only_record(runs: Path) -> dict:
    (path,) = runs.glob("*/records/*.json")
    return record.read(path).as_json()


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["list"]])
def test_a_reader_that_has_seen_enough_is_not_told_of_a_traceback(words):
    end, pipe = os.pipe()
    os.close(end)
    try:
        done = subprocess.run([sys.executable, str(ROOT / "run_lra.py"), *words], stdout=pipe, stderr=subprocess.PIPE)
    finally:
        os.close(pipe)
    assert done.stderr == b""
    assert done.returncode == 1


@pytest.mark.parametrize("task", cfg.TASKS)
def test_a_run_of_each_task_from_data_to_leaderboard(runs, task, capsys):
    tiny = ["--source", "sample", "--model.layers", "1", "--limit", "100", "--train.steps", "4"]
    assert run_lra.main(["train", "--task", task, "--mixer", "cosformer", *tiny]) == 0
    record = only_record(runs)
    assert record["status"] == "complete"
    assert record["test"]["count"] == 100
    assert f"test accuracy {record['test']['accuracy']:.2%}" in capsys.readouterr().out
    assert run_lra.main(["leaderboard", "--protocol", "quick"]) == 0
    board = capsys.readouterr().out
    assert "quick@2 (modified)" in board
    assert load_task(task).CARD.title.split()[0] in board


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_and_evaluates_to_its_number(runs):
    words = ["train", *TINY, "--mixer", "cosformer", "--train.steps", "40", "--train.eval-every", "10"]
    running = subprocess.Popen(
        [sys.executable, str(ROOT / "run_lra.py"), *words], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    for line in running.stderr:
        if "step 20, validation" in line:
            break
    time.sleep(0.2)
    running.send_signal(signal.SIGKILL)
    running.wait()
    running.stderr.close()
    assert not list(runs.glob("*/records/*.json"))
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert "step 10, validation" not in done.stderr
    result = only_record(runs)
    assert result["status"] == "complete"
    assert [point[0] for point in result["validation"]] == [10, 20, 30, 40]
    assert result["column"]["modified"]
    assert f"test accuracy {result['test']['accuracy']:.2%}" in done.stdout
    again = command("evaluate", result["id"])
    assert again.returncode == 0, again.stderr
    assert "the same" in again.stdout
    assert f"({result['test']['correct']} of {result['test']['count']})" in again.stdout
    repeated = command(*words)
    assert repeated.returncode == 0
    assert only_record(runs) == result


@pytest.mark.slow
def test_a_mixer_of_ones_own_from_any_directory(runs, tmp_path):
    (tmp_path / "mine.py").write_text(f"{MIXER}\nVERSION = 3\n")
    few = ["--train.steps", "3", "--limit", "20", "--mixer-options", "scale=0.5"]
    done = command("train", *TINY, "--mixer", "mine.py:Mean", *few, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = only_record(runs)
    assert result["mixer"]["label"].startswith("mine.py:Mean@")
    assert result["mixer"]["label"].endswith("(scale=0.5)")
    assert len(result["mixer"]["sha256"]) == 64
    assert result["mixer"]["version"] == 3
    assert result["test"]["count"] == 20
    assert str(tmp_path) not in json.dumps(result)  # nobody's home directory in a record
    board = command("leaderboard", "--format", "md")
    assert "mine.py:Mean@" in board.stdout
    assert "(modified)" in board.stdout


def test_from_python(runs):
    small = {"model.layers": 1, "model.d_model": 16, "model.qkv_dim": 16, "train.steps": 2, "train.batch_size": 4}
    result = lra.run("listops", "linear", protocol="quick", source="sample", limit=10, overrides=small)
    assert result.status == "complete"
    assert result.seed == 0
    assert [f.record.id for f in lra.records() if f.origin == "yours"] == [result.id]


@pytest.mark.slow
def test_data_that_vanish_under_a_run_are_prepared_again(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("LRA_PREPARED", str(tmp_path / "prepared"))
    small = {"model.layers": 1, "model.d_model": 16, "model.qkv_dim": 16, "train.steps": 6, "train.batch_size": 4}

    def go():
        return lra.run("listops", "linear", protocol="quick", source="sample", limit=10, overrides=small)

    advance = train.train_steps

    def vanishing(program, state, *arguments):
        if state.step == 3:
            shutil.rmtree(tmp_path / "prepared")
            os.kill(os.getpid(), signal.SIGTERM)
        return advance(program, state, *arguments)

    monkeypatch.setattr(train, "train_steps", vanishing)
    with pytest.raises(Interrupted, match="step 4 of 6"):
        go()
    monkeypatch.setattr(train, "train_steps", advance)
    parts = go()
    monkeypatch.setenv("LRA_RUNS", str(tmp_path / "other"))
    whole = go()
    assert [getattr(parts, key) for key in COMPARED] == [getattr(whole, key) for key in COMPARED]


@pytest.mark.slow
def test_a_run_that_diverged_says_so_again(runs):
    wild = {"model.layers": 1, "model.d_model": 16, "model.qkv_dim": 16, "train.steps": 4, "train.learning_rate": 1e30}
    for _ in range(2):
        with pytest.raises(RunError, match="not a number at step"):
            lra.run("listops", "linear", protocol="quick", source="sample", overrides=wild)
    assert only_record(runs)["status"] == "diverged"


def test_a_board_without_runs_says_how_to_begin(runs, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("LRA_RESULTS", str(tmp_path / "none"))
    assert run_lra.main(["leaderboard"]) == 0
    assert "run_lra.py" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--task", "listop", "--mixer", "cosformer"], "listops"),
        (["train", *TINY, "--mixer", "cosforme"], f"a mixer is one of {', '.join(available())}, or"),
        (["train", *TINY, "--mixer", "cosformer", "--mixer-options", "window=2"], "its options: eps"),
        (["train", *TINY, "--mixer", "cosformer", "--train.stepz", "2"], "train.steps"),
        (["evaluate", "nothing"], "no run 'nothing'"),
        (["suite", "--protocol", "quick", "--mixers", "nope"], "a mixer is one of"),
        (["data", "prepare", "--tasks", "listops", "--variant", "fuller"], "full, short"),
    ],
)
def test_errors_name_what_is_valid(runs, capsys, words, message):
    try:
        status = run_lra.main(words)
    except SystemExit as stop:  # tyro's own errors
        status = stop.code
    result = capsys.readouterr()
    assert status
    assert message in result.err + result.out
    assert "Traceback" not in result.err


def test_defaults_shown_are_those_of_the_protocol(capsys):
    for task, protocol, steps in (("text", "lra", "20000"), ("listops", "laptop", "2500")):
        with pytest.raises(SystemExit) as stop:
            run_lra.main(["train", "--task", task, "--protocol", protocol, "--help"])
        assert stop.value.code == 0
        message = " ".join(capsys.readouterr().out.split())
        assert f"--train.steps INT (default: {steps})" in message
