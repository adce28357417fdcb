"""One process a run, and an orderly end on a signal."""

from __future__ import annotations

import fcntl
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class RunError(Exception):
    """A run that cannot start or go on; the message says which, why, and what can be done."""

    exit_status = 1


class Interrupted(RunError):
    """A run that a signal stopped, with a checkpoint to go on from."""

    exit_status = 130


@contextmanager
def only_process(directory: Path) -> Iterator[None]:
    """Holds the lock of a run's directory.

    Raises:
      RunError: another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{directory}: another process is working on this run; wait for it, or stop it") from None
        yield


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, so that the step under way ends first. A second one ends it at once.

    Outside the main thread (some notebooks) signals stay as they are.
    """
    stop = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
