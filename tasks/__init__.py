"""What is learned: one file per task. The file's name is the task's name."""

from __future__ import annotations

import importlib
from types import ModuleType

NAMES = ("listops", "text", "retrieval", "image", "pathfinder")  # in the order of LRA's tables


def available() -> tuple[str, ...]:
    """Names of the tasks, in the order in which every table of this suite prints them."""
    return NAMES


def load_task(name: str) -> ModuleType:
    """The module of a task: its `CARD`, `build` and `locate` (see `tasks.core`).

    Raises:
      ValueError: no such task; the message lists the valid names.
    """
    if name not in NAMES:
        raise ValueError(f"no task {name!r}; the tasks are {', '.join(NAMES)}")
    return importlib.import_module(f"tasks.{name}")
