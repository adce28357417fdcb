"""When a run with a time limit must stop, so that its test still fits."""

from __future__ import annotations

import math
import time


class TimeBudget:
    """Estimates the seconds of a step and of the test from what has been measured so far."""

    def __init__(self, max_minutes: float | None) -> None:
        self.started = time.monotonic()
        self._deadline = math.inf if max_minutes is None else self.started + 60 * max_minutes
        self.step_seconds = 0.0  # moving average; 0 before the first measurement
        self._test_seconds = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def record_step(self, seconds: float) -> None:
        """Update the moving average of the time of a step."""
        self.step_seconds = 0.95 * self.step_seconds + 0.05 * seconds if self.step_seconds else seconds

    def record_test_estimate(self, seconds: float) -> None:
        """Replace the estimate of the time of the test."""
        self._test_seconds = seconds

    def ends_within(self, steps: int) -> bool:
        """Return whether the time left is too short for 10 dispatches of `steps` steps and the test."""
        needed = self._test_seconds + 10 * steps * self.step_seconds + 5
        return time.monotonic() + needed > self._deadline
