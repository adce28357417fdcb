"""Memory of a benchmark's cell: what the machine has, what compiled programs need, what the steps really took."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax


def limit_bytes() -> int | None:
    """Memory that programs may have: of a device where it is counted, on a CPU what the system calls available.

    None: neither is known here.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    if jax.default_backend() != "cpu":
        return None
    return _kilobytes(Path("/proc/meminfo"), "MemAvailable")


def needed_bytes(compiled: Mapping[str, Any], beside: Any, devices: int) -> int:
    """Memory of a training loop that holds what `compiled["gradient"]` is given and `beside`, at its largest program.

    A program's memory is its arguments, temporaries and results, less the results that take an argument's place.
    The compiler counts for one device: on a CPU all devices share the memory.

    Args:
      compiled: executables by name; "gradient" takes all that is held but `beside`
      beside: arrays, or their shapes, that are held too
      devices: how many run each program
    """
    memory: dict[str, Any] = {name: program.memory_analysis() for name, program in compiled.items()}
    held = memory["gradient"].argument_size_in_bytes + sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(beside))
    largest = max(m.temp_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes for m in memory.values())
    return (held + largest) * (devices if jax.default_backend() == "cpu" else 1)


class Peak:
    """The largest memory of steps: of a device, or of this process on a CPU.

    A device counts it exactly. On a CPU it is what the arrays given here take, and the growth of resident memory since
    then: interpreter, libraries, compiler and compiled code are not in it. Make it after compiling. Linux only; None
    elsewhere.
    """

    def __init__(self, held: Any) -> None:
        """held: the arrays that the steps begin with."""
        arrays = jax.block_until_ready(jax.tree.leaves(held))
        self._held = sum(shard.data.nbytes for a in arrays for shard in a.addressable_shards)
        self._before: int | None = None
        if jax.default_backend() != "cpu":
            return
        try:
            ctypes.CDLL(None).malloc_trim(0)  # what the compiler has freed goes back, so that new arrays count
            Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark (man 5 proc)
        except (OSError, AttributeError):
            return
        self._before = _kilobytes(Path("/proc/self/status"), "VmHWM")

    def bytes(self) -> int | None:
        """So far."""
        if jax.default_backend() != "cpu":
            peaks = [(d.memory_stats() or {}).get("peak_bytes_in_use") for d in jax.local_devices()]
            return max((int(p) for p in peaks if p is not None), default=None)
        now = _kilobytes(Path("/proc/self/status"), "VmHWM")
        return None if self._before is None or now is None else self._held + now - self._before


def _kilobytes(path: Path, name: str) -> int | None:
    """A line `name: 123 kB` of a file of /proc, in bytes."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None
