"""The error of this package, in a module of its own so that it can be caught without importing numpy."""

from __future__ import annotations


class DataError(Exception):
    """Source or prepared data that cannot be used. The message says what, where, and how to fix it."""
