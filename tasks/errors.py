"""The error of this package, in a module of its own so that it can be caught without importing numpy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DataError(Exception):
    """Source or prepared data that cannot be used. The message says what, where, and how to fix it."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return ` (did you mean 'listops'?)` with the most similar of the valid names; "" if none is similar."""
    return "".join(f" (did you mean {near!r}?)" for near in difflib.get_close_matches(name, list(valid), 1))
