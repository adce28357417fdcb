"""Tasks: one module or package each, with the name of the task. There is no list of them.

A module is a task if it defines a `CARD` (see `tasks.core`). The protocols of a task are in `configs/<task>.py`.
"""

from __future__ import annotations

import functools
import importlib
import re
from pathlib import Path
from types import ModuleType

LRA_TASKS = ("listops", "text", "retrieval", "image", "pathfinder")  # of the original suite, in the order of its tables

_CARD = re.compile(r"^CARD\b", re.MULTILINE)


@functools.cache
def available() -> tuple[str, ...]:
    """Return the names of all tasks: those of the original suite first, then the others in alphabetical order.

    Files are searched for a card but not imported, because tasks import numpy.
    """
    paths = [path for folder in map(Path, __path__) for path in (*folder.glob("*.py"), *folder.glob("*/__init__.py"))]
    names = {
        path.parent.name if path.stem == "__init__" else path.stem
        for path in paths
        if _CARD.search(path.read_text("utf-8"))
    }
    return (*(name for name in LRA_TASKS if name in names), *sorted(names.difference(LRA_TASKS)))


def load_task(name: str) -> ModuleType:
    """Return the module of a task, with its `CARD`, `build` and `locate` (see `tasks.core`).

    Raises:
      ValueError: there is no such task; the message lists the valid names.
    """
    if name not in available():
        raise ValueError(f"no task {name!r}; the tasks are {', '.join(available())}")
    return importlib.import_module(f"tasks.{name}")
