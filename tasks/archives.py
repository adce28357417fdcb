"""Reading a gzipped tar once, front to back, without writing anything to disk."""

from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tasks.core import DataError


def members(archive: Path, wanted: re.Pattern[str], mend: str) -> Iterator[tuple[re.Match[str], bytes]]:
    """Name (as matched by `wanted`) and content of every wanted member, in the order of the archive.

    Names are only compared, never used as paths, so no member can write anywhere. The archive is read
    to its last byte, for the gzip checksum stands there.

    Raises:
      DataError: no gzipped tar, cut short, damaged, or with a name that leads out of it; the message
        names the archive, the last whole member and `mend`.
    """
    last = "its start"
    try:
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                if PurePosixPath(member.name).is_absolute() or ".." in PurePosixPath(member.name).parts:
                    raise DataError(f"{archive}: member {member.name!r} leads out of the archive; {mend}")
                if match := wanted.fullmatch(member.name.removeprefix("./")):
                    content = tar.extractfile(member) if member.isreg() else None
                    if content is None:
                        raise DataError(f"{archive}: member {member.name!r} is not a regular file; {mend}")
                    yield match, content.read()
                last = member.name
            last = "its last member"
            while stream.read(1 << 20):
                pass
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{archive}: broken after {last} ({error}); {mend}") from error


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
