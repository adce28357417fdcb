"""Worker processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

import loky

S = TypeVar("S")
T = TypeVar("T")


def default_workers() -> int:
    """Return the number of CPU cores that this process may use."""
    return loky.cpu_count()


def process_pool(workers: int) -> loky.ProcessPoolExecutor:
    """Return a pool of worker processes.

    They do not run the caller's `__main__` again, so a user's script needs no guard, and inherit no threads, so jax
    may be in use here.
    """
    return loky.ProcessPoolExecutor(max_workers=workers)


def run_in_subprocess(function: Callable[..., T], *arguments: Any) -> T:
    """Return `function(*arguments)`, computed in a process of its own, whose end frees its memory and devices."""
    pool = process_pool(1)
    try:
        return pool.submit(function, *arguments).result()
    finally:
        pool.shutdown(kill_workers=True)


def map_in_order(function: Callable[[S], T], items: Iterable[S], workers: int) -> Generator[T]:
    """Yield `function(item)` for each item, in order; with several workers, some items are computed in advance."""
    if workers == 1:
        yield from map(function, items)
        return
    with process_pool(workers) as pool:
        pending: deque = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
