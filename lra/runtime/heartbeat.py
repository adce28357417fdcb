"""A run's sign of life: a small file in its directory, written again and again for as long as its process lives.

`lra.record.status` reads it. A thread writes it, so that compiling and testing are signs of life too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from lra.paths import write_atomically

FILE = "status.json"
BEAT_SECONDS = 10.0

SignState = Literal["running", "stopped", "failed"]


@dataclasses.dataclass(frozen=True)
class Sign:
    """What the file says: the state of a run, where it is and when that was, and what is known of it."""

    state: SignState
    host: str
    pid: int
    time: float
    message: str = ""
    step: int | None = None
    steps: int | None = None
    steps_per_second: float | None = None
    validation_accuracy: float | None = None


class Heartbeat:
    """Writes the sign of runs that are trained in one program, each in its own directory.

    Errors of the file system are let pass: a run does not end because its sign could not be written.
    """

    def __init__(self, directories: Sequence[Path], steps: int) -> None:
        self._directories, self._steps = directories, steps
        self._step: int | None = None  # until the checkpoint is read
        self._accuracies: Sequence[float | None] = [None] * len(directories)
        self._first: tuple[int, float] | None = None
        self._rate: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def update(self, step: int, accuracies: Sequence[float | None]) -> None:
        """Takes the steps done, and the latest validation accuracy of each run."""
        now = time.monotonic()
        if self._first is not None and step > self._first[0]:
            self._rate = (step - self._first[0]) / (now - self._first[1])  # evaluations included
        elif self._first is None and self._step is not None and step > self._step:
            self._first = step, now  # the steps before compiled
        self._step, self._accuracies = step, accuracies

    def __enter__(self) -> Heartbeat:
        self._write("running")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        if isinstance(error, Exception):  # Ctrl-C is none
            self._write("failed", f"{type(error).__name__}: {error}")
        else:
            self._write("stopped")  # whether it came to its end, its record says

    def _beat(self) -> None:
        pause = 1.0  # what is new comes soon
        while not self._over.wait(pause):
            self._write("running")
            pause = min(2 * pause, BEAT_SECONDS)

    def _write(self, state: SignState, message: str = "") -> None:
        for directory, accuracy in zip(self._directories, self._accuracies, strict=True):
            with contextlib.suppress(OSError):
                write_sign(
                    directory,
                    state,
                    message,
                    step=self._step,
                    steps=self._steps,
                    steps_per_second=self._rate,
                    validation_accuracy=accuracy,
                )


def write_sign(directory: Path, state: SignState, message: str = "", **known: Any) -> None:
    """Writes the sign of one run, of this process and now.

    known: `step` and what follows it in `Sign`
    """
    sign = Sign(state, socket.gethostname(), os.getpid(), time.time(), message, **known)
    write_atomically(directory / FILE, json.dumps(dataclasses.asdict(sign), indent=1) + "\n")
