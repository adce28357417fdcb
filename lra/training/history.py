"""What is known of a run while it goes on: its curve, its validations, its best step. Saved with every checkpoint."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from lra.errors import RunError
from lra.protocols import CURVE_POINTS
from lra.selection import best_step
from lra.typed import mistyped


@dataclasses.dataclass
class Journal:
    """The course of one run.

    Attributes:
      steps: of the whole run
      first_selectable: first step whose validation may select the checkpoint that is tested; None: the last is tested
      curve: [step, loss, accuracy], means over the steps since the point before, on training batches
      sums: of loss and accuracy since the last point of the curve, and the number of steps
      validation: [step, loss, accuracy]
      seconds: so far, in all processes that worked on it; with compilation, evaluations and checkpoints
      timed_steps, timed_seconds: steps whose time is known without these, and that time (`lra.training.meter`)
      failed: step, loss and gradient norm of the first step that was not finite; nothing is written after it
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

    def write(self, step: int, loss: float, accuracy: float, norm: float) -> None:
        """Takes what one step measured."""
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

    def validate(self, step: int, loss: float, accuracy: float) -> None:
        """Takes what one validation measured."""
        if math.isfinite(loss):
            self.validation.append([step, loss, accuracy])
        else:
            self.failed = (step, loss, math.nan)

    @property
    def steps_per_second(self) -> float | None:
        """The speed of training, without compilation, evaluations and checkpoints; None if no step was timed."""
        return self.timed_steps / self.timed_seconds if self.timed_seconds else None

    @property
    def best_step(self) -> int | None:
        """The step of the best validation among those that may select; of equals, the earliest."""
        return best_step(self.validation, self.first_selectable)


class Journals:
    """The journals of all seeds of a program, and the metrics of steps that are still under way."""

    def __init__(self, each: list[Journal]) -> None:
        self.each = each
        self._waiting: list[tuple[int, jax.Array]] = []

    def add(self, step: int, metrics: jax.Array) -> None:
        """Takes [loss, accuracy, gradient norm] of `step` and those after it, [n, (S,) 3], without waiting for them."""
        self._waiting.append((step, metrics))

    def settle(self, *, leave: int = 0) -> None:
        """Waits for all dispatches but the newest `leave`, and writes them down."""
        while len(self._waiting) > leave:
            first, metrics = self._waiting.pop(0)
            for step, row in enumerate(np.asarray(metrics).reshape(len(metrics), -1, 3), first):
                for journal, values in zip(self.each, row, strict=True):
                    journal.write(step, *map(float, values))

    def count(self, steps: int, seconds: float) -> None:
        """Takes steps whose time is known."""
        for journal in self.each:
            journal.timed_steps += steps
            journal.timed_seconds += seconds

    @property
    def going_on(self) -> list[Journal]:
        """Of the seeds that have not failed."""
        return [journal for journal in self.each if journal.failed is None]

    @property
    def accuracies(self) -> list[float | None]:
        """The latest validation accuracy of each seed; None before its first."""
        return [journal.validation[-1][2] if journal.validation else None for journal in self.each]

    def to_json(self) -> dict[str, Any]:
        return {"journals": [dataclasses.asdict(journal) for journal in self.each]}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Journals:
        """Raises RunError: written by another version."""
        try:
            each = [Journal(**journal) for journal in fields["journals"]]
            wrong = next(filter(None, (mistyped(dataclasses.replace(j, failed=None), Journal) for j in each)), "")
        except (KeyError, TypeError) as error:
            wrong = repr(error)
        if wrong:
            raise RunError(f"the checkpoint's journal is of another version ({wrong}): delete the run's directory")
        return cls(each)
