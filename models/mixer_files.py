"""Names and versions of the mixers, read from the files of `models/mixers/` without importing them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "mixers"


def available() -> tuple[str, ...]:
    """Return the names of the mixers, sorted."""
    return tuple(sorted(p.stem for p in FOLDER.glob("*.py") if not p.stem.startswith("_")))


def version_of(name: str) -> int:
    """Return the version of a mixer: `VERSION` of its file, 1 without one.

    Raises:
      ValueError: there is no such mixer, or its VERSION is not a whole number from 1, written as such.
    """
    if name not in available():
        raise ValueError(f"unknown mixer {name!r}; the mixers are {', '.join(available())}")
    path = FOLDER / f"{name}.py"
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "VERSION":
            return checked_version(ast.literal_eval(node.value), path.name)
    return 1


def checked_version(version: Any, file: str) -> int:
    """Return a VERSION; raise ValueError if it is not a whole number from 1."""
    if type(version) is not int or version < 1:
        raise ValueError(f"{file}: VERSION must be a whole number from 1, as in VERSION = 2")
    return version
