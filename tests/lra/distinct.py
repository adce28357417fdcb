"""Dataclasses in which every field has a value of its own, so that no two can be mistaken for each other."""

from __future__ import annotations

import dataclasses
import itertools
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, TypeVar

T = TypeVar("T")
PRIMES = (p for p in itertools.count(101, 2) if all(p % d for d in range(3, 101, 2)))


def other(hint: Any, current: Any, primes: Iterator[int] = PRIMES) -> Any:
    """Return a value of the type `hint` that is not `current`; numbers have not been returned before."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return other(next(a for a in arguments if a is not type(None)), current, primes)
    if origin is Literal:
        return next(choice for choice in arguments if choice != current)
    if origin is tuple:
        return (other(arguments[0], None, primes), other(arguments[0], None, primes))
    if hint is bool:
        return not current
    if hint is str:
        return f"text {next(primes)}"
    return {int: int, float: lambda prime: prime / 2048}[hint](next(primes))  # a float is exact in binary


def distinct(value: T, **given: Any) -> T:
    """Return a dataclass like `value` with another value in every field; `given` ones as they are."""
    hints = typing.get_type_hints(type(value))
    names = [field.name for field in dataclasses.fields(value) if field.name not in given]  # type: ignore[arg-type]
    return dataclasses.replace(value, **given, **{name: other(hints[name], getattr(value, name)) for name in names})  # type: ignore[type-var]


def changed_fields(before: Any, after: Any) -> dict[str, Any]:
    """Return the new value of each field that differs."""
    names = [field.name for field in dataclasses.fields(before)]
    return {name: getattr(after, name) for name in names if getattr(before, name) != getattr(after, name)}
