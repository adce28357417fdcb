"""Target: the file of a checkpoint, and the JSON in it."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import tempfile
from pathlib import Path

import numpy as np

from lra.errors import CheckpointError, RunError
from lra.provenance import sessions
from lra.provenance.code import Code
from lra.provenance.sessions import Session
from lra.training.checkpoints import PROGRESS, Checkpoints, flatten
from lra.training.history import History
from lra.training.step_functions import TrainState
from tests.fuzz.target import Target

_CODE = Code({"lra/training/trainer.py": "0"})
_SESSION = Session(0, "2026-01-01T00:00:00+00:00", {"device": "x"}, {"git_clean": None})
_STATE = TrainState(4, {"w": np.ones((2, 3), np.float32)}, {}, {"count": np.int32(4)})
_PROGRESS = {"history": History(10, validation=[[4, 1.0, 0.5]]).to_json()} | sessions.as_json(_CODE, [_SESSION])


@functools.cache
def _saved() -> bytes:
    """Return the file of one checkpoint."""
    with tempfile.TemporaryDirectory() as directory:
        Checkpoints(Path(directory)).save("latest", _STATE, _PROGRESS)
        return (Path(directory) / "latest" / "4.npz").read_bytes()


def _checkpoint(data: bytes, place: Path) -> None:
    """Load a file; an input that begins with `progress` and a new line is the JSON of an otherwise correct file."""
    name, _, content = data.partition(b"\n")
    path = place / "latest" / "4.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    if name == b"progress":
        arrays = {**flatten(_STATE), PROGRESS: np.frombuffer(content, np.uint8)}
        with path.open("wb") as file:
            np.savez(file, **arrays)
    else:
        path.write_bytes(data)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(CheckpointError, RunError):
        loaded = Checkpoints(place).load("latest", _STATE)
        if loaded is not None:
            state, progress = loaded
            assert state.step == 4
            np.testing.assert_array_equal(state.params["w"], _STATE.params["w"])
            assert all(session.step is not None for session in sessions.from_json(progress, _CODE, place))
            assert History.from_json(progress.get("history")).steps is not None


def _seeds() -> list[bytes]:
    return [b"", _saved(), b"progress\n" + json.dumps(_PROGRESS).encode()]


TARGETS = {"checkpoint": Target(_checkpoint, _seeds, (b"progress\n", b"PK", b"null", b"[]", b"{}", b'"x"'))}
