"""What is known of a run while it goes on: its curve, its validations, its best step. Saved with every checkpoint."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np

CURVE_POINTS = 200


class NotFinite(Exception):
    """The loss or the gradient of a step is not a number."""

    def __init__(self, step: int, loss: float, norm: float) -> None:
        super().__init__(f"not a number at step {step}: loss {loss}, gradient norm {norm}")
        self.step = step


@dataclasses.dataclass
class Journal:
    """steps: of the whole run. Curve: [step, loss, accuracy] means over the steps since the point before, on training
    batches. Validation: [step, loss, accuracy]. seconds: of training so far, in all processes that worked on it."""

    steps: int
    curve: list[list[float]] = dataclasses.field(default_factory=list)
    sums: list[float] = dataclasses.field(default_factory=lambda: [0.0, 0.0, 0])
    validation: list[list[float]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    _waiting: list[tuple[int, jax.Array]] = dataclasses.field(default_factory=list)

    def add(self, step: int, metrics: jax.Array) -> None:
        """Takes [loss, accuracy, gradient norm] of a step, without waiting for it."""
        self._waiting.append((step, metrics))

    def settle(self, *, leave: int = 0) -> None:
        """Waits for all steps but the newest `leave`, and writes them down.

        Raises:
          NotFinite: one of them has no finite loss or gradient.
        """
        every = math.ceil(self.steps / CURVE_POINTS)
        while len(self._waiting) > leave:
            step, metrics = self._waiting.pop(0)
            loss, accuracy, norm = map(float, np.asarray(metrics))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise NotFinite(step, loss, norm)
            self.sums = [self.sums[0] + loss, self.sums[1] + accuracy, self.sums[2] + 1]
            if (step + 1) % every == 0 or step + 1 == self.steps:
                self.curve.append([step + 1, self.sums[0] / self.sums[2], self.sums[1] / self.sums[2]])
                self.sums = [0.0, 0.0, 0]

    @property
    def best_step(self) -> int | None:
        """The step of the best validation; of equals, the earliest."""
        best = max(self.validation, key=lambda point: point[2], default=None)
        return None if best is None else int(best[0])

    def to_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if not f.name.startswith("_")}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Journal:
        return cls(**fields)
