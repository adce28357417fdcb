"""The measurements of a run so far: curve, validations, best step, time. Saved with every checkpoint."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import jax
import numpy as np

from lra.errors import RunError
from lra.protocols import CURVE_POINTS
from lra.selection import best_step
from lra.typed_json import from_json


@dataclasses.dataclass
class History:
    """The measurements of one run.

    Attributes:
      steps: planned steps of the run
      first_selectable: first step whose validation may select the checkpoint that is tested; None: the last is tested
      curve: [step, loss, accuracy], means over the steps since the previous point, on training batches
      sums: of loss and accuracy since the last point of the curve, and the number of steps
      validation: [step, loss, accuracy]
      seconds: so far, in all processes that trained the run, with compilation, evaluations and checkpoints
      timed_steps, timed_seconds: steps that were timed without these, and their time (`lra.training.meter`)
      failed: step, loss and gradient norm of the first step that was not finite; nothing is recorded after it
    """

    steps: int
    first_selectable: int | None = 1
    curve: list[list[float]] = dataclasses.field(default_factory=list)
    sums: list[float] = dataclasses.field(default_factory=lambda: [0.0, 0.0, 0])
    validation: list[list[float]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    timed_steps: int = 0
    timed_seconds: float = 0.0
    failed: tuple[int, float, float] | None = None
    _pending: list[tuple[int, jax.Array]] = dataclasses.field(default_factory=list, init=False, compare=False)

    def add(self, step: int, metrics: jax.Array) -> None:
        """Take loss, accuracy and gradient norm of `step` and the steps after it, [n, 3], without waiting for them."""
        self._pending.append((step, metrics))

    def flush(self, *, keep_pending: int = 0) -> None:
        """Wait for the metrics of all dispatches but the newest `keep_pending`, and record them."""
        while len(self._pending) > keep_pending:
            first, metrics = self._pending.pop(0)
            for step, values in enumerate(np.asarray(metrics), first):
                self.record(step, *map(float, values))

    def record(self, step: int, loss: float, accuracy: float, norm: float) -> None:
        """Record the metrics of one step."""
        if self.failed is not None:
            return
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.failed = (step, loss, norm)
            return
        every = math.ceil(self.steps / CURVE_POINTS)
        self.sums = [self.sums[0] + loss, self.sums[1] + accuracy, self.sums[2] + 1]
        if (step + 1) % every == 0 or step + 1 == self.steps:
            self.curve.append([step + 1, self.sums[0] / self.sums[2], self.sums[1] / self.sums[2]])
            self.sums = [0.0, 0.0, 0]

    def record_validation(self, step: int, loss: float, accuracy: float) -> None:
        """Record one evaluation on the validation split."""
        if math.isfinite(loss):
            self.validation.append([step, loss, accuracy])
        else:
            self.failed = (step, loss, math.nan)

    def record_time(self, steps: int, seconds: float) -> None:
        """Record the time of steps, without compilation, evaluations and checkpoints."""
        self.timed_steps += steps
        self.timed_seconds += seconds

    @property
    def steps_per_second(self) -> float | None:
        """The speed of training, without compilation, evaluations and checkpoints; None if no step was timed."""
        return self.timed_steps / self.timed_seconds if self.timed_seconds else None

    @property
    def best_step(self) -> int | None:
        """The step of the best validation among those that may select; of equals, the earliest."""
        return best_step(self.validation, self.first_selectable)

    @property
    def validation_accuracy(self) -> float | None:
        """The latest validation accuracy; None before the first validation."""
        return self.validation[-1][2] if self.validation else None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}

    @classmethod
    def from_json(cls, fields: Any) -> History:
        """Invert `to_json`.

        Raises:
          RunError: it was written by another version
        """
        try:
            from_json(cls, json.dumps({**fields, "failed": None}))  # a check alone: steps remain whole numbers
        except (TypeError, ValueError) as error:
            raise RunError(
                f"the history in the checkpoint was written by another version ({error}): delete the run's directory"
            ) from error
        return cls(**fields)
