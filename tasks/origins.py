"""Source files: where they are looked for, and which files of a place are read."""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

RELEASES = ("", "lra_release", "lra_release/lra_release")  # where LRA's release is unpacked, below the data directory

_SYSTEM_FILE = re.compile(r"\._.*|\.ds_store|thumbs\.db|desktop\.ini|__macosx", re.IGNORECASE | re.DOTALL)


class FileState(NamedTuple):
    """Bytes of a file, and the time of its last change in nanoseconds."""

    size: int
    time: int


@dataclasses.dataclass(frozen=True)
class Origin:
    """Source files: an archive, or a directory and those files below it that are read.

    path:     the archive or the directory
    patterns: of the paths below the directory; * matches any part of a name. Not used for an archive
    """

    path: Path
    patterns: tuple[str, ...] = ()

    def files(self) -> dict[str, FileState]:
        """Return the files that are read, by their paths below `path`; "" is the path of an archive.

        Readers read these files and no others, and prepared data are identified by their names, sizes and times. Files
        of the operating system are left out. The order is that of the patterns, then that of the paths. For 200,000
        files this takes one to two seconds.

        Raises:
          OSError: a directory or file cannot be read.
        """
        if self.path.is_file():
            return {"": _state(self.path.stat())}
        found = (sorted(_matches(str(self.path), "", pattern.split("/"))) for pattern in self.patterns)
        return dict(itertools.chain.from_iterable(found))


def folders(data_dir: Path, *names: str) -> list[Path]:
    """Return where the files of a task are looked for, in this order: every task has the same rules.

    These are the data directory and its folders `names`, then the same below the folders of LRA's release.
    """
    return [data_dir / release / name for release in RELEASES for name in ("", *names)]


def is_system_file(path: str) -> bool:
    """Return whether a file, or a folder that contains it, was made by an operating system and is not part of a set.

    Copies from a Mac have `._NAME` next to each file NAME.
    """
    return any(_SYSTEM_FILE.fullmatch(name) for name in path.split("/"))


def _matches(directory: str, prefix: str, pattern: list[str]) -> Iterator[tuple[str, FileState]]:
    """Yield the path, from `prefix` on, and the state of each file below a directory that matches a pattern."""
    first, *rest = pattern
    if "*" not in first:
        path = f"{directory}/{first}"
        if rest:
            yield from _matches(path, f"{prefix}{first}/", rest)
        elif Path(path).is_file():
            yield prefix + first, _state(Path(path).stat())
        return
    try:
        entries = os.scandir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if not fnmatch.fnmatchcase(entry.name, first) or is_system_file(entry.name):
                continue
            if not rest:
                yield prefix + entry.name, _state(entry.stat())
            elif rest and entry.is_dir():
                yield from _matches(entry.path, f"{prefix}{entry.name}/", rest)


def _state(stat: os.stat_result) -> FileState:
    return FileState(stat.st_size, stat.st_mtime_ns)
