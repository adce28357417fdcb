"""A job of a sweep: one process that trains one run. Imports no jax."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from lra.paths import ROOT
from lra.record.files import complete_record_path
from lra.runtime.heartbeat import FILE, write_beat

RUN_LRA = ROOT / "run_lra.py"


@dataclasses.dataclass(frozen=True)
class Job:
    """One `run_lra.py train`: its name for people, its arguments, and the directory of its run."""

    name: str
    arguments: tuple[str, ...]
    directory: Path

    @property
    def command(self) -> list[str]:
        """The command line."""
        return [sys.executable, str(RUN_LRA), "train", *self.arguments]

    @property
    def complete(self) -> bool:
        """Whether the record of the complete run exists."""
        return complete_record_path(self.directory).exists()

    def report_failure(self, message: str) -> None:
        """Write a heartbeat that says why the run failed, unless the run wrote a better one itself."""
        if not (self.directory / FILE).exists():
            write_beat(self.directory, "failed", message)
