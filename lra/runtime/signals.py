"""An orderly end of a run on a signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

# A terminal that is closed sends SIGHUP; clusters warn by SIGUSR1 or SIGUSR2.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


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
    with handling(STOP_SIGNALS, handle):
        yield stop


@contextmanager
def handling(signals: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call a handler on these signals. SIGHUP stays ignored where it is, as by `nohup`."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    chosen = (number for number in signals if not (number == signal.SIGHUP and ignored))
    previous = {number: signal.signal(number, handler) for number in chosen}
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)
