"""Records with other values in some places."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, TypeVar

from lra.record.files import RecordFile
from lra.record.schema import Header

T = TypeVar("T")


def edited(value: T, places: dict[str, Any]) -> T:
    """Return a record, or the file of one, with other values in some places, as {"test.accuracy": 0.9}."""
    if isinstance(value, RecordFile):
        return dataclasses.replace(value, record=edited(value.record, places))  # type: ignore[return-value]
    assert isinstance(value, Header)
    fields = json.loads(json.dumps(value.as_json()))
    for place, inside in places.items():
        *parents, name = place.split(".")
        part = fields
        for parent in parents:
            part = part[parent]
        part[name] = inside
    return type(value).model_validate(fields)
