"""The lock of a run's directory: one process at a time works on a run."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, SoftFileLock, Timeout

from lra.errors import RunError

LOCK_FILE = "lock"
TIMEOUT_SECONDS = 1.0  # `has_process` holds a lock for less


@contextmanager
def run_lock(directory: Path) -> Iterator[None]:
    """Hold the lock of a run's directory. The operating system releases it when the process ends.

    On a file system without flock, filelock prints a warning, and the lock is held for as long as
    its file exists and names a living process.

    Raises:
      RunError: another process holds it, or the file system refuses locks.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(directory / LOCK_FILE).acquire(TIMEOUT_SECONDS)
    except Timeout as error:
        raise RunError(f"{directory}: another process is working on this run; wait for it, or stop it") from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise
        raise RunError(
            f"{directory}: the file system refuses locks ({error.strerror}); set LRA_RUNS to a directory of another one"
        ) from error
    with lock:
        yield


def has_process(directory: Path) -> bool:
    """Whether a process on this machine holds the lock of a run's directory. Needs no write access."""
    try:
        with (directory / LOCK_FILE).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:  # no file, no permission, or no flock
        pid = SoftFileLock(directory / LOCK_FILE).pid if error.errno == errno.ENOSYS else None
        return pid is not None and psutil.pid_exists(pid)
    return False
