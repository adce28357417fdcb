"""Checkpoints of a run, by orbax: the latest, to go on from, and the best, to be tested.

Arrays are stored flat under their paths in the tree (`params/blocks/0/mixer/query/kernel`), so that a checkpoint
does not depend on the classes of flax or optax, and what does not fit is named.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from lra.program import TrainState


class CheckpointError(Exception):
    """A checkpoint that cannot be used; the message says which and why."""


class Checkpoints:
    """The checkpoints in one directory: `latest/` and `best/`, each written as a whole or not at all."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._managers: dict[str, ocp.CheckpointManager] = {}

    def _manager(self, kind: str) -> ocp.CheckpointManager:
        if kind not in self._managers:
            options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True, enable_async_checkpointing=False)
            self._managers[kind] = ocp.CheckpointManager((self._directory / kind).resolve(), options=options)
        return self._managers[kind]

    def save(self, kind: str, state: TrainState, progress: dict[str, Any]) -> None:
        """Saves the state and what is known of the run so far (JSON values)."""
        manager = self._manager(kind)
        if manager.latest_step() == state.step:
            return
        arrays = {name: np.array(leaf) for name, leaf in flatten(state).items()}
        args = ocp.args.Composite(state=ocp.args.StandardSave(arrays), progress=ocp.args.JsonSave(progress))
        manager.save(state.step, args=args, force=True)
        manager.wait_until_finished()

    def load(self, kind: str, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The state of `kind`, in the shape of `like`; None if there is none yet.

        Raises:
          CheckpointError: it belongs to another model; the message names the first array that differs.
        """
        manager = self._manager(kind)
        step = manager.latest_step()
        if step is None:
            return None
        expected = flatten(like)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(), progress=ocp.args.JsonRestore())
        restored = manager.restore(step, args=args)
        found = restored.state
        for name in sorted(expected.keys() | found.keys()):
            here = [
                f"{a.shape} {a.dtype}" if a is not None else "missing" for a in (expected.get(name), found.get(name))
            ]
            if here[0] != here[1]:
                raise CheckpointError(
                    f"{self._directory / kind}: {name} is {here[1]} there and {here[0]} in this model; "
                    "it was written by another version or configuration: delete the run's directory to start anew"
                )
        leaves = [
            jax.device_put(found[name], leaf.sharding) if isinstance(leaf, jax.Array) else found[name]
            for name, leaf in expected.items()
        ]
        state = jax.tree.unflatten(jax.tree.structure(like._replace(step=0)), leaves)
        return state._replace(step=int(state.step)), restored.progress

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        for manager in self._managers.values():
            manager.close()


def flatten(state: TrainState) -> dict[str, Any]:
    """All arrays of a state under their paths."""
    state = state._replace(step=np.int64(state.step))  # type: ignore[arg-type]
    paths = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}
