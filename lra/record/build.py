"""Records as they are made: what those of runs, trivial baselines and tunings have in common."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from lra.provenance import environment as env
from lra.record.files import pack
from lra.record.schema import SCHEMA, Column, Header, Mixer, Result, at_chance
from tasks.core import Prepared

R = TypeVar("R", bound=Header)


def build(
    kind: type[R],
    record_id: str,
    column: Column | Mapping[str, Any],
    mixer: Mixer | Mapping[str, Any],
    *,
    environment: Mapping[str, Any] | None = None,
    code: Mapping[str, Any] | None = None,
    **fields: Any,
) -> R:
    """Return a record made now.

    Args:
      kind: the class of the record
      environment: None: of this process
      code: None: the state of the project's files
      fields: of this kind of record

    Raises:
      ValueError: a value is not allowed by the schema.
    """
    (name,) = typing.get_args(kind.model_fields["kind"].annotation)
    header = {"schema": SCHEMA, "kind": name, "status": fields.pop("status", "complete"), "id": record_id}
    header |= {"created": env.now(), "column": column, "mixer": mixer}
    origin = {"environment": environment or env.environment(), "code": code or env.code_state()}
    return kind.model_validate({**header, **fields, **origin})


def column_of(data: Prepared, protocol: str | None, version: int | None, modified: bool) -> dict[str, Any]:
    """Return the column of results on prepared data."""
    return {
        "task": data.task,
        "variant": data.column_variant,
        "task_version": data.version,
        "source": data.source,
        "data_sha256": data.sha256,
        "protocol": protocol,
        "protocol_version": version,
        "modified": modified,
    }


def result_of(predictions: np.ndarray, labels: np.ndarray, classes: int, **more: Any) -> Result:
    """Return the results of predictions [N] for test labels [N].

    Args:
      more: further fields
    """
    correct = predictions == labels
    confusion = np.bincount(labels.astype(int) * classes + predictions, minlength=classes * classes)
    return Result(
        accuracy=float(correct.mean()),
        correct=int(correct.sum()),
        count=len(labels),
        confusion=confusion.reshape(classes, classes).tolist(),
        predictions=pack(predictions),
        correct_bits=pack(np.packbits(correct)),
        **more,
        at_chance=at_chance(int(correct.sum()), len(labels), largest_share(labels)),
    )


def largest_share(labels: np.ndarray) -> float:
    """Return the share of the largest class of labels [N]: the accuracy of the best constant prediction."""
    return float(np.bincount(labels).max() / len(labels))
