"""Where files are stored, and how a file is written so that no reader ever sees half of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

ROOT = Path(__file__).resolve().parent.parent


def runs_directory() -> Path:
    """Return the directory of this machine's runs: LRA_RUNS, else `runs/` in the project."""
    return _from_environment("LRA_RUNS", ROOT / "runs")


def results_directory() -> Path:
    """Return the directory of the committed records: LRA_RESULTS, else `results/` in the project."""
    return _from_environment("LRA_RESULTS", ROOT / "results")


def data_directory() -> Path:
    """Return the directory of the user's source files: LRA_DATA, else `data/` in the project."""
    return _from_environment("LRA_DATA", ROOT / "data")


def prepared_directory() -> Path:
    """Return the directory of prepared data: LRA_PREPARED, else `.cache/prepared/` in the project."""
    return _from_environment("LRA_PREPARED", ROOT / ".cache" / "prepared")


def _from_environment(variable: str, default: Path) -> Path:
    return Path(os.environ.get(variable) or default).expanduser().resolve()


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written; readers see the earlier content or all of the new one, which is flushed to the disk.

    Missing directories are created. After an exception the earlier content stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file by `open_atomically`."""
    with open_atomically(path) as file:
        file.write(text.encode())
