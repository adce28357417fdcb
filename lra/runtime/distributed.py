"""Several processes that train one run together, on one machine or many, through `jax.distributed`.

Each process holds the whole data set and computes its devices' share of every batch. All of them must see the run's
directory; only the first writes to it. A decision that one process takes by its clock or because of a signal is agreed
on first, because the others would wait forever for a process that stops alone.
"""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lra.errors import ConfigError

HEARTBEAT_TIMEOUT_SECONDS = 30  # after which a silent process counts as lost, and the others end with an error
AGREEMENT_SECONDS = 2.0
VARIABLES = ("LRA_COORDINATOR", "LRA_PROCESSES", "LRA_PROCESS")


def initialize() -> None:
    """Make this process one of several; must be called before JAX starts a backend.

    The process index is read from the environment: LRA_COORDINATOR (host:port of the first process), LRA_PROCESSES
    (their number) and LRA_PROCESS (0 to LRA_PROCESSES - 1), or from a cluster that JAX knows (Slurm, Open MPI, ...).

    Raises:
      ConfigError: only some of the variables are set, or the other processes cannot be reached
    """
    values = {name: os.environ.get(name) for name in VARIABLES}
    if any(values.values()) and not all(values.values()):
        raise ConfigError(f"--distributed: {', '.join(name for name, v in values.items() if not v)} not set")
    address, *numbers = values.values()
    try:
        count, index = (None if number is None else int(number) for number in numbers)
        jax.distributed.initialize(address, count, index, heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_SECONDS)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--distributed: {error}. Set {', '.join(VARIABLES)}, or start the processes by a cluster that JAX knows"
        ) from error


def is_writer() -> bool:
    """Return whether this process writes the files of the run."""
    return jax.process_index() == 0


class Agreement:
    """Decisions that are taken if any process wants them, asked for at most every few seconds.

    Asking makes every process wait for the slowest, so the processes agree at each meeting on the step of the next.
    """

    def __init__(self) -> None:
        self._next_step = 0

    def any_process(self, step: int, step_seconds: float, *flags: bool) -> tuple[bool, ...]:
        """Return for each flag whether it is set in any process; all false before the next meeting.

        All processes must call this at the same steps.

        Args:
          step: number of steps done
          step_seconds: of one step in this process; 0 if unknown
        """
        if jax.process_count() == 1:
            return flags
        if step < self._next_step:
            return (False,) * len(flags)
        answers = multihost_utils.process_allgather(np.array([*flags, step_seconds], np.float32))
        slowest = float(answers[:, -1].max())
        self._next_step = step + (int(AGREEMENT_SECONDS / slowest) if slowest else 0) + 1
        return tuple((answers[:, :-1] > 0).any(0).tolist())


def same_everywhere(sha256: str) -> bool:
    """Return whether all processes have this hash; all processes must call this at the same time."""
    if jax.process_count() == 1:
        return True
    hashes = multihost_utils.process_allgather(np.frombuffer(bytes.fromhex(sha256), np.uint8))
    return bool((hashes == hashes[0]).all())


def all_gather(arrays: Any) -> Any:
    """Return a tree of arrays that are sharded over processes as numpy arrays."""
    if jax.process_count() == 1:
        return jax.device_get(arrays)
    return multihost_utils.process_allgather(arrays, tiled=True)


def wait_for_all(what: str) -> None:
    """Wait until all processes have called this."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)
