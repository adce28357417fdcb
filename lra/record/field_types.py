"""Types of the values in result records. Each has the words in which a refused value is reported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from lra import config as cfg

MAX_EXAMPLES = 10_000_000


class Part(BaseModel):
    """A JSON object of a record. It keeps fields that it does not know, and the order of its fields."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")
    _names: tuple[str, ...] = ()

    @model_validator(mode="wrap")
    @classmethod
    def _keep_order(cls, fields: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        part = validate(fields)
        if isinstance(fields, Mapping):
            part._names = tuple(fields)
        return part

    @model_serializer(mode="wrap")
    def _in_order(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = dump(self)
        return {name: fields[name] for name in self._names}

    def as_json(self) -> dict[str, Any]:
        """Return the object as it was read: no field is added, left out or moved."""
        return self.model_dump(by_alias=True)


def wanted(words: str) -> WrapValidator:
    """Return a validator that reports a refused value as `not <words>`, whatever is wrong inside it."""

    def check(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError:
            raise PydanticCustomError("unwanted", "not {words}", {"words": words}) from None

    return WrapValidator(check)


def _check_date(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("no time zone")
    return text


def _check_points(points: list[list[int | float]]) -> list[list[int | float]]:
    steps = [0, *(step for step, _, _ in points)]
    if not all(type(step) is int for step in steps) or not all(a < b for a, b in pairwise(steps)):
        raise ValueError("steps do not grow")
    if not all(loss >= 0 and 0 <= accuracy <= 1 for _, loss, accuracy in points):
        raise ValueError("out of range")
    return points


def _check_square(rows: list[list[int]]) -> list[list[int]]:
    if any(len(row) != len(rows) for row in rows):
        raise ValueError("not square")
    return rows


NAME = "[A-Za-z0-9_@=+-][A-Za-z0-9._@=+-]{0,199}"
_HASH = "^[0-9a-f]{64}$"
AnyText = Annotated[str, wanted("a text, or an empty one")]
Text = Annotated[str, Field(min_length=1), wanted("a text")]
Name = Annotated[str, Field(pattern=f"^{NAME}$"), wanted(f"a plain name, of {NAME}")]
Task = Annotated[str, Field(pattern=f"^(?:{'|'.join(cfg.TASKS)})$"), wanted(" or ".join(cfg.TASKS))]
Protocol = Annotated[
    str,
    Field(pattern=f"^(?:{'|'.join(map(re.escape, cfg.PROTOCOL_NAMES))})$"),
    wanted(f"{' or '.join(cfg.PROTOCOLS)}, alone or with +{' or +'.join(cfg.RECIPES)}"),
]
Status = Annotated[Literal["complete", "truncated", "diverged"], wanted("complete or truncated or diverged")]
Complete = Annotated[Literal["complete"], wanted("complete")]
Date = Annotated[str, AfterValidator(_check_date), wanted("a date with its zone")]
Sha256 = Annotated[str, Field(pattern=_HASH), wanted("a SHA-256")]
Commit = Annotated[str, Field(pattern="^(?:[0-9a-f]{40}|[0-9a-f]{64})$"), wanted("a commit, or null")]
Flag = Annotated[bool, wanted("true or false")]
Count = Annotated[int, Field(ge=0), wanted("a whole number from 0")]
Positive = Annotated[int, Field(ge=1), wanted("a whole number from 1")]
Examples = Annotated[int, Field(ge=1, le=MAX_EXAMPLES), wanted(f"a whole number from 1 to {MAX_EXAMPLES:,}")]
# A whole number remains one, so that a record is written as it was read.
Number = Annotated[int | float, Field(ge=0), wanted("a number from 0")]
Share = Annotated[int | float, Field(ge=0, le=1), wanted("a number from 0 to 1")]
Points = Annotated[
    list[Annotated[list[int | float], Field(min_length=3, max_length=3), FailFast()]],
    FailFast(),
    AfterValidator(_check_points),
    wanted("a list of [step, loss, accuracy] with growing steps"),
]
Confusion = Annotated[
    list[Annotated[list[Annotated[int, Field(ge=0, le=MAX_EXAMPLES)]], FailFast()]],
    Field(min_length=1),
    FailFast(),
    AfterValidator(_check_square),
    wanted("rows of counts"),
]
Files = Annotated[
    dict[str, Annotated[str, Field(pattern=_HASH)]],
    Field(min_length=1),
    wanted("a SHA-256 for each of one or more files"),
]
