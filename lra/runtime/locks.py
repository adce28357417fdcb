"""The lock of a run's directory: one process at a time works on a run."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lra.errors import RunError

LOCK_FILE = "lock"
TIMEOUT_SECONDS = 1.0  # `has_process` holds a lock for less


@contextmanager
def run_lock(directory: Path) -> Iterator[None]:
    """Hold the lock of a run's directory. The operating system releases it when the process ends.

    On a file system without flock, filelock prints a warning, and the lock is held for as long as
    its file exists.

    Raises:
      RunError: another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(directory / LOCK_FILE).acquire(TIMEOUT_SECONDS)
    except Timeout as error:
        raise RunError(f"{directory}: another process is working on this run; wait for it, or stop it") from error
    with lock:
        yield


def has_process(directory: Path) -> bool:
    """Whether a process on this machine holds the lock of a run's directory. Needs no write access."""
    try:
        with (directory / LOCK_FILE).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:  # no file, or no permission; without flock, the file exists while the lock is held
        return error.errno == errno.ENOSYS
    return False
