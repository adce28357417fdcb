"""All targets, by name."""

from __future__ import annotations

from tests.fuzz import of_checkpoints, of_lra, of_tasks
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {**of_tasks.TARGETS, **of_lra.TARGETS, **of_checkpoints.TARGETS}
