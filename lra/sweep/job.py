"""A cell of a sweep: one process, which trains one run, or several seeds together. Imports no jax."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from lra.paths import ROOT
from lra.record.files import whole_record
from lra.runtime.heartbeat import FILE, write_sign

RUN_LRA = ROOT / "run_lra.py"


@dataclasses.dataclass(frozen=True)
class Cell:
    """name: for people; words: of `run_lra.py train`; directories: of its runs."""

    name: str
    words: tuple[str, ...]
    directories: tuple[Path, ...]

    @property
    def command(self) -> list[str]:
        return [sys.executable, str(RUN_LRA), "train", *self.words]

    @property
    def complete(self) -> bool:
        return all(whole_record(place).exists() for place in self.directories)

    def failed(self, message: str) -> None:
        """For `status`: why runs of which nothing else is known are not there."""
        for place in self.directories:
            if not (place / FILE).exists():  # else it says more already
                write_sign(place, "failed", message)
