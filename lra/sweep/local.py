"""The jobs of a sweep on this machine: one process each, as many at the same time as there are device slots."""

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
from lra.sweep.job import Job


def run_jobs(jobs: Sequence[Job], slots: Sequence[Mapping[str, str]]) -> list[str]:
    """Run every job; return those that failed.

    Args:
      slots: environment variables of each of the processes that run at the same time (`lra.runtime.devices.slots`)

    Raises:
      Interrupted: by Ctrl-C or SIGTERM; the runs in progress have saved their state
    """
    processes = _Processes(line_buffered=len(slots) > 1)
    free_slots: SimpleQueue[Mapping[str, str]] = SimpleQueue()
    for slot in slots:
        free_slots.put(slot)

    def run(number: int, job: Job) -> tuple[str, int | None]:
        title, slot = f"[{number}/{len(jobs)}] {job.name}", free_slots.get()
        try:
            status = processes.run(title, job, slot)
        finally:
            free_slots.put(slot)
        if status and not processes.stopped.is_set():
            job.report_failure(f"exit status {status} before its first step")
        return title, status

    with processes.stopped_by_signals(), ThreadPoolExecutor(len(slots)) as pool:
        futures = [pool.submit(run, number, job) for number, job in enumerate(jobs, 1)]
        while wait(futures, timeout=1.0).not_done:
            pass  # Python handles signals in this thread only, when it wakes
    results = [future.result() for future in futures]
    if processes.stopped.is_set():
        names = ", ".join(title for title, status in results if status)
        raise Interrupted(f"suite: stopped in {names or 'between two runs'}; the same command resumes it")
    return [f"{title} (exit status {status})" for title, status in results if status]


class _Processes:
    """The processes in progress. Once stopped, no other is started.

    line_buffered: print their errors line by line, so that several of them do not draw bars on one terminal
    """

    def __init__(self, *, line_buffered: bool) -> None:
        self.stopped = threading.Event()
        self._line_buffered = line_buffered
        self._lock = threading.RLock()  # reentrant, because a second signal may arrive while one is handled
        self._running: set[subprocess.Popen[str]] = set()

    def run(self, title: str, job: Job, slot: Mapping[str, str]) -> int | None:
        """Return the exit status of a job's process; None if it was not started."""
        with self._lock:
            if self.stopped.is_set():
                return None
            print(title, file=sys.stderr, flush=True)
            process = subprocess.Popen(
                job.command,
                env={**os.environ, **slot},
                stderr=subprocess.PIPE if self._line_buffered else None,
                text=True,
                errors="replace",
            )
            self._running.add(process)
        with process:
            for line in process.stderr or ():
                print(line, end="", file=sys.stderr, flush=True)
        with self._lock:
            self._running.remove(process)
        if process.returncode == Interrupted.exit_status:
            self.stopped.set()
        return process.returncode

    @contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """Stop on SIGINT, which a terminal sends to the processes too, and on SIGTERM, which is passed on to them."""

        def stop(number: int, frame: Any) -> None:
            with self._lock:
                self.stopped.set()
                if number == signal.SIGTERM:
                    for process in self._running:
                        process.terminate()

        previous = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
