"""Memory that compiled programs need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax


def needed_bytes(compiled: Mapping[str, Any], resident: Any, devices: int) -> int:
    """Return the memory of a training loop while its largest program runs.

    The loop holds the arguments of `compiled["gradient"]` and `resident`. A program needs its temporaries and results,
    less the results that reuse the memory of an argument. The compiler counts for one device; on a CPU all devices
    share the memory.

    Args:
      compiled: executables by name
      resident: arrays, or their shapes
      devices: number of devices that run each program
    """
    memory: dict[str, Any] = {name: program.memory_analysis() for name, program in compiled.items()}
    arrays = memory["gradient"].argument_size_in_bytes + sum(
        a.size * a.dtype.itemsize for a in jax.tree.leaves(resident)
    )
    largest = max(m.temp_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes for m in memory.values())
    return (arrays + largest) * (devices if jax.default_backend() == "cpu" else 1)
