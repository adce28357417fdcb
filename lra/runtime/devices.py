"""The devices of this process: the mesh that examples are sharded over, and options of the compiler.

On a CPU each core is a device. XLA shares the work of one small program among cores badly, while two programs with half
of the examples each keep two cores busy (`benchmarks/README.md`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import jax
import loky
import numpy as np
from jax.sharding import Mesh

from lra.errors import ConfigError
from lra.paths import ROOT, unwritable

# The reductions of YNNPACK, which jaxlib 0.10 uses, make the training step slower; "" disables that library.
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}

CACHE_BYTES = 2 * 2**30  # of compiled functions


def use_every_core() -> None:
    """Make each core a device, unless JAX has started or the environment sets the number of CPU devices."""
    if "JAX_NUM_CPU_DEVICES" not in os.environ and "device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # JAX has started, and the number is fixed
            jax.config.update("jax_num_cpu_devices", loky.cpu_count())


def on_accelerator() -> bool:
    """Return whether the devices are GPUs or TPUs, not cores of a CPU. It starts JAX."""
    return jax.default_backend() != "cpu"


def device_mesh(batch_size: int, micro_batch: int | None, length_shards: int) -> Mesh:
    """Return a mesh with the axes "data" and "length".

    "data" has the largest number of devices that divides the batch, or the micro-batch; "length" has the devices that
    share the positions of each example. All processes (`lra.runtime.distributed`) have the same number of devices.

    Raises:
      ConfigError: there are too few devices, or more processes than examples can be sharded over
    """
    processes, local_devices = jax.process_count(), jax.local_device_count()
    if not 1 <= length_shards <= local_devices:
        raise ConfigError(f"--train.length-shards {length_shards}: this process has {local_devices} devices")
    examples = micro_batch or batch_size
    divisors = [n for n in range(1, local_devices // length_shards + 1) if examples % (n * processes) == 0]
    if not divisors:
        raise ConfigError(
            f"{examples} examples cannot be sharded evenly over {processes} processes: choose another number of "
            "processes, or another --train.micro-batch"
        )
    count = divisors[-1] * length_shards
    devices = [device for process in range(processes) for device in jax.local_devices(process)[:count]]
    return Mesh(np.array(devices).reshape(-1, length_shards), ("data", "length"))


@dataclasses.dataclass(frozen=True)
class Slot:
    """What one of several processes that train at the same time may use: environment variables, and CPU cores.

    cores: their numbers; empty: all
    """

    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cores: tuple[int, ...] = ()

    def use_cores(self) -> None:
        """Restrict the calling thread, and the processes that it starts, to the cores of this slot."""
        if self.cores:
            os.sched_setaffinity(0, self.cores)


def slots(parallel: int | None = None) -> list[Slot]:
    """Return a slot for each process that can train at the same time.

    On GPUs each process has one. On a CPU the cores are divided among the processes.

    Args:
      parallel: largest number of processes; None: one for each GPU, one on a CPU
    """
    if jax.default_backend() == "gpu":
        count = jax.local_device_count()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        return [Slot({"CUDA_VISIBLE_DEVICES": name}) for name in visible.split(",")[:count][:parallel]]
    count = min(parallel or 1, loky.cpu_count())
    if count == 1:
        return [Slot()]
    if not hasattr(os, "sched_getaffinity"):  # macOS has no affinity of processes to cores
        return [Slot({"JAX_NUM_CPU_DEVICES": str(loky.cpu_count() // count)}) for _ in range(count)]
    cores = sorted(os.sched_getaffinity(0))
    return [Slot(cores=tuple(cores[i::count])) for i in range(count)]


@cache
def compiler_options() -> dict[str, str]:
    """Return options of `jax.jit` for this backend, or none if its version does not know them."""
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=CPU_OPTIONS)()
    except jax.errors.JaxRuntimeError:
        return {}
    return CPU_OPTIONS


def use_compilation_cache() -> None:
    """Keep compiled functions where the next process finds them: in JAX_COMPILATION_CACHE_DIR, else in `.cache/xla`.

    The latter is kept below `CACHE_BYTES`. Where the directory cannot be written, a line says so, and nothing is kept.
    """
    named = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    folder = Path(named or ROOT / ".cache" / "xla")
    if not (named and "://" in named) and (problem := unwritable(folder)):
        print(
            f"note: compiled functions are not kept, because {problem}; set JAX_COMPILATION_CACHE_DIR to a directory "
            "that can be written, and later runs start faster",
            file=sys.stderr,
        )
        jax.config.update("jax_enable_compilation_cache", False)
    elif not named:  # else JAX has read it
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        _remove_oldest(folder, CACHE_BYTES)


def _remove_oldest(folder: Path, limit: int) -> None:
    """Remove the files of a directory that were written first, until those that remain have at most `limit` bytes.

    JAX has a limit of its own, but a process that is killed while it writes makes such a cache unusable.
    """
    found = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process removes it
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size
