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

from tasks.core import DataError, Progress


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
