"""Speed and memory of training steps, without compilation, evaluations and checkpoints."""

from __future__ import annotations

import time
from typing import Any

import jax

from lra.runtime.memory import Peak
from lra.training.history import History

_compiled = 0  # functions compiled in this process so far, including those read from the compilation cache


def _count(event: str, duration_secs: float, **_: str | int) -> None:
    global _compiled
    _compiled += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_count)


class Meter:
    """Times laps of steps and adds them to a run's history. A lap in which something was compiled does not count."""

    def __init__(self, history: History, arrays: Any) -> None:
        """Begin the first lap.

        Args:
          arrays: those that are in memory before the first step, whose size belongs to the peak
        """
        self._history, self._peak = history, Peak(arrays)
        self._started, self._compiled = time.monotonic(), _compiled
        self.peak_bytes: int | None = None  # of the laps that count, see `lra.runtime.memory.Peak`

    def lap(self, steps: int) -> float | None:
        """End a lap of so many steps, and begin the next.

        Returns:
          Seconds per step, or None if the lap does not count.
        """
        seconds = time.monotonic() - self._started
        if _compiled != self._compiled:
            self.restart()
            return None
        self._started += seconds
        peak = self._peak.bytes()
        self.peak_bytes = peak if self.peak_bytes is None else max(self.peak_bytes, peak or 0)
        self._history.record_time(steps, seconds)
        return seconds / steps

    def restart(self) -> None:
        """Begin a lap now; the time since the last one was not spent on steps."""
        self._peak.restart()
        self._started, self._compiled = time.monotonic(), _compiled
