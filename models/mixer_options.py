"""Options of a mixer: the keywords of its constructor, with types and defaults."""

from __future__ import annotations

import ast
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.mixer_files import did_you_mean

LARGEST = 1e100  # of the numbers in records


class Option(typing.NamedTuple):
    """Annotation and default value of an option."""

    annotation: Any
    default: Any


def options(cls: type) -> dict[str, Option]:
    """Return the options of a mixer: all keywords of its constructor except `dims` and `rngs`.

    An option without an annotation, or with one that exists for type checkers only, has the type of its default; if
    that is None, any Python literal.

    Raises:
      ValueError: an option has no default, or the constructor takes `*args` or `**options`.
    """
    constructor: Any = inspect.unwrap(cls.__init__)  # type: ignore[misc]
    if not inspect.isfunction(constructor):
        raise ValueError(f"{cls.__name__} has no constructor `def __init__(self, dims, *, rngs)`")
    place = f"{Path(constructor.__code__.co_filename).name}: {cls.__name__}.__init__"
    valid = {}
    for name, parameter in inspect.signature(constructor).parameters.items():
        if name in ("self", "dims", "rngs"):
            continue
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            stars = "**" if parameter.kind is parameter.VAR_KEYWORD else "*"
            raise ValueError(f"{place}: name each option instead of {stars}{name}, as in `*, window: int = 64, rngs`")
        if parameter.default is parameter.empty:
            raise ValueError(f"{place}: the option {name} has no default; give it one, as in `{name}: int = 64`")
        annotation = _evaluated(parameter.annotation, constructor)
        if annotation is parameter.empty:
            known = type(parameter.default) in (bool, int, float, str)
            annotation = type(parameter.default) if known else Any
        valid[name] = Option(annotation, parameter.default)
    return valid


def _evaluated(annotation: Any, function: Any) -> Any:
    """Return an annotation of a function; `inspect.Parameter.empty` if a name in it is not defined when it runs."""
    holder = types.SimpleNamespace(__annotations__={"option": annotation}, __globals__=function.__globals__)
    try:
        return typing.get_type_hints(holder)["option"]
    except (NameError, AttributeError, TypeError, SyntaxError):
        return inspect.Parameter.empty


def check_options(cls: type, given: Mapping[str, Any]) -> None:
    """Check names and types of options, and that no number is infinite or above 1e100.

    Raises:
      ValueError: an option does not exist or has an invalid value.
    """
    valid, title = options(cls), title_of(cls)
    for name, value in given.items():
        if name not in valid:
            listed = ", ".join(f"{n}={o.default}" for n, o in valid.items()) or "none"
            raise ValueError(f"{title} has no option {name!r}{did_you_mean(name, valid)}; its options: {listed}")
        for number in value if isinstance(value, list | tuple) else (value,):
            if isinstance(number, int | float) and not abs(number) <= LARGEST:
                raise ValueError(f"{title}: option {name}={value}: not a finite number of at most {LARGEST:g}")
        if (problem := _problem(value, valid[name].annotation)) is not None:
            raise ValueError(f"{title}: option {name}={value}: {problem}")


def _problem(value: Any, annotation: Any) -> str | None:
    """Return why a value is not of a type that `parse_options` knows; None if it is, or if the type is another."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        problems = [_problem(value, arg) for arg in args]
        return None if None in problems else f"not one of {', '.join(getattr(a, '__name__', str(a)) for a in args)}"
    if origin is typing.Literal:
        return None if value in args else f"not one of {', '.join(map(str, args))}"
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        parts = value if isinstance(value, list | tuple) else [value]
        return next((problem for part in parts if (problem := _problem(part, args[0])) is not None), None)
    accepted: Any = {bool: bool, int: int, float: (int, float), str: str, type(None): type(None)}.get(annotation)
    if accepted is None or (isinstance(value, accepted) and isinstance(value, bool) <= (annotation is bool)):
        return None
    return {bool: "not true or false", int: "not an int", float: "not a float", str: "not a text"}.get(
        annotation, "not none"
    )


def title_of(cls: type) -> str:
    """Return the name of a mixer in messages: that of its file in `models/mixers/`, or of its class."""
    package, _, module = cls.__module__.rpartition(".")
    return module if package == "models.mixers" else cls.__name__


def parse_options(cls: type, texts: Sequence[str]) -> dict[str, Any]:
    """Convert command-line options such as ["window=64"] by the annotations of the constructor.

    Raises:
      ValueError: a text is not of the form name=value, the option does not exist, or the value has another type.
    """
    valid = options(cls)
    parsed: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text!r} is not an option of the form name=value")
        if name not in valid:
            check_options(cls, {name: value})
        try:
            parsed[name] = _convert(value, valid[name].annotation)
        except ValueError as error:
            raise ValueError(f"{title_of(cls)}: option {name}={value}: {error}") from None
    return parsed


def _convert(text: str, annotation: Any) -> Any:
    """Convert a text by an annotation: int, float, bool, str, None, Literal, tuple[T, ...], union of these, or Any."""
    if annotation is Any:
        return _literal(text)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        for arg in sorted(args, key=lambda a: a is str):  # str accepts every text, so it is tried last
            try:
                return _convert(text, arg)
            except ValueError:
                continue
        raise ValueError(f"not one of {', '.join(getattr(a, '__name__', str(a)) for a in args)}")
    if origin is typing.Literal:
        for choice in args:
            if str(choice) == text:
                return choice
        raise ValueError(f"not one of {', '.join(map(str, args))}")
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return tuple(_convert(part.strip(), args[0]) for part in text.split(",") if part.strip())
    if annotation is type(None):
        if text.lower() == "none":
            return None
        raise ValueError("not none")
    if annotation is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise ValueError("not true or false")
    if annotation in (int, float, str):
        try:
            return annotation(text)
        except ValueError:
            raise ValueError(f"not {'an int' if annotation is int else 'a float'}") from None
    raise ValueError(f"a value of type {annotation} cannot be given as text")


def _literal(text: str) -> Any:
    """Return the value of a Python literal: None, a number, a bool, a string, or a tuple of these."""
    try:
        value = None if text.lower() == "none" else ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(
            "not a Python literal, such as 64, 0.5, True or 'text'; annotate the option with its type"
        ) from None
    value = tuple(value) if isinstance(value, list) else value
    if not all(
        isinstance(item, int | float | str | None) for item in (value if isinstance(value, tuple) else (value,))
    ):
        raise ValueError("not None, a number, a bool, a string or a tuple of these")
    return value
