"""Names and versions of the mixers, read from the files in `models/mixers/` without importing them."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "mixers"


def available() -> tuple[str, ...]:
    """Return the sorted names of the mixers."""
    return tuple(sorted(p.stem for p in FOLDER.glob("*.py") if not p.stem.startswith("_")))


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return ` (did you mean 'softmax'?)` with the most similar of the valid names; "" if none is similar."""
    return "".join(f" (did you mean {near!r}?)" for near in difflib.get_close_matches(name, list(valid), 1))


def version_of(name: str) -> int:
    """Return the version of a mixer: `VERSION` in its file, or 1 if the file has none.

    Raises:
      ValueError: the mixer does not exist, or its VERSION is not an integer literal of at least 1.
    """
    if name not in available():
        raise ValueError(
            f"unknown mixer {name!r}{did_you_mean(name, available())}; the mixers are {', '.join(available())}"
        )
    path = FOLDER / f"{name}.py"
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "VERSION":
            return checked_version(ast.literal_eval(node.value), path.name)
    return 1


def checked_version(version: Any, file: str) -> int:
    """Return a VERSION; raise ValueError if it is not an integer of at least 1."""
    if type(version) is not int or version < 1:
        raise ValueError(f"{file}: VERSION must be an integer of at least 1, as in VERSION = 2")
    return version
