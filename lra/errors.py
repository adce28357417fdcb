"""Errors that the user can fix. The command line prints their message alone, without a traceback."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

from lra.paths import ROOT


class LraError(Exception):
    """Base class. The message says what is wrong, where, and how to fix it."""

    exit_status = 1


class ConfigError(LraError):
    """A task, protocol, override or option that does not exist, or a value that is not valid."""


class RunError(LraError):
    """A run that cannot start or continue."""


class Interrupted(RunError):
    """A run that was stopped by a signal and can be resumed from its checkpoint."""

    exit_status = 130


class CheckpointError(LraError):
    """A checkpoint that cannot be read or written."""


class RecordError(LraError):
    """A file that is not a valid record; the message names the file."""


def describe(error: BaseException) -> str:
    """Return `FILE:LINE raised TYPE: MESSAGE`, of the innermost frame outside of lra/ and of installed libraries."""
    hidden = ROOT / "lra", Path(sysconfig.get_path("stdlib")).resolve()
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    foreign = [f for f in frames if not any(Path(f.filename).resolve().is_relative_to(folder) for folder in hidden)]
    place = "".join(f"{Path(f.filename).name}:{f.lineno} raised " for f in (foreign or frames)[-1:])
    return f"{place}{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
