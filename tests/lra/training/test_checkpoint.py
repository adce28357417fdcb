"""What is on disk after a kill, a full disk or a flipped bit is either what was written, or is not taken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from lra.errors import CheckpointError
from lra.paths import ROOT
from lra.training import trainer
from lra.training.checkpoints import Checkpoints
from lra.training.step_functions import TrainState
from lra.training.trainer import train
from tasks.listops import CARD
from tests.lra.conftest import tiny_config


def state(step: int, size: int = 300) -> TrainState:
    values = np.random.RandomState(step).standard_normal((size, 7)).astype(np.float32)
    return TrainState(step, {"w": values, "b": values[0]}, {}, {"count": np.int32(step)})


def saved(directory: Path, *steps: int) -> None:
    with Checkpoints(directory) as checkpoints:
        for step in steps:
            checkpoints.save("latest", state(step), {"steps": step})


def loaded(directory: Path) -> int:
    """The step of what is loaded, having looked at every number of it."""
    with Checkpoints(directory) as checkpoints:
        found = checkpoints.load("latest", state(0))
    assert found is not None
    got, progress = found
    want = state(got.step)
    assert progress == {"steps": got.step}
    for name in ("w", "b"):
        np.testing.assert_array_equal(got.params[name], want.params[name])
    assert got.opt["count"] == got.step
    return got.step


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


DAMAGE = {
    "half": lambda f: os.truncate(f, f.stat().st_size // 2),
    "empty": lambda f: os.truncate(f, 0),
    "flipped bit": flip,
    "gone": Path.unlink,
    "zeros": lambda f: f.write_bytes(bytes(f.stat().st_size)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_whatever_happens_to_a_file_no_wrong_number_is_loaded(damage: str, tmp_path: Path, capsys) -> None:
    """Every file of the newest checkpoint in turn: the one before it is taken, or the newest is still right."""
    saved(tmp_path / "whole", 3, 8)
    newest = tmp_path / "whole" / "latest" / "8"
    files = [p.relative_to(tmp_path / "whole") for p in sorted(newest.rglob("*")) if p.is_file() and p.stat().st_size]
    steps = []
    for i, file in enumerate(files):
        here = tmp_path / str(i)
        shutil.copytree(tmp_path / "whole", here)
        DAMAGE[damage](here / file)
        steps.append(loaded(here))
        assert ("damaged" in capsys.readouterr().err) == (steps[-1] == 3)
    assert set(steps) <= {3, 8}
    assert 3 in steps


def test_a_far_larger_one_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros take no room in a file: what comes from elsewhere may claim any size."""
    saved(tmp_path, 3)
    monkeypatch.setattr(Checkpoints, "_read", None)
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(CheckpointError, match=r"params/w is \(300, 7\) float32 there and \(3, 7\)"),
    ):
        checkpoints.load("latest", state(0, size=3))


def test_a_damaged_step_is_written_anew(tmp_path: Path) -> None:
    saved(tmp_path, 3, 8)
    for file in (tmp_path / "latest" / "8").rglob("*"):
        if file.is_file():
            os.truncate(file, 0)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.load("latest", state(0))[0].step == 3
        checkpoints.save("latest", state(8), {"steps": 8})
    assert loaded(tmp_path) == 8


def test_where_all_are_damaged_it_says_what_to_do(tmp_path: Path) -> None:
    saved(tmp_path, 3, 8)
    for file in (tmp_path / "latest").rglob("*"):
        if file.is_file():
            file.write_bytes(b"x")
    with pytest.raises(CheckpointError, match="every checkpoint was damaged; delete the run's directory"):
        loaded(tmp_path)


def test_a_checkpoint_under_way_is_none(tmp_path: Path) -> None:
    """What a kill leaves behind while orbax writes: a directory with a temporary name."""
    saved(tmp_path, 3)
    shutil.copytree(tmp_path / "latest" / "3", tmp_path / "latest" / "8.orbax-checkpoint-tmp-1")
    assert loaded(tmp_path) == 3


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
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
            with Checkpoints(Path(sys.argv[1])) as checkpoints:
                checkpoints.load("latest", state(0, 300))
                resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
                checkpoints.save("latest", state(8, 300), {"steps": 8})
                checkpoints.settle()
        except CheckpointError as error:
            print(error)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert "could not be written" in done.stdout, done.stderr
    assert "the same command goes on from there" in done.stdout
    assert loaded(tmp_path) == 3


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file, not a directory")
    with pytest.raises(CheckpointError, match=r"checkpoints.* could not be written"):
        saved(tmp_path / "checkpoints", 3)


def test_a_run_whose_newest_checkpoint_is_damaged_ends_bit_equal(tiny, tmp_path: Path, monkeypatch) -> None:
    config = tiny_config()
    whole = train(config, CARD, tiny, tmp_path / "whole")
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0)
    real, calls = trainer.advance, 0

    def interrupting(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(trainer, "advance", interrupting)
    with pytest.raises(KeyboardInterrupt):
        train(config, CARD, tiny, tmp_path / "parts")
    latest = tmp_path / "parts" / "checkpoints" / "latest"
    steps = sorted(int(p.name) for p in latest.iterdir() if p.name.isdigit())
    assert len(steps) == 2
    for file in (latest / str(steps[-1])).rglob("*"):
        if file.is_file():
            os.truncate(file, file.stat().st_size // 2)
    again = train(config, CARD, tiny, tmp_path / "parts")
    assert calls == 7 + config.train.steps - steps[0]  # from the one before it
    assert again.journal.curve == whole.journal.curve
    assert again.journal.validation == whole.journal.validation
    np.testing.assert_array_equal(again.test.predictions, whole.test.predictions)
