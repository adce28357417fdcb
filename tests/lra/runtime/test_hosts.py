"""One run in two processes that share nothing but a directory: the same as in one, and it survives the loss of one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lra.paths import ROOT
from lra.record import files as record
from lra.record.files import unpack

pytestmark = pytest.mark.slow

RUN = [
    *("train", "--task", "listops", "--mixer", "cosformer", "--protocol", "quick", "--source", "sample"),
    *("--limit", "50", "--train.batch-size", "8", "--train.eval-every", "10", "--train.steps", "30"),
    *("--model.dropout", "0.1", "--model.attention-dropout", "0.1"),
    *("--model.layers", "1", "--model.d-model", "16", "--model.qkv-dim", "16", "--model.mlp-dim", "16"),
]


def start(runs: Path, process: int | None, port: int = 0) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "LRA_RUNS": str(runs),
        "LRA_PREPARED": str(ROOT / ".cache" / "prepared-for-tests"),
        "JAX_NUM_CPU_DEVICES": "2" if process is None else "1",
    }
    words = [sys.executable, str(ROOT / "run_lra.py"), *RUN]
    if process is not None:
        environment |= {"LRA_COORDINATOR": f"localhost:{port}", "LRA_PROCESSES": "2", "LRA_PROCESS": str(process)}
        words.append("--distributed")
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return int(s.getsockname()[1])


def both(runs: Path) -> list[subprocess.Popen[str]]:
    port = free_port()
    return [start(runs, process, port) for process in (0, 1)]


def only_record(runs: Path) -> dict:
    (path,) = runs.glob("*/records/*.json")
    return record.read(path).as_json()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict:
    runs = tmp_path_factory.mktemp("alone")
    _, message = start(runs, None).communicate(timeout=300)
    assert list(runs.glob("*/records/*.json")), message
    return only_record(runs)


def assert_same(got: dict, want: dict) -> None:
    assert got["config_sha256"] == want["config_sha256"]
    assert got["status"] == "complete"
    np.testing.assert_allclose(np.array(got["curve"]), np.array(want["curve"]), rtol=1e-4)
    np.testing.assert_allclose(np.array(got["validation"]), np.array(want["validation"]), rtol=1e-3)
    differing = unpack(got["test"]["predictions"], 50) != unpack(want["test"]["predictions"], 50)
    assert differing.mean() <= 0.02


def after_step(step: int, process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    assert any(f"step {step}, validation" in line for line in process.stderr)


def test_two_processes_train_as_one_with_dropout_and_stop_together(alone: dict, tmp_path: Path) -> None:
    processes = both(tmp_path)
    after_step(10, processes[1])
    processes[1].send_signal(signal.SIGTERM)  # the other one hears of it from this one
    for p in processes:
        p.communicate(timeout=120)
    assert [p.returncode for p in processes] == [130, 130]

    processes = both(tmp_path)
    message = [p.communicate(timeout=300)[1] for p in processes]
    assert [p.returncode for p in processes] == [0, 0], message
    got = only_record(tmp_path)  # of one writer
    assert got["config"]["model"]["dropout"] > 0
    assert got["environment"]["processes"] == 2
    assert_same(got, alone)


@pytest.mark.parametrize("lost", [0, 1])
def test_the_loss_of_one_ends_the_other_within_a_minute_and_the_run_goes_on(
    alone: dict, tmp_path: Path, lost: int
) -> None:
    processes = both(tmp_path)
    after_step(20, processes[lost])
    processes[lost].send_signal(signal.SIGKILL)
    begun = time.monotonic()
    other = processes[1 - lost]
    other.communicate(timeout=120)
    assert time.monotonic() - begun < 60
    assert other.returncode not in (0, None)
    processes[lost].wait()
    assert not list(tmp_path.glob("*/records/*.json"))

    again = both(tmp_path)
    message = [p.communicate(timeout=300)[1] for p in again]
    assert [p.returncode for p in again] == [0, 0], message
    assert "step 10, validation" not in message[0]  # from its checkpoint
    assert_same(only_record(tmp_path), alone)


def test_an_environment_that_says_it_in_part_is_refused(tmp_path: Path) -> None:
    environment = {**os.environ, "LRA_COORDINATOR": "localhost:1", "LRA_RUNS": str(tmp_path)}
    words = [sys.executable, str(ROOT / "run_lra.py"), *RUN, "--distributed"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: --distributed: LRA_PROCESSES, LRA_PROCESS not set" in done.stderr
