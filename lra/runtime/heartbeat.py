"""A run's heartbeat: a small file in its directory, rewritten for as long as its process lives.

`lra.record.status` reads it. A thread writes it, so it is also written during compilation and tests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from lra.paths import write_atomically
from lra.typed_json import from_json

FILE = "status.json"
INTERVAL_SECONDS = 10.0

RunState = Literal["running", "stopped", "failed"]


@dataclasses.dataclass(frozen=True)
class Beat:
    """The content of the file: the state of a run, its process, and its progress at `time`."""

    state: RunState
    host: str
    pid: int
    time: float
    message: str = ""
    step: int | None = None
    steps: int | None = None
    steps_per_second: float | None = None
    validation_accuracy: float | None = None


class Heartbeat:
    """Writes the heartbeat of a run.

    Errors of the file system are ignored: a run does not end because its heartbeat cannot be written.
    """

    def __init__(self, directory: Path, steps: int) -> None:
        self._directory, self._steps = directory, steps
        self._step: int | None = None  # until the checkpoint is loaded
        self._accuracy: float | None = None
        self._first: tuple[int, float] | None = None  # step and time from which the speed is computed
        self._steps_per_second: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def update(self, step: int, validation_accuracy: float | None) -> None:
        """Take the number of steps done and the latest validation accuracy."""
        now = time.monotonic()
        if self._first is not None and step > self._first[0]:
            self._steps_per_second = (step - self._first[0]) / (now - self._first[1])  # evaluations included
        elif self._first is None and self._step is not None and step > self._step:
            self._first = step, now  # compilation happened in the steps before
        self._step, self._accuracy = step, validation_accuracy

    def __enter__(self) -> Heartbeat:
        self._write("running")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        if isinstance(error, Exception):  # KeyboardInterrupt is not one
            self._write("failed", f"{type(error).__name__}: {error}")
        else:
            self._write("stopped")  # the record says whether the run is complete

    def _run(self) -> None:
        interval = 1.0  # short at first, because the first steps change most
        while not self._ended.wait(interval):
            self._write("running")
            interval = min(2 * interval, INTERVAL_SECONDS)

    def _write(self, state: RunState, message: str = "") -> None:
        with contextlib.suppress(OSError):
            write_beat(
                self._directory,
                state,
                message,
                step=self._step,
                steps=self._steps,
                steps_per_second=self._steps_per_second,
                validation_accuracy=self._accuracy,
            )


def write_beat(directory: Path, state: RunState, message: str = "", **progress: Any) -> None:
    """Write the heartbeat of a run from this process.

    Args:
      progress: `step` and the fields after it in `Beat`
    """
    beat = Beat(state, socket.gethostname(), os.getpid(), time.time(), message, **progress)
    write_atomically(directory / FILE, json.dumps(dataclasses.asdict(beat), indent=1) + "\n")


def read_beat(directory: Path) -> Beat | None:
    """Return the last heartbeat of the run in a directory; None if there is no file, or an incomplete one."""
    try:
        return from_json(Beat, (directory / FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
