"""Where files are stored, and how a file is written so that no reader ever sees half of it."""

from __future__ import annotations

import os
from pathlib import Path

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


def write_atomically(path: Path, text: str) -> None:
    """Write a file and flush it to the disk; readers see the earlier content or the whole new one.

    Missing directories are created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
