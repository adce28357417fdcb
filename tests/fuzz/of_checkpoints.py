"""Targets: the files of a checkpoint that are not arrays."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from lra.errors import CheckpointError, RunError
from lra.provenance import sessions
from lra.provenance.code import Code
from lra.provenance.sessions import Session
from lra.training.checkpoints import Checkpoints, _content, flatten
from lra.training.history import Journal, Journals
from lra.training.step_functions import TrainState
from tests.fuzz.target import Target

_FILES = (
    b"_CHECKPOINT_METADATA",
    b"commit_success.txt",
    b"progress/metadata",
    b"state/_METADATA",
    b"state/manifest.ocdbt",
)
_CODE = Code({"lra/training/trainer.py": "0"})
_SESSION = Session(0, "2026-01-01T00:00:00+00:00", {"device": "x"}, {"git_clean": None})
_STATE = TrainState(4, {"w": np.ones((2, 3), np.float32)}, {}, {"count": np.int32(4)})


@functools.cache
def _saved() -> dict[str, bytes]:
    """The files of one checkpoint, by their names."""
    with tempfile.TemporaryDirectory() as made:
        with Checkpoints(Path(made)) as checkpoints:
            progress = Journals([Journal(10, validation=[[4, 1.0, 0.5]])]).to_json()
            checkpoints.save("latest", _STATE, progress | sessions.as_json(_CODE, [_SESSION]))
        step = Path(made) / "latest" / "4"
        return {str(p.relative_to(step)): p.read_bytes() for p in step.rglob("*") if p.is_file()}


def _checkpoint(data: bytes, place: Path) -> None:
    """One file exchanged: its name, and in a new line its content. `journal` is progress/metadata with a right hash."""
    name, _, content = data.partition(b"\n")
    files = dict(_saved())
    if name == b"journal":
        with contextlib.suppress(ValueError, RecursionError):
            progress = json.loads(content)
            digest = _content({k: np.asarray(v) for k, v in flatten(_STATE).items()}, progress)
            files["progress/metadata"] = json.dumps({"progress": progress, "sha256": digest}).encode()
    elif name in _FILES:
        files[name.decode()] = content
    shutil.rmtree(place / "latest", ignore_errors=True)
    for path, content in files.items():
        (place / "latest" / "4" / path).parent.mkdir(parents=True, exist_ok=True)
        (place / "latest" / "4" / path).write_bytes(content)
    with (
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.suppress(CheckpointError, RunError),
        Checkpoints(place) as checkpoints,
    ):
        loaded = checkpoints.load("latest", _STATE)
        if loaded is not None:
            state, progress = loaded
            assert state.step == 4
            np.testing.assert_array_equal(state.params["w"], _STATE.params["w"])
            assert all(journal.steps is not None for journal in Journals.from_json(progress).each)
            assert all(session.step is not None for session in sessions.from_json(progress, _CODE, place))


def _seeds() -> list[bytes]:
    journal = json.dumps(json.loads(_saved()["progress/metadata"])["progress"]).encode()
    return [b"", b"journal\n" + journal, *(name + b"\n" + _saved()[name.decode()] for name in _FILES)]


TARGETS = {
    "checkpoint": Target(_checkpoint, _seeds, (*(name + b"\n" for name in _FILES), b"null", b"[]", b"{}", b'"x"'))
}
