"""The devices of this process: a mesh over all that a batch can be dealt to, and what its compiler is told.

On a CPU each core is a device of its own. XLA shares the work of one small program among cores badly, while two
programs that each have half of the examples keep two cores busy (`benchmarks/README.md`).
"""

from __future__ import annotations

import contextlib
import os
from functools import cache

import jax
import numpy as np
from jax.sharding import Mesh

# The reductions of YNNPACK, which jaxlib 0.10 chooses, make the trainer's step slower; "" leaves that library out.
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}


def use_every_core() -> None:
    """Makes each core a device, unless JAX has started or the user's environment says how many a CPU has."""
    if "JAX_NUM_CPU_DEVICES" not in os.environ and "device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # it has started: there are as many as there are
            jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))


def data_mesh(batch_size: int, micro_batch: int | None) -> Mesh:
    """A mesh with one axis, "data": as many local devices as a batch, or its micro-batches, can be dealt to evenly."""
    devices = jax.local_devices()
    count = max(n for n in range(1, len(devices) + 1) if (micro_batch or batch_size) % n == 0)
    return Mesh(np.array(devices[:count]), ("data",))


@cache
def compiler_options() -> dict[str, str]:
    """Options of `jax.jit` for this backend; none where its version does not know them."""
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=CPU_OPTIONS)()
    except jax.errors.JaxRuntimeError:
        return {}
    return CPU_OPTIONS
