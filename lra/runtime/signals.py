"""One process a run, and an orderly end on a signal."""

from __future__ import annotations

import fcntl
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lra.errors import RunError

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # clusters warn with one of the last two
LOOK_SECONDS = 1.0


@contextmanager
def only_process(directory: Path) -> Iterator[None]:
    """Holds the lock of a run's directory.

    Raises:
      RunError: another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        patience = time.monotonic() + LOOK_SECONDS
        while not _try_lock(lock, fcntl.LOCK_EX):
            if time.monotonic() > patience:  # `has_process` holds it for no more than a moment
                raise RunError(f"{directory}: another process is working on this run; wait for it, or stop it")
            time.sleep(0.05)
        yield


def has_process(directory: Path) -> bool:
    """Whether a process holds the lock of a run's directory, as far as this machine can see."""
    try:
        with (directory / "lock").open() as lock:
            return not _try_lock(lock, fcntl.LOCK_SH)
    except OSError:  # never begun, not ours to read, or a file system without locks
        return False


def _try_lock(lock: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that the signals of STOPPING set, so that the step under way ends first.

    A second Ctrl-C ends it at once. A second SIGTERM does not: clusters send several.

    Outside the main thread (some notebooks) signals stay as they are.
    """
    stop = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {s: signal.signal(s, handle) for s in STOPPING}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
