"""Speed and memory of training steps, without compilation, evaluations and checkpoints."""

from __future__ import annotations

import time
from typing import Any

import jax

from lra.runtime.memory import Peak
from lra.training.history import Journals

_compiled = 0  # programs of this process so far, those included that the compilation cache had


def _count(event: str, duration_secs: float, **_: str | int) -> None:
    global _compiled
    _compiled += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_count)


class Meter:
    """Measures laps of steps and adds them to the journals. A lap in which a program was compiled does not count."""

    def __init__(self, journals: Journals, held: Any) -> None:
        """Begin the first lap.

        Args:
          held: the arrays that the steps begin with
        """
        self._journals, self._peak = journals, Peak(held)
        self._started, self._compiled = time.monotonic(), _compiled
        self.peak_bytes: int | None = None  # of the laps that count, see `lra.runtime.memory.Peak`

    def lap(self, steps: int) -> float | None:
        """End a lap of so many steps, and begin the next.

        Returns:
          Seconds a step, or None if the lap does not count.
        """
        took = time.monotonic() - self._started
        if _compiled != self._compiled:
            self.restart()
            return None
        self._started += took
        peak = self._peak.bytes()
        self.peak_bytes = peak if self.peak_bytes is None else max(self.peak_bytes, peak or 0)
        self._journals.count(steps, took)
        return took / steps

    def restart(self) -> None:
        """Begin a lap now: what happened since the last one was no step."""
        self._peak.restart()
        self._started, self._compiled = time.monotonic(), _compiled
