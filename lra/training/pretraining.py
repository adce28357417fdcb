"""Self-pretraining, the recipe `spt`: what its first phase is, and how the second starts from it.

Phase 1 makes the first steps of a run: it predicts masked symbols of the task's training inputs. Phase 2 starts from
the encoder that phase 1 ends with, a new head and a new state of the optimizer, and makes the remaining steps. Steps
are counted over both phases, so each step of a run has its own batch and keys. Each phase has the protocol's whole
schedule (`lra.training.optimizer.compressed`).

Phase 1 has a directory of its own in `runs/`, whose name has the hashes of its settings, the data and the code. It
always has the seed of the recipe, 0, so that runs that differ in their seed alone share one pretrained encoder. A run
that finds it complete does not repeat it; one that finds another process at it waits.

Source: Amos, Berant and Gupta, "Never Train from Scratch", ICLR 2024, arXiv:2310.02980.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jax

from lra.config import RunConfig
from lra.errors import RunError
from lra.paths import write_atomically
from lra.protocols import SelfPretraining
from lra.runtime.distributed import is_writer, wait_for_all
from lra.runtime.locks import has_process, run_lock
from lra.training.step_functions import StepFunctions, TrainState
from tasks.core import Prepared

WAIT_SECONDS = 2.0


def pretraining_steps(config: RunConfig) -> int:
    """Return the number of steps of phase 1 of a run; 0 without the recipe."""
    return config.recipe.first_steps(config.train.steps) if isinstance(config.recipe, SelfPretraining) else 0


def pretraining_functions(functions: StepFunctions) -> StepFunctions:
    """Return the compiled functions of phase 1 of a run. They do not depend on the run's seed."""
    config = functions.config
    assert isinstance(config.recipe, SelfPretraining)
    config = dataclasses.replace(config, seed=config.recipe.seed, limit=None, modified=False)
    return StepFunctions(config, functions.card, pretraining=True)


def pretraining_directory(run: Path, config: RunConfig, data: Prepared, code_sha256: str) -> Path:
    """Return the directory of phase 1, which is beside that of the run.

    Args:
      config: of phase 1
    """
    return run.parent / f"pretraining-{config.run_id(data.sha256, code_sha256, data.column_variant)}"


@contextmanager
def pretraining_lock(directory: Path, config: RunConfig, stop_requested: threading.Event) -> Iterator[None]:
    """Hold the lock of phase 1, and wait for a process that has it.

    Raises:
      RunError: a signal arrived while waiting, or the file system refuses locks
    """
    if not is_writer():
        wait_for_all("the pretraining is free")
        yield
        return
    if has_process(directory):
        print(f"{directory.name}: another process pretrains this encoder; waiting", file=sys.stderr, flush=True)
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(run_lock(directory))
                break
            except RunError:
                if stop_requested.is_set() or not has_process(directory):
                    raise
            time.sleep(WAIT_SECONDS)
        write_atomically(directory / "pretraining.json", config.as_text())
        wait_for_all("the pretraining is free")
        yield


def fine_tuning_state(pretrained: TrainState, functions: StepFunctions) -> TrainState:
    """Return the state in which phase 2 starts: the pretrained encoder with the new head of the run's seed.

    Args:
      functions: of phase 2
    """
    fresh = functions.init()
    arrays = {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(pretrained.params)}

    def choose(path: jax.tree_util.KeyPath, leaf: jax.Array) -> jax.Array:
        name = _name(path)
        return leaf if name.startswith("head/") else arrays[name]

    params = jax.tree_util.tree_map_with_path(choose, fresh.params)
    return TrainState(pretrained.step, params, pretrained.buffers, fresh.opt_state)


def _name(path: jax.tree_util.KeyPath) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
