"""Memory of a benchmark's cell: what the machine has, and what compiled programs need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from lra.runtime.memory import kilobytes


def limit_bytes() -> int | None:
    """Memory that programs may have: of a device where it is counted, on a CPU what the system calls available.

    None: neither is known here.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    if jax.default_backend() != "cpu":
        return None
    return kilobytes(Path("/proc/meminfo"), "MemAvailable")


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
