"""Runtime type check of dataclass fields."""

from __future__ import annotations

import dataclasses
import reprlib
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal


def mistyped(value: Any, wanted: Any, place: str = "") -> str:
    """The first value that is not of the type of its field, or no finite number; "" if all are."""
    origin, inside = typing.get_origin(wanted), typing.get_args(wanted)
    if dataclasses.is_dataclass(wanted) and isinstance(value, typing.cast(type, wanted)):
        hints = typing.get_type_hints(wanted)
        found = (mistyped(getattr(value, k), hint, f"{place}.{k}".strip(".")) for k, hint in hints.items())
        return next(filter(None, found), "")
    if origin in (typing.Union, types.UnionType):
        fits = any(not mistyped(value, one) for one in inside)
    elif origin is Literal:
        fits = type(value) is str and value in inside
    elif origin is tuple:
        each = [inside[0]] * len(value) if inside[-1] is ... and isinstance(value, tuple) else inside
        fits = isinstance(value, tuple) and len(value) == len(each) and not any(map(mistyped, value, each))
    elif origin is list:
        fits = isinstance(value, list) and not any(mistyped(v, inside[0]) for v in value)
    elif wanted is float:
        fits = isinstance(value, int | float) and type(value) is not bool and abs(value) <= sys.float_info.max
    else:
        fits = isinstance(value, Mapping) if origin else type(value) is wanted
    return "" if fits else f"{place} is {reprlib.repr(value)}, not of type {getattr(wanted, '__name__', wanted)}"


def with_floats(value: Any, hint: Any) -> Any:
    """Return a whole number as a float where the type wants a float; anything else as it is.

    1 and 1.0 are one setting, but not one text: they must not lead to two hashes.
    """
    inside = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if type(value) is not int or float not in inside or int in inside or abs(value) > sys.float_info.max:
        return value
    return float(value)
