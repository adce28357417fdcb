"""Checkpoints after a kill, a full disk or a flipped bit: what is loaded is what was written."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from lra.errors import CheckpointError
from lra.paths import ROOT
from lra.training import checkpoints, trainer
from lra.training.checkpoints import Checkpoints
from lra.training.step_functions import StepFunctions, TrainState
from lra.training.trainer import train
from tasks.listops import CARD
from tests.lra.conftest import tiny_config


def state(step: int, size: int = 300) -> TrainState:
    values = np.random.RandomState(step).standard_normal((size, 7)).astype(np.float32)
    return TrainState(step, {"w": values, "b": values[0]}, {}, {"count": np.int32(step)})


def saved(directory: Path, *steps: int) -> None:
    written = Checkpoints(directory)
    for step in steps:
        written.save("latest", state(step), {"steps": step})


def loaded(directory: Path) -> int:
    """The step of what is loaded, having looked at every number of it."""
    checkpoint = Checkpoints(directory).load("latest", state(0))
    assert checkpoint is not None
    got, progress = checkpoint
    want = state(got.step)
    assert progress == {"steps": got.step}
    for name in ("w", "b"):
        np.testing.assert_array_equal(got.params[name], want.params[name])
    assert got.opt_state["count"] == got.step
    return got.step


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


DAMAGE = {
    "half": lambda f: os.truncate(f, f.stat().st_size // 2),
    "empty": lambda f: os.truncate(f, 0),
    "flipped bit": flip,
    "zeros": lambda f: f.write_bytes(bytes(f.stat().st_size)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_whatever_happens_to_a_file_no_wrong_number_is_loaded(damage: str, tmp_path: Path, capsys) -> None:
    """The previous checkpoint is loaded, with a warning."""
    saved(tmp_path, 3, 8)
    DAMAGE[damage](tmp_path / "latest" / "8.npz")
    assert loaded(tmp_path) == 3
    assert "8.npz: damaged (" in capsys.readouterr().err


def test_no_flipped_bit_of_a_checkpoint_changes_a_number(tmp_path: Path, capsys) -> None:
    """One bit of every 7th byte, and of every byte of the zip directory."""
    small = TrainState(8, {"w": np.arange(6.0)}, {}, {})
    Checkpoints(tmp_path).save("latest", small._replace(step=3), {})
    Checkpoints(tmp_path).save("latest", small, {})
    path = tmp_path / "latest" / "8.npz"
    content = path.read_bytes()
    directory_start = content.index(b"PK\x01\x02")
    steps = []
    for position in (*range(0, directory_start, 7), *range(directory_start, len(content))):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        state, _ = Checkpoints(tmp_path).load("latest", small)
        np.testing.assert_array_equal(state.params["w"], small.params["w"])
        steps.append(state.step)
        assert ("damaged" in capsys.readouterr().err) == (state.step == 3)
    assert set(steps) == {3, 8}  # 8: bits without a meaning, as those of a date
    assert steps.count(3) > len(steps) / 2


def test_a_far_larger_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, 3)
    monkeypatch.setattr(checkpoints, "MAX_PROGRESS_BYTES", 0)
    monkeypatch.setattr(checkpoints, "_read", None)
    with pytest.raises(CheckpointError, match=r"3\.npz: not a checkpoint of this model \(the file has 9,\d+ bytes"):
        Checkpoints(tmp_path).load("latest", state(0, size=3))


def test_an_array_of_another_shape_is_named(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    with pytest.raises(CheckpointError, match=r"params/w is \(300, 7\) float32 in the file and \(3, 7\) float32 in"):
        Checkpoints(tmp_path).load("latest", state(0, size=3))


def test_a_compressed_file_is_not_unpacked(tmp_path: Path, capsys) -> None:
    """Zeros take no room in it: a file from elsewhere could claim any size."""
    saved(tmp_path, 3)
    np.savez_compressed(tmp_path / "latest" / "8.npz", **{"params/w": np.zeros(10**6)})
    assert loaded(tmp_path) == 3
    assert "compressed" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_replaced_when_its_step_is_saved_again(tmp_path: Path) -> None:
    saved(tmp_path, 3, 8)
    os.truncate(tmp_path / "latest" / "8.npz", 0)
    assert loaded(tmp_path) == 3
    saved(tmp_path, 8)
    assert loaded(tmp_path) == 8


def test_a_damaged_checkpoint_is_not_one_of_the_two_that_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 3, 8)
    os.truncate(tmp_path / "latest" / "8.npz", 0)
    resumed = Checkpoints(tmp_path)
    assert resumed.load("latest", state(0))[0].step == 3
    resumed.save("latest", state(5), {"steps": 5})
    assert sorted(path.name for path in (tmp_path / "latest").iterdir()) == ["3.npz", "5.npz"]


def test_if_all_are_damaged_the_error_says_what_to_do(tmp_path: Path) -> None:
    saved(tmp_path, 3, 8)
    for path in (tmp_path / "latest").iterdir():
        path.write_bytes(b"x")
    with pytest.raises(CheckpointError, match="all checkpoints are damaged; delete the run's directory"):
        loaded(tmp_path)


def test_checkpoints_of_an_earlier_version_are_refused(tmp_path: Path) -> None:
    """Each was a directory."""
    (tmp_path / "latest" / "8").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="an earlier version of the suite wrote these checkpoints"):
        loaded(tmp_path)


def test_a_partial_file_is_ignored_and_two_checkpoints_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 3, 8, 11)
    (tmp_path / "latest" / ".12.npz.1.partial").write_bytes(b"PK")
    assert loaded(tmp_path) == 11
    assert sorted(path.name for path in (tmp_path / "latest").glob("*.npz")) == ["11.npz", "8.npz"]


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
from tests.lra.training.test_checkpoint import loaded, state
from lra.training.checkpoints import Checkpoints
directory, random_ = Path(sys.argv[1]), random.Random(0)
latest = 1
Checkpoints(directory).save("latest", state(1), {"steps": 1})
for kill in range(50):
    child = os.fork()
    if not child:
        checkpoints = Checkpoints(directory)
        for step in range(latest + 1, latest + 10_000):
            checkpoints.save("latest", state(step), {"steps": step})
    time.sleep(random_.uniform(0.01, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    step = loaded(directory)
    assert step >= latest
    latest = step
print(latest)
"""


@pytest.mark.slow
def test_after_each_of_50_kills_the_newest_checkpoint_is_complete(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLS, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50  # several were written between two kills
    assert "damaged" not in done.stderr


def test_a_full_disk_is_reported_and_the_previous_checkpoint_stays(tmp_path: Path) -> None:
    """The kernel refuses to let files grow, as on a full disk."""
    saved(tmp_path, 3)
    script = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        from lra.errors import CheckpointError
        from lra.training.checkpoints import Checkpoints
        from tests.lra.training.test_checkpoint import state
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
            Checkpoints(Path(sys.argv[1])).save("latest", state(8, 300), {"steps": 8})
        except CheckpointError as error:
            print(error)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert "could not be written" in done.stdout, done.stderr
    assert "the same command resumes from it" in done.stdout
    assert loaded(tmp_path) == 3


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file, not a directory")
    with pytest.raises(CheckpointError, match=r"checkpoints.* could not be written"):
        saved(tmp_path / "checkpoints", 3)


@pytest.mark.slow
def test_a_run_whose_newest_checkpoint_is_damaged_ends_bit_equal(tiny, tmp_path: Path, monkeypatch) -> None:
    config = tiny_config()
    whole = train(StepFunctions(config, CARD), tiny, tmp_path / "whole")
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0)
    real, calls = trainer.train_steps, 0

    def interrupting(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(trainer, "train_steps", interrupting)
    with pytest.raises(KeyboardInterrupt):
        train(StepFunctions(config, CARD), tiny, tmp_path / "parts")
    latest = tmp_path / "parts" / "checkpoints" / "latest"
    steps = sorted(int(path.stem) for path in latest.glob("*.npz"))
    assert len(steps) == 2
    os.truncate(latest / f"{steps[-1]}.npz", 2_000)
    again = train(StepFunctions(config, CARD), tiny, tmp_path / "parts")
    assert calls == 7 + config.train.steps - steps[0]  # from the one before it
    assert again.history.curve == whole.history.curve
    assert again.history.validation == whole.history.validation
    np.testing.assert_array_equal(again.test.predictions, whole.test.predictions)
