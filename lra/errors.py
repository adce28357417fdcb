"""Errors that the user can fix. The command line prints their message alone, without a traceback."""

from __future__ import annotations


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
