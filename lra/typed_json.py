"""Strict type checks of dataclasses and of their JSON by pydantic, which is imported at the first use.

A value has exactly the type of its field, no field is unknown, and numbers are finite. A whole number in a field of
type float becomes a float: 1 and 1.0 are one setting and must not lead to two hashes.
"""

from __future__ import annotations

import dataclasses
import re
import reprlib
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

T = TypeVar("T")
short_repr = reprlib.repr  # at most some 40 characters, and none that a terminal would obey
STRICT: ConfigDict = {
    "strict": True,
    "extra": "forbid",
    "allow_inf_nan": False,
    "revalidate_instances": "always",
    "arbitrary_types_allowed": True,
}


def from_json(wanted: type[T], text: str | bytes) -> T:
    """Return the dataclass, or other value of a type, that a JSON text states.

    Raises:
      ValueError: the text is not JSON, or a field is missing, unknown, of another type or out of range
    """
    return _converted(_adapter(cast(Any, wanted)).validate_json, text)


def checked(value: T) -> T:
    """Return a copy of a dataclass after a check of its types and ranges.

    Raises:
      ValueError: a field is of another type or out of range
    """
    return _converted(_adapter(cast(Any, type(value))).validate_python, value)


def with_floats(value: Any, wanted: Any) -> Any:
    """Return a whole number as a float where a type wants a float; anything else as it is."""
    try:
        return _converted(_adapter(wanted).validate_python, value)
    except ValueError:
        return value


def problems(error: ValidationError, skip: int = 0) -> list[str]:
    """Return a line for each refused value: its place, the value, and what is wanted.

    Args:
      skip: leading parts of each place that are left out
    """
    lines = []
    for e in error.errors(include_url=False, include_context=False):
        message = re.sub(r"\d{20,}", lambda digits: f"{float(digits[0]):g}", e["msg"])  # of a limit that is a float
        place = place_of(e["loc"][skip:])
        if e["type"] == "missing":
            message = f"{place} is missing"
        elif e["type"] in ("model_type", "dict_type", "dataclass_type"):
            message = f"{place} is {short_repr(e['input'])}, not an object".removeprefix(" is ")
        elif place:
            link = ", " if e["type"] == "unwanted" else ": "
            message = f"{place} is {short_repr(e['input'])}{link}{message[0].lower()}{message[1:]}"
        lines.append(message)
    return lines


def place_of(names: tuple[int | str, ...]) -> str:
    """Return names and indices as a path, as in `trials[0].run`. Names that are not plain are quoted."""
    plain = (n if isinstance(n, int) or (n.isidentifier() and len(n) < 40) else short_repr(n) for n in names)
    return "".join(f"[{n}]" if isinstance(n, int) else f".{n}" for n in plain).removeprefix(".")


@cache
def _adapter(wanted: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter, with_config

    if dataclasses.is_dataclass(wanted):
        assert isinstance(wanted, type)
        return TypeAdapter(with_config(STRICT)(wanted))  # dataclasses inside follow the outer one
    return TypeAdapter(wanted, config=STRICT)


def _converted(validate: Callable[[Any], Any], value: Any) -> Any:
    from pydantic import ValidationError

    try:
        return validate(value)
    except ValidationError as error:
        raise ValueError("; ".join(problems(error))) from None
