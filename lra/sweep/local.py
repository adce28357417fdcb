"""The jobs of a sweep on this machine: one process each, as many at the same time as there are device slots."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from queue import SimpleQueue
from typing import Any

from lra.errors import Interrupted
from lra.runtime.devices import Slot
from lra.runtime.heartbeat import read_beat
from lra.runtime.progress import ParallelProgress
from lra.runtime.signals import handling
from lra.sweep.job import Job


def run_jobs(jobs: Sequence[Job], slots: Sequence[Slot]) -> list[str]:
    """Run every job; return those that failed.

    Args:
      slots: one for each of the processes that run at the same time (`lra.runtime.devices.slots`)

    Raises:
      Interrupted: by Ctrl-C or SIGTERM; the runs in progress have saved their state
    """
    free_slots: SimpleQueue[Slot] = SimpleQueue()
    for slot in slots:
        free_slots.put(slot)
    progress = ParallelProgress(len(jobs)) if len(slots) > 1 else None
    processes = _Processes(progress)

    def run(number: int, job: Job) -> tuple[str, int | None]:
        title, slot = f"[{number}/{len(jobs)}] {job.name}", free_slots.get()
        slot.use_cores()
        try:
            status = processes.run(title, job, slot)
        finally:
            free_slots.put(slot)
        if status and not processes.stopped.is_set():
            job.report_failure(f"exit status {status} before its first step")
        return title, status

    with processes.stopped_by_signals(), progress or nullcontext(), ThreadPoolExecutor(len(slots)) as pool:
        futures = [pool.submit(run, number, job) for number, job in enumerate(jobs, 1)]
        while wait(futures, timeout=1.0).not_done:  # Python handles signals in this thread only, when it wakes
            processes.show_progress()
    results = [future.result() for future in futures]
    if processes.stopped.is_set():
        names = ", ".join(title for title, status in results if status)
        raise Interrupted(f"suite: stopped in {names or 'between two runs'}; the same command resumes it")
    return [f"{title} (exit status {status})" for title, status in results if status]


class _Processes:
    """The processes in progress. Once stopped, no other is started.

    progress: shows their progress and prints their messages line by line; None: a single process does so itself
    """

    def __init__(self, progress: ParallelProgress | None) -> None:
        self.stopped = threading.Event()
        self._progress = progress
        self._lock = threading.RLock()  # reentrant, because a second signal may arrive while one is handled
        self._running: dict[subprocess.Popen[str], tuple[str, Job]] = {}

    def run(self, title: str, job: Job, slot: Slot) -> int | None:
        """Return the exit status of a job's process; None if it was not started."""
        with self._lock:
            if self.stopped.is_set():
                return None
            if self._progress is None:
                print(title, file=sys.stderr, flush=True)
            else:
                self._progress.start(title)
            process = subprocess.Popen(
                job.command,
                env={**os.environ, **slot.environment},
                stderr=subprocess.PIPE if self._progress is not None else None,
                text=True,
                errors="replace",
            )
            self._running[process] = title, job
        with process:
            for line in process.stderr or ():
                assert self._progress is not None
                self._progress.print(line.rstrip("\n"))
        with self._lock:
            del self._running[process]
            if self._progress is not None:
                self._progress.finish(title)
        if process.returncode == Interrupted.exit_status:
            self.stopped.set()
        return process.returncode

    def show_progress(self) -> None:
        """Update the bars from the heartbeats of the runs."""
        if self._progress is not None:
            with self._lock:
                for title, job in self._running.values():
                    if (beat := read_beat(job.directory)) is not None:
                        self._progress.update(title, beat.step, beat.steps, beat.validation_accuracy)

    @contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """Stop on SIGINT, which a terminal sends to the processes too; pass SIGTERM and SIGHUP on to them."""

        def stop(number: int, frame: Any) -> None:
            with self._lock:
                self.stopped.set()
                if number != signal.SIGINT:
                    for process in self._running:
                        process.terminate()

        with handling((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), stop):
            yield
