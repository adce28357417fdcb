"""Checkpoints of a run: one `.npz` file each; the latest to resume from, the best to test.

Arrays are stored under their paths in the state (`params/blocks/0/mixer/query/kernel`), so a checkpoint does not depend
on the classes of flax or optax, and an array that does not fit the model is named. A file is written under a temporary
name, flushed to the disk and renamed, so it is complete or absent; it contains a CRC-32 of every array. The two newest
of each kind are kept, in case the newest is damaged later.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lra.errors import CheckpointError
from lra.paths import open_atomically
from lra.runtime.distributed import is_writer, wait_for_all
from lra.training.step_functions import TrainState

KEPT = 2
PROGRESS = "progress.json"
MAX_PROGRESS_BYTES = 16 * 2**20


class Checkpoints:
    """The checkpoints in one directory: `latest/STEP.npz` and `best/STEP.npz`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._saved: dict[str, int] = {}
        self._damaged: set[Path] = set()

    def save(self, kind: str, state: TrainState, progress: dict[str, Any]) -> None:
        """Save a state and JSON values about the run so far; on the disk when this returns.

        Raises:
          CheckpointError: the file could not be written; earlier checkpoints are kept
        """
        if self._saved.get(kind) == state.step:
            return
        path = self._directory / kind / f"{state.step}.npz"
        if is_writer():
            arrays: dict[str, Any] = {name: np.asarray(leaf) for name, leaf in flatten(state).items()}
            arrays[PROGRESS] = np.frombuffer(json.dumps(progress).encode(), np.uint8)
            try:
                with open_atomically(path) as file:
                    np.savez(file, allow_pickle=False, **arrays)
                for damaged in self._damaged - {path}:
                    damaged.unlink(missing_ok=True)  # else it would count as one of those that are kept
                for old in self._paths(kind)[KEPT:]:
                    old.unlink()
            except OSError as error:
                raise CheckpointError(
                    f"{path.parent}: the checkpoint could not be written ({error}). The previous one is kept: "
                    "fix the cause, for example a full disk, and the same command resumes from it"
                ) from error
        wait_for_all("a checkpoint is written")
        self._saved[kind] = state.step

    def load(self, kind: str, like: TrainState, step: int | None = None) -> tuple[TrainState, dict[str, Any]] | None:
        """Load the newest undamaged state of `kind`, or that of `step`; return None if there is none.

        For a damaged checkpoint a warning is printed, and the previous one is loaded.

        Args:
          like: a state of the same shapes, which gives the structure and the devices

        Raises:
          CheckpointError: all checkpoints are damaged, or they belong to another model; the message names the first
            array that differs
        """
        directory, expected = self._directory / kind, flatten(like)
        paths = [path for path in self._paths(kind) if step in (None, int(path.stem))]
        if not paths and step is None and directory.is_dir() and any(path.is_dir() for path in directory.iterdir()):
            raise CheckpointError(
                f"{directory}: an earlier version of the suite wrote these checkpoints, and this one cannot read them; "
                "use that version, or delete the run's directory to start from scratch"
            )
        limit = 2 * sum(leaf.nbytes for leaf in expected.values()) + MAX_PROGRESS_BYTES
        for path in paths:
            try:
                size = path.stat().st_size
                arrays, progress = _read(path) if size <= limit else ({}, {})
            except PermissionError:
                raise
            except Exception as error:  # a damaged file can raise anything in zipfile, numpy and json
                reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
                print(f"{path}: damaged ({reason}); the previous checkpoint is used", file=sys.stderr, flush=True)
                self._damaged.add(path)
                continue
            difference = _difference(arrays, expected) if arrays else f"the file has {size:,} bytes, too many for it"
            if difference:
                raise CheckpointError(
                    f"{path}: not a checkpoint of this model ({difference}); another version or configuration "
                    "wrote it: delete the run's directory to start from scratch"
                )
            return _as_state(arrays, like), progress
        if paths and step is None:
            raise CheckpointError(
                f"{directory}: all checkpoints are damaged; delete the run's directory to start from scratch"
            )
        return None

    def _paths(self, kind: str) -> list[Path]:
        """Return the checkpoints of a kind, newest first."""
        paths = (path for path in (self._directory / kind).glob("*.npz") if path.stem.isdecimal())
        return sorted(paths, key=lambda path: int(path.stem), reverse=True)


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a file completely, so that every CRC is compared."""
    arrays = {}
    with zipfile.ZipFile(path) as file:
        if any(member.compress_type != zipfile.ZIP_STORED for member in file.infolist()):
            raise zipfile.BadZipFile("compressed, which no checkpoint is")
        for member in file.infolist():
            content = io.BytesIO(file.read(member))
            arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(content, allow_pickle=False)
    progress = json.loads(arrays.pop(PROGRESS).tobytes())
    if not isinstance(progress, dict):
        raise ValueError(f"{PROGRESS} is not an object")
    return arrays, progress


def _difference(arrays: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Return the first array whose shape or dtype differs, in words; "" if there is none."""
    for name in sorted(expected.keys() | arrays.keys()):
        stored, wanted = (
            f"{a.shape} {a.dtype}" if a is not None else "missing" for a in (arrays.get(name), expected.get(name))
        )
        if stored != wanted:
            return f"{name} is {stored} in the file and {wanted} in this model"
    return ""


def _as_state(arrays: Mapping[str, np.ndarray], like: TrainState) -> TrainState:
    leaves = [
        jax.device_put(arrays[name], leaf.sharding) if isinstance(leaf, jax.Array) else arrays[name]
        for name, leaf in flatten(like).items()
    ]
    state = jax.tree.unflatten(jax.tree.structure(like._replace(step=0)), leaves)
    return state._replace(step=int(state.step))


def flatten(state: TrainState) -> dict[str, Any]:
    """Return all arrays of a state under their paths."""
    state = state._replace(step=np.int64(state.step))  # type: ignore[arg-type]
    paths = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}
