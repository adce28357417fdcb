"""Which checkpoint of a run is tested. Imports neither jax nor flax."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lra.protocols import Train


def selection_rule(card_selection: str, train: Train) -> str:
    """Return which checkpoint is tested: "validation" (the best on it) or "last".

    Args:
      card_selection: what the task allows; "last" if it has no validation split
    """
    return "last" if train.selection == "last" else card_selection


def first_selectable(card_selection: str, train: Train) -> int | None:
    """Return the first step whose validation may select the checkpoint that is tested; None: the last one is tested."""
    if selection_rule(card_selection, train) == "last":
        return None
    return math.floor(train.select_after * train.steps) + 1


def best_step(validation: Sequence[Sequence[float]], first_selectable: int | None) -> int | None:
    """Return the step of the best validation from `first_selectable` on; of equals the earliest, None if there is none.

    Args:
      validation: [step, loss, accuracy] with growing steps
    """
    if first_selectable is None:
        return None
    points = [point for point in validation if point[0] >= first_selectable]
    best = max(points, key=lambda point: point[2], default=None)
    return None if best is None else int(best[0])
