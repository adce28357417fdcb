"""The cells of a sweep on this machine: one process for each, as many side by side as there are places for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from lra.errors import Interrupted
from lra.sweep.job import Cell


def run_cells(cells: Sequence[Cell], places: Sequence[Mapping[str, str]]) -> list[str]:
    """Runs every cell; returns those that failed.

    Args:
      places: environment of each of the processes that run at the same time (`lra.runtime.devices.places`)

    Raises:
      Interrupted: by Ctrl-C or SIGTERM; the runs under way have saved their state.
    """
    children = _Children(quiet=len(places) > 1)
    free: SimpleQueue[Mapping[str, str]] = SimpleQueue()
    for place in places:
        free.put(place)

    def run(number: int, cell: Cell) -> tuple[str, int | None]:
        title, place = f"[{number}/{len(cells)}] {cell.name}", free.get()
        try:
            status = children.run(title, cell, place)
        finally:
            free.put(place)
        if status and not children.stopped.is_set():
            cell.failed(f"exit status {status} before its first step")
        return title, status

    with children.stopped_by_signals(), ThreadPoolExecutor(len(places)) as pool:
        under_way = [pool.submit(run, number, cell) for number, cell in enumerate(cells, 1)]
        while wait(under_way, timeout=1.0).not_done:
            pass  # a signal that another thread has got is handled when this one wakes
    ended = [future.result() for future in under_way]
    if children.stopped.is_set():
        told = ", ".join(title for title, status in ended if status)
        raise Interrupted(f"suite: stopped in {told or 'between two runs'}; the same command goes on from there")
    return [f"{title} (exit status {status})" for title, status in ended if status]


class _Children:
    """The processes under way. Once stopped, no other begins.

    quiet: their errors come by the line, which keeps several of them from drawing bars on one terminal
    """

    def __init__(self, *, quiet: bool) -> None:
        self.stopped = threading.Event()
        self._quiet = quiet
        self._lock = threading.RLock()  # a second signal may come while one is handled
        self._running: set[subprocess.Popen[str]] = set()

    def run(self, title: str, cell: Cell, place: Mapping[str, str]) -> int | None:
        """The exit status of a cell's process; None if it did not begin."""
        with self._lock:
            if self.stopped.is_set():
                return None
            print(title, file=sys.stderr, flush=True)
            errors = subprocess.PIPE if self._quiet else None
            child = subprocess.Popen(
                cell.command, env={**os.environ, **place}, stderr=errors, text=True, errors="replace"
            )
            self._running.add(child)
        with child:
            for line in child.stderr or ():
                print(line, end="", file=sys.stderr, flush=True)
        with self._lock:
            self._running.remove(child)
        if child.returncode == Interrupted.exit_status:
            self.stopped.set()
        return child.returncode

    @contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """A terminal's Ctrl-C reaches the processes by itself; SIGTERM is passed on."""

        def stop(number: int, frame: Any) -> None:
            with self._lock:
                self.stopped.set()
                if number == signal.SIGTERM:
                    for child in self._running:
                        child.terminate()

        before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
