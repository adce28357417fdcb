"""Official archives: fetching them, and reading them once, front to back, without unpacking to disk."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tasks.core import Progress
from tasks.errors import DataError

HEADER_BYTES = 1 << 14  # of one member: names and pax records; in the releases they stay below 2 KB
FAULTS = (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, OverflowError)  # of gzip and tarfile


class _Metered:
    """A stream that ends at `limit`, and once. tarfile believes what a header says of its size: it would keep any
    header in memory, and go on reading behind the end until a member of any size has been skipped."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream, self.position, self.limit, self._ended = stream, 0, HEADER_BYTES, False

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self.position += len(content)
        if self.position > self.limit:
            raise tarfile.ReadError(f"a header of more than {HEADER_BYTES:,} bytes")
        if self._ended:
            raise tarfile.ReadError("unexpected end")
        self._ended = not content
        return content


def walk(archive: Path, mend: str) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Every member of a gzipped tar, and its content where it is a regular file, to be read before the next is taken.

    Names are only compared, never used as paths, so no member can write anywhere. The archive is read
    to its last byte, for the gzip checksum stands there.

    Raises:
      DataError: no gzipped tar, cut short, damaged, or with a name that leads out of it; the message
        names the archive, the last whole member and `mend`. Reading a content raises one of `FAULTS`.
    """
    last = "its start"
    try:
        with gzip.open(archive) as stream:
            metered: Any = _Metered(stream)
            with tarfile.open(fileobj=metered, mode="r|") as opened:
                tar: Any = opened  # `members` and `offset` have no types
                while member := tar.next():
                    tar.members = []  # else all of them are kept
                    metered.limit = max(tar.offset, metered.position) + HEADER_BYTES
                    if PurePosixPath(member.name).is_absolute() or ".." in PurePosixPath(member.name).parts:
                        raise DataError(f"{archive}: member {member.name!r} leads out of the archive; {mend}")
                    # The zeros of a sparse file are not in the archive: there may be any number of them.
                    yield member, tar.extractfile(member) if member.isreg() and not member.issparse() else None
                    last = member.name
            last = "its last member"
            while stream.read(1 << 20):
                pass
    except FAULTS as error:
        raise _broken(archive, last, error, mend) from error


def members(archive: Path, wanted: re.Pattern[str], most: int, mend: str) -> Iterator[tuple[re.Match[str], bytes]]:
    """Name (as matched by `wanted`) and content of every wanted member, in the order of the archive.

    Raises:
      DataError: as `walk`; or a wanted member is no regular file, or all of them are more than `most` bytes.
    """
    left, last = most, "its start"
    for member, stream in walk(archive, mend):
        if match := wanted.fullmatch(member.name.removeprefix("./")):
            if stream is None:
                raise DataError(f"{archive}: member {member.name!r} is not a regular file; {mend}")
            if (left := left - member.size) < 0:
                raise DataError(f"{archive}: with {member.name!r} it unpacks to more than {most:,} bytes; {mend}")
            try:
                content = stream.read()
            except FAULTS as error:
                raise _broken(archive, last, error, mend) from error
            yield match, content
        last = member.name


def _broken(archive: Path, last: str, error: Exception, mend: str) -> DataError:
    return DataError(f"{archive}: broken after {last} ({error}); {mend}")


def content(path: Path, most: int, mend: str) -> bytes:
    """A file of an unpacked archive.

    Raises:
      DataError: it cannot be read, or has more than `most` bytes.
    """
    if len(found := beginning(path, most + 1, mend)) > most:
        raise DataError(f"{path}: more than {most:,} bytes; {mend}")
    return found


def beginning(path: Path, size: int, mend: str) -> bytes:
    """At most `size` bytes of a file of an unpacked archive.

    Raises:
      DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(min(os.fstat(file.fileno()).st_size, size))  # the room is taken before it is filled
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {mend}") from error


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tfds_root() -> Path:
    """Where tensorflow-datasets keeps what it downloads and prepares."""
    return Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def fetch(url: str, size: int, sha256: str, progress: Progress) -> Path:
    """A file from tensorflow-datasets' cache, downloaded if it is not there yet, and checked.

    Raises:
      DataError: the address does not answer, or what it sends is not the official file.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.checksums import UrlInfo
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    name = url.rpartition("/")[2]
    progress(f"fetching {name}", 0, 0)
    directory = tfds_root() / "downloads"
    manager = tfds.download.DownloadManager(
        download_dir=directory, url_infos={url: UrlInfo(size=size, checksum=sha256, filename=name)}
    )
    try:
        return Path(manager.download(url))
    except (OSError, tfds.download.DownloadError, NonMatchingChecksumError) as error:
        raise DataError(
            f"{url} could not be fetched into {directory} ({error}); try again, or download it by other means, "
            f"put it in the data directory as {name} and choose the source official"
        ) from error
