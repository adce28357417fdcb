"""How training ended: what the trainer returns, and records are made from."""

from __future__ import annotations

import dataclasses
from typing import Literal

from lra.provenance.sessions import Session
from lra.training.evaluation import Evaluation
from lra.training.history import History
from lra.training.receptive_field import ReceptiveField


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How training ended.

    Attributes:
      steps_per_second, peak_bytes: of training steps, without compilation and evaluations (`lra.training.meter`)
      test: None if the run was interrupted or diverged; `message` then says why
    """

    status: Literal["complete", "truncated", "interrupted", "diverged"]
    steps_done: int
    history: History
    parameters: int
    steps_per_second: float | None = None
    peak_bytes: int | None = None
    forward_flops: float | None = None
    selected_step: int | None = None
    test: Evaluation | None = None
    receptive_field: ReceptiveField | None = None
    message: str = ""
    sessions: tuple[Session, ...] = ()
