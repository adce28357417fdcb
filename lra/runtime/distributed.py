"""Several processes that train one run together, on one machine or many, through `jax.distributed`.

Each holds the whole data set and computes its devices' share of every batch. The run's directory must be one that all
of them see; the first process alone writes into it. Whatever one process decides by its own clock or by a signal it got
is agreed on first, for a process that stops alone would leave the others waiting for it.
"""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lra.errors import ConfigError

SILENCE_SECONDS = 30  # after which a process that is not heard of counts as lost, and the others end with an error
VARIABLES = ("LRA_COORDINATOR", "LRA_PROCESSES", "LRA_PROCESS")


def join() -> None:
    """Makes this process one of several, before JAX has started anything else.

    Which one it is, is said by the environment: LRA_COORDINATOR (host:port of the first process), LRA_PROCESSES (how
    many) and LRA_PROCESS (0 to their number - 1), or, without them, by a cluster that JAX knows (Slurm, Open MPI, ...).

    Raises:
      ConfigError: the environment says it in part, or the others cannot be reached.
    """
    said = {name: os.environ.get(name) for name in VARIABLES}
    if any(said.values()) and not all(said.values()):
        raise ConfigError(f"--distributed: {', '.join(n for n, v in said.items() if not v)} not set")
    address, *numbers = said.values()
    try:
        count, this = (None if n is None else int(n) for n in numbers)
        jax.distributed.initialize(address, count, this, heartbeat_timeout_seconds=SILENCE_SECONDS)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--distributed: {error}. Set {', '.join(VARIABLES)}, or start the processes by a cluster that JAX knows"
        ) from error


def is_writer() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def agree(*said: bool) -> tuple[bool, ...]:
    """What any process says, for each of several questions; all must ask the same ones at the same time."""
    if jax.process_count() == 1:
        return said
    return tuple(multihost_utils.process_allgather(np.array(said)).any(0).tolist())


def same_everywhere(sha256: str) -> bool:
    """Whether all processes have this hash; all must ask at the same time."""
    if jax.process_count() == 1:
        return True
    hashes = multihost_utils.process_allgather(np.frombuffer(bytes.fromhex(sha256), np.uint8))
    return bool((hashes == hashes[0]).all())


def whole(arrays: Any) -> Any:
    """Arrays of all processes as numpy arrays, in a tree."""
    if jax.process_count() == 1:
        return jax.device_get(arrays)
    return multihost_utils.process_allgather(arrays, tiled=True)


def wait_for_all(what: str) -> None:
    """Returns when all processes have come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)
