"""Official archives: located, downloaded, and read once from front to back without unpacking to disk."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.client
import os
import re
import tarfile
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tasks.core import OFFICIAL, TFDS, Progress
from tasks.errors import DataError
from tasks.origins import Origin, folders, is_system_file

TIMEOUT = 20.0  # seconds that a server may take for each answer; some names have several addresses
HEADER_BYTES = 1 << 14  # of one member: names and pax records; in the releases they are shorter than 2 KB
READ_ERRORS = (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, OverflowError)  # of gzip and tarfile


@dataclasses.dataclass(frozen=True)
class Archive:
    """An official archive that can be downloaded.

    folder:   the directory that it unpacks to
    size:     bytes
    sha256:   hexadecimal digits, as tensorflow-datasets lists them
    patterns: the files of the directory that are read (`Origin.patterns`)
    places:   folders of the data directory where it is looked for too (`folders`)
    """

    url: str
    folder: str
    size: int
    sha256: str
    patterns: tuple[str, ...] = ()
    places: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rpartition("/")[2]

    @property
    def instructions(self) -> str:
        """How to get the archive (`Card.obtain`)."""
        return (
            f"Download {self.url} ({self.size / 1e6:.0f} MB) and put it, packed or unpacked (as {self.folder}/), in "
            f"the data directory; or choose the source {TFDS}, which downloads it"
        )

    def locate(self, data_dir: Path) -> list[Origin]:
        """Return the archives and their unpacked folders that a data directory has, an archive before its folder."""
        found = []
        for place in folders(data_dir, *self.places):
            archive, folder = place / self.name, place / self.folder
            found += [archive] if archive.is_file() else []
            found += [folder] if folder.is_dir() else []
        return [Origin(path, self.patterns) for path in found]

    def is_official(self, path: Path) -> bool:
        """Return whether a path is the archive with the published checksum."""
        return path.is_file() and file_sha256(path) == self.sha256

    def fetch(self, data_dir: Path, progress: Progress) -> Path:
        """Return the archive in the cache of tensorflow-datasets, downloaded there if necessary, after checking it.

        Args:
          data_dir: named in the error message

        Raises:
          DataError: the address does not answer, or sends another file.
        """
        from tensorflow_datasets.core.download.resource import get_dl_fname

        target = tfds_root() / "downloads" / get_dl_fname(self.url, self.sha256)
        if self.is_official(target):
            return target
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._download(partial, progress)
            if not self.is_official(partial):
                raise OSError("it sent another file than the published one")
            partial.replace(target)
        except (OSError, http.client.HTTPException) as error:
            raise DataError(
                f"{self.url} could not be fetched into {target.parent} ({error or type(error).__name__}); download it "
                f"by other means, put it into {data_dir} as {self.name} and choose the source {OFFICIAL}"
            ) from error
        finally:
            partial.unlink(missing_ok=True)
        return target

    def _download(self, path: Path, progress: Progress) -> None:
        action, done = f"fetching {self.name}", 0
        progress(action, 0, self.size)
        with urllib.request.urlopen(self.url, timeout=TIMEOUT) as response, path.open("wb") as file:
            while (block := response.read1(1 << 20)) and done <= self.size:
                file.write(block)
                done += len(block)
                progress(action, done, self.size)


class _LimitedStream:
    """A stream that ends at `limit`, and once.

    tarfile trusts the size in a header: it would keep any header in memory, and would read on past the end of the
    archive until a member of any claimed size has been skipped.
    """

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


def walk(archive: Path, fix: str) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Yield each member of a gzipped tar and, of a regular file, its content, to be read before the next member.

    Files of an operating system are left out. Names are only compared, never used as paths, so no member can write
    anywhere. The archive is read to its last byte, because the checksum of gzip is stored there.

    Args:
      fix: advice that ends the error messages

    Raises:
      DataError: the file is not a gzipped tar, is truncated or damaged, or has a name that leads out of it; the
        message names the archive and the last complete member. Reading a content raises one of `READ_ERRORS`.
    """
    last = "its start"
    try:
        with gzip.open(archive) as stream:
            limited: Any = _LimitedStream(stream)
            with tarfile.open(fileobj=limited, mode="r|") as opened:
                tar: Any = opened  # `members` and `offset` have no types
                while member := tar.next():
                    tar.members = []  # else all of them are kept
                    limited.limit = max(tar.offset, limited.position) + HEADER_BYTES
                    if PurePosixPath(member.name).is_absolute() or ".." in PurePosixPath(member.name).parts:
                        raise DataError(f"{archive}: member {member.name!r} leads out of the archive; {fix}")
                    if not is_system_file(member.name):
                        # The zeros of a sparse file are not in the archive, so it may claim any number of them.
                        yield member, tar.extractfile(member) if member.isreg() and not member.issparse() else None
                    last = member.name
            last = "its last member"
            while stream.read(1 << 20):
                pass
    except READ_ERRORS as error:
        raise _broken(archive, last, error, fix) from error


def members(archive: Path, wanted: re.Pattern[str], most: int, fix: str) -> Iterator[tuple[re.Match[str], bytes]]:
    """Yield the name, as matched by `wanted`, and the content of each wanted member, in the order of the archive.

    Args:
      most: bytes of all wanted members together

    Raises:
      DataError: as `walk`; or a wanted member is not a regular file, or all of them have more than `most` bytes.
    """
    left, last = most, "its start"
    for member, stream in walk(archive, fix):
        if match := wanted.fullmatch(member.name.removeprefix("./")):
            if stream is None:
                raise DataError(f"{archive}: member {member.name!r} is not a regular file; {fix}")
            if (left := left - member.size) < 0:
                raise DataError(f"{archive}: with {member.name!r} it unpacks to more than {most:,} bytes; {fix}")
            try:
                content = stream.read()
            except READ_ERRORS as error:
                raise _broken(archive, last, error, fix) from error
            yield match, content
        last = member.name


def _broken(archive: Path, last: str, error: Exception, fix: str) -> DataError:
    return DataError(f"{archive}: broken after {last} ({error}); {fix}")


def read_file(path: Path, most: int, fix: str) -> bytes:
    """Return the content of a file.

    Raises:
      DataError: it cannot be read, or has more than `most` bytes.
    """
    if len(content := read_beginning(path, most + 1, fix)) > most:
        raise DataError(f"{path}: more than {most:,} bytes; {fix}")
    return content


def read_beginning(path: Path, size: int, fix: str) -> bytes:
    """Return the first `size` bytes of a file, or all if it has fewer.

    Raises:
      DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(min(os.fstat(file.fileno()).st_size, size))  # `read` allocates what it is asked for
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {fix}") from error


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tfds_root() -> Path:
    """Return the directory where tensorflow-datasets stores what it downloads and prepares."""
    return Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
