"""Where files are stored, and how a file is written so that no reader ever sees half of it."""

from __future__ import annotations

import errno
import os
import tempfile
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


DIRECTORIES = {
    "LRA_RUNS": runs_directory,
    "LRA_RESULTS": results_directory,
    "LRA_DATA": data_directory,
    "LRA_PREPARED": prepared_directory,
}


def unwritable(directory: Path) -> str:
    """Return why no file can be written into a directory, which is created; "" if one can."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return ""
    except OSError as error:
        return f"{directory} cannot be written ({error.strerror})"


def explain(error: OSError) -> str | None:
    """Return a line about an error of the file system that the user can fix, and how; None for any other error."""
    from tasks.archives import tfds_root  # imports numpy, which most commands do without

    if error.errno not in CAUSES:
        return None
    path = Path(str(error.filename)).absolute() if error.filename is not None else None
    directories = {name: place() for name, place in DIRECTORIES.items()} | {"TFDS_DATA_DIR": tfds_root()}
    names = [name for name, place in directories.items() if path is not None and path.is_relative_to(place)]
    place = f"{path}: " if path is not None else ""
    fix = f"set {names[0]} to a directory that can be used" if names else CAUSES[error.errno]
    return f"{place}{error.strerror}; {fix}"


CAUSES = {
    errno.ENOENT: "check the path",
    errno.EEXIST: "something else has this name; choose another path",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.EROFS: "choose a place that can be written",
    errno.ENOSPC: "free some space, or choose another place",
    errno.EDQUOT: "free some space, or choose another place",
    errno.ENOTDIR: "a part of the path is a file; choose another place",
    errno.EISDIR: "give the path of a file",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EIO: "the device or the network has a fault; try again, or choose another place",
    errno.ESTALE: "the network file system was exchanged; try again",
}


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
