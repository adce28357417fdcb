"""Checkpoints of a run, by orbax: the latest, to go on from, and the best, to be tested.

Arrays are stored flat under their paths in the tree (`params/blocks/0/mixer/query/kernel`), so that a checkpoint
does not depend on the classes of flax or optax, and what does not fit is named. Each is written in the background,
under a temporary name until it is whole, with a hash of its content; the one before it stays, should it be damaged.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from lra.errors import CheckpointError
from lra.runtime.distributed import is_writer, wait_for_all
from lra.training.step_functions import TrainState

KEPT = 2


class Checkpoints:
    """The checkpoints in one directory: `latest/` and `best/`, each written as a whole or not at all."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._managers: dict[str, ocp.CheckpointManager] = {}
        self._damaged: set[tuple[str, int]] = set()

    def _manager(self, kind: str) -> ocp.CheckpointManager:
        if kind not in self._managers:
            options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, create=True, enable_async_checkpointing=True)
            with _written(self._directory / kind):
                self._managers[kind] = ocp.CheckpointManager((self._directory / kind).resolve(), options=options)
        return self._managers[kind]

    def save(self, kind: str, state: TrainState, progress: dict[str, Any]) -> None:
        """Saves the state and what is known of the run so far (JSON values).

        It returns while the files are still being written; the next `save`, `settle` or the end of the context waits.

        Raises:
          CheckpointError: this one or the one before could not be written.
        """
        manager = self._manager(kind)
        self.settle()  # what failed in the background is told here, and one kind follows the other
        for number in [n for k, n in self._damaged if k == kind]:
            if is_writer():
                shutil.rmtree(self._directory / kind / str(number), ignore_errors=True)
            wait_for_all("a damaged checkpoint is removed")
            self._damaged.remove((kind, number))
            manager.reload()
        if manager.latest_step() == state.step:
            return
        arrays = {name: np.array(leaf) for name, leaf in flatten(state).items()}
        said = {"progress": progress, "sha256": _content(arrays, progress)}
        args = ocp.args.Composite(state=ocp.args.StandardSave(arrays), progress=ocp.args.JsonSave(said))
        with _written(self._directory / kind):
            manager.save(state.step, args=args, force=True)

    def settle(self) -> None:
        """Waits until all is on disk.

        Raises:
          CheckpointError: something could not be written.
        """
        for kind, manager in self._managers.items():
            with _written(self._directory / kind):
                manager.wait_until_finished()

    def load(self, kind: str, like: TrainState, step: int | None = None) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest whole state of `kind`, or that of `step`, in the shape of `like`; None if there is none.

        A damaged one is said, and the one before it is taken.

        Raises:
          CheckpointError: all there are damaged; or it belongs to another model: the first array that differs is named.
        """
        manager = self._manager(kind)
        there = [s for s in sorted(manager.all_steps(), reverse=True) if step in (None, s)]
        expected = flatten(like)
        found: Mapping[str, Any]
        progress: dict[str, Any]
        for number in there:
            try:
                described = self._described(kind, number)
                if _size(described) > 2 * _size(expected):  # another model's, of any size: it is not read
                    found, progress = described, {}
                else:
                    found, progress = self._read(kind, number)
            except PermissionError:
                raise
            except Exception as error:  # of whatever kind a torn or altered file provokes in orbax and what it uses
                reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
                place = self._directory / kind / str(number)
                print(f"{place}: damaged ({reason}); the checkpoint before it is taken", file=sys.stderr, flush=True)
                self._damaged.add((kind, number))
                continue
            if other := _difference(found, expected):
                raise CheckpointError(
                    f"{self._directory / kind}: {other} in this model; "
                    "it was written by another version or configuration: delete the run's directory to start anew"
                )
            return _fitted(found, like), progress
        if there and step is None:
            raise CheckpointError(
                f"{self._directory / kind}: every checkpoint was damaged; delete the run's directory to start anew"
            )
        return None

    def _described(self, kind: str, step: int) -> Mapping[str, Any]:
        """Shape and dtype of each array."""
        place = (self._directory / kind / str(step) / "state").resolve()
        return ocp.StandardCheckpointHandler().metadata(place).tree

    def _read(self, kind: str, step: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        args = ocp.args.Composite(state=ocp.args.StandardRestore(), progress=ocp.args.JsonRestore())
        restored = self._manager(kind).restore(step, args=args)
        arrays = {name: np.asarray(array) for name, array in restored.state.items()}
        said = restored.progress
        if "sha256" not in said or "progress" not in said:
            raise CheckpointError("written by a version without hashes")
        if _content(arrays, said["progress"]) != said["sha256"]:
            raise CheckpointError("its content is not what was written")
        return arrays, said["progress"]

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.settle()
        finally:
            for manager in self._managers.values():
                manager.close()


def _size(arrays: Mapping[str, Any]) -> int:
    """Bytes."""
    return sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in arrays.values())


def _difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """The first array that is not of the same shape and dtype in both; "" if all are."""
    for name in sorted(expected.keys() | found.keys()):
        here = [f"{a.shape} {a.dtype}" if a is not None else "missing" for a in (expected.get(name), found.get(name))]
        if here[0] != here[1]:
            return f"{name} is {here[1]} there and {here[0]}"
    return ""


def _fitted(found: Mapping[str, np.ndarray], like: TrainState) -> TrainState:
    leaves = [
        jax.device_put(found[name], leaf.sharding) if isinstance(leaf, jax.Array) else found[name]
        for name, leaf in flatten(like).items()
    ]
    state = jax.tree.unflatten(jax.tree.structure(like._replace(step=0)), leaves)
    return state._replace(step=int(state.step))


@contextmanager
def _written(place: Path) -> Iterator[None]:
    """Turns what goes wrong when files are written into a message that says where, and how to go on."""
    try:
        yield
    except Exception as error:  # of whatever kind orbax and what it uses make of a full or read-only disk
        reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        raise CheckpointError(
            f"{place}: the checkpoint could not be written ({reason}). The one before it is kept: mend that, "
            "a full disk perhaps, and the same command goes on from there"
        ) from error


def _content(arrays: Mapping[str, np.ndarray], progress: Any) -> str:
    digest = hashlib.sha256(json.dumps(progress, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def flatten(state: TrainState) -> dict[str, Any]:
    """All arrays of a state under their paths."""
    state = state._replace(step=np.int64(state.step))  # type: ignore[arg-type]
    paths = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}
