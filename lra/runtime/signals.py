"""An orderly end of a run on a signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # clusters warn by one of the last two


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Yield an event that each of `STOP_SIGNALS` sets, so that the step in progress ends first.

    A second Ctrl-C raises KeyboardInterrupt at once. A second SIGTERM does not, because clusters send
    several. Outside of the main thread, as in some notebooks, signals are left alone.
    """
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    handlers = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
