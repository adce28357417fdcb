"""Which processes computed a run: where each of them ran, with which versions, and from which step on.

It is kept in the checkpoint, so a process that was killed before it saved anything is not listed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lra import typed_json
from lra.errors import RunError
from lra.provenance.code import Code, changes
from lra.provenance.environment import code_state, environment, now


@dataclasses.dataclass(frozen=True)
class Session:
    """A process that worked on a run.

    step:        the first that it computed
    environment: see `lra.provenance.environment.environment`
    code:        see `lra.provenance.environment.code_state`
    """

    step: int
    started: str
    environment: Mapping[str, Any]
    code: Mapping[str, Any]


def continued(sessions: Sequence[Session], step: int) -> tuple[Session, ...]:
    """Return the sessions so far, and that of this process, which resumes at `step`, if it differs from the last."""
    this = Session(step, now(), environment(), code_state())
    if sessions and (sessions[-1].environment, sessions[-1].code) == (this.environment, this.code):
        return tuple(sessions)
    return (*sessions, this)


def as_json(code: Code, sessions: Sequence[Session]) -> dict[str, Any]:
    """Return what is saved with a checkpoint."""
    return {"code": dict(code.files), "sessions": [dataclasses.asdict(session) for session in sessions]}


def from_json(fields: Mapping[str, Any], code: Code, directory: Path) -> tuple[Session, ...]:
    """Return the sessions that computed the checkpoint in a run's directory, which this process is to resume.

    Raises:
      RunError: other code computed it; the message names the files that differ.
    """
    files = fields.get("code")
    if files != code.files:
        known = files if isinstance(files, Mapping) else None
        raise RunError(
            f"{directory}: its checkpoint was computed by other code and is not resumed "
            f"({changes(known, code.files)}); take that code, or move this directory away to start from scratch"
        )
    try:
        return typed_json.from_json(tuple[Session, ...], json.dumps(fields.get("sessions")))
    except ValueError as error:
        raise RunError(f"{directory}: the checkpoint's list of sessions is of another version ({error})") from error
