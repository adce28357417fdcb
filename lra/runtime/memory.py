"""The memory that steps take, of a device or of this process."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import jax


class Peak:
    """The largest memory of steps: of a device, or of this process on a CPU.

    A device counts it exactly, from the start of the process on. On a CPU it is the size of the arrays given here, and
    the growth of resident memory since the last `restart`: interpreter, libraries, compiler and compiled code are not
    in it. Linux only; None elsewhere.
    """

    def __init__(self, held: Any) -> None:
        """Begin to measure.

        Args:
          held: the arrays that the steps begin with
        """
        arrays = jax.block_until_ready(jax.tree.leaves(held))
        self._held = sum(shard.data.nbytes for a in arrays for shard in a.addressable_shards)
        self._before: int | None = None
        self.restart()

    def restart(self) -> None:
        """Forget the growth so far, as after compiling. A device's count continues."""
        if jax.default_backend() != "cpu":
            return
        try:
            ctypes.CDLL(None).malloc_trim(0)  # what the compiler has freed goes back, so that new arrays count
            Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark (man 5 proc)
        except (OSError, AttributeError):
            return
        self._before = kilobytes(Path("/proc/self/status"), "VmHWM")

    def bytes(self) -> int | None:
        """Return the largest memory so far."""
        if jax.default_backend() != "cpu":
            peaks = [(d.memory_stats() or {}).get("peak_bytes_in_use") for d in jax.local_devices()]
            return max((int(p) for p in peaks if p is not None), default=None)
        now = kilobytes(Path("/proc/self/status"), "VmHWM")
        return None if self._before is None or now is None else self._held + now - self._before


def available_bytes() -> int | None:
    """Return the memory that programs may use: the device's limit, on a CPU what the system calls available.

    None: unknown.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return kilobytes(Path("/proc/meminfo"), "MemAvailable") if jax.default_backend() == "cpu" else None


def kilobytes(path: Path, name: str) -> int | None:
    """Return a line `name: 123 kB` of a file of /proc, in bytes; None if there is none."""
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None
