"""The devices of this process: a mesh over all that a batch can be dealt to, and what its compiler is told.

On a CPU each core is a device of its own. XLA shares the work of one small program among cores badly, while two
programs that each have half of the examples keep two cores busy (`benchmarks/README.md`).
"""

from __future__ import annotations

import contextlib
import os
from functools import cache

import jax
import loky
import numpy as np
from jax.sharding import Mesh

from lra.errors import ConfigError
from lra.paths import ROOT

# The reductions of YNNPACK, which jaxlib 0.10 chooses, make the trainer's step slower; "" leaves that library out.
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}


def use_every_core() -> None:
    """Makes each core a device, unless JAX has started or the user's environment says how many a CPU has."""
    if "JAX_NUM_CPU_DEVICES" not in os.environ and "device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # it has started: there are as many as there are
            jax.config.update("jax_num_cpu_devices", loky.cpu_count())


def device_mesh(batch_size: int, micro_batch: int | None, length_shards: int) -> Mesh:
    """A mesh "data" x "length".

    Along "data" are as many devices as a batch, or its micro-batches, can be dealt to evenly; along "length" are those
    that share the positions of each example. Of several processes (`lra.runtime.distributed`) all have equally many.

    Raises:
      ConfigError: there are too few devices, or more processes than the batch can be dealt to.
    """
    hosts, here = jax.process_count(), jax.local_device_count()
    if not 1 <= length_shards <= here:
        raise ConfigError(f"--train.length-shards {length_shards}: this process has {here} devices")
    each, examples = here // length_shards, micro_batch or batch_size
    fitting = [n for n in range(1, each + 1) if examples % (n * hosts) == 0]
    if not fitting:
        raise ConfigError(
            f"{examples} examples cannot be dealt evenly to {hosts} processes: choose another number of processes, or "
            "another --train.micro-batch"
        )
    count = fitting[-1] * length_shards
    devices = [d for host in range(hosts) for d in jax.local_devices(host)[:count]]
    return Mesh(np.array(devices).reshape(-1, length_shards), ("data", "length"))


def places() -> list[dict[str, str]]:
    """The environment of each of the processes that can train side by side: a GPU each; all cores are one place."""
    if jax.default_backend() != "gpu":
        return [{}]
    count = jax.local_device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    return [{"CUDA_VISIBLE_DEVICES": name} for name in visible.split(",")[:count]]


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


def use_compilation_cache() -> None:
    """Compiled programs are kept in the project's `.cache/`, and found again by the next process."""
    jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
