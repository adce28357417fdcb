"""Worker processes."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, TypeVar

import loky

IDLE_SECONDS = 30.0

S = TypeVar("S")
T = TypeVar("T")


def default_workers() -> int:
    """Return the number of CPU cores that this process may use."""
    return loky.cpu_count()


def process_pool(workers: int) -> loky.ProcessPoolExecutor:
    """Return a pool of worker processes.

    They do not run the caller's `__main__` again, so a user's script needs no guard, and inherit no threads, so jax
    may be in use here. Workers without work end after `IDLE_SECONDS`, also if the caller was killed.
    """
    return loky.ProcessPoolExecutor(max_workers=workers, timeout=IDLE_SECONDS)


def run_in_subprocess(function: Callable[..., T], *arguments: Any) -> T:
    """Return `function(*arguments)`, computed in a process of its own, whose end frees its memory and devices."""
    with _killed_at_the_end(process_pool(1)) as pool:
        return _submit(pool, function, *arguments).result()


def map_in_order(function: Callable[[S], T], items: Iterable[S], workers: int) -> Generator[T]:
    """Yield `function(item)` for each item, in order; with several workers, some items are computed in advance."""
    if workers == 1:
        yield from map(function, items)
        return
    with _killed_at_the_end(process_pool(workers)) as pool:
        pending: deque = deque()
        for item in items:
            pending.append(_submit(pool, function, item))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@contextmanager
def _killed_at_the_end(pool: loky.ProcessPoolExecutor) -> Iterator[loky.ProcessPoolExecutor]:
    """Kill the workers of a pool at the end, because what they still compute is not needed."""
    try:
        yield pool
    finally:
        pool.shutdown(kill_workers=True)


def _submit(pool: loky.ProcessPoolExecutor, function: Callable[..., T], *arguments: Any) -> Future[T]:
    """Submit a call. Workers inherit that Ctrl-C is blocked: it reaches this process, which kills them."""
    resource_tracker.ensure_running()  # else the first call starts it, which unblocks the signal
    with _ctrl_c_deferred():
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return pool.submit(function, *arguments)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def _ctrl_c_deferred() -> Iterator[None]:
    """Let Ctrl-C act after the block. A blocked signal may reach another thread, and then it would interrupt this one.

    A worker whose start is interrupted prints a traceback.
    """
    if threading.current_thread() is not threading.main_thread():  # no other thread is interrupted
        yield
        return
    arrived: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: arrived.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if handler is None else handler)
        if arrived:
            signal.raise_signal(signal.SIGINT)
