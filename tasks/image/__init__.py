"""Image: what does a gray picture show? CIFAR-10, read as a sequence of pixels, row by row.

The last 5,000 of the 50,000 training pictures, in the order of the files, are the validation split. Its size is LRA's,
its pictures are not: LRA takes TFDS's `train[90%:]`, and TFDS shuffles the pictures when it prepares them.
Gray is computed in whole numbers and rounded to nearest. (TensorFlow's `rgb_to_grayscale`, which LRA used, has the
same weights but rounds y to floor(y + y / 510), so that a pixel may be one level darker there.)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tasks import archives
from tasks.core import OFFICIAL, SAMPLE, TFDS, Built, Card, Progress, Split, Variant, check_request, quiet, source_label
from tasks.errors import DataError
from tasks.image import sample

ARCHIVE, FOLDER = "cifar-10-binary.tar.gz", "cifar-10-batches-bin"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
ARCHIVE_BYTES = 170_052_171
ARCHIVE_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"  # as tensorflow-datasets lists it
FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
RECORDS, SIDE = 10_000, 32  # in every file
RECORD_BYTES = 1 + 3 * SIDE * SIDE
TRAIN = 45_000
SHORT = 1_000

CARD = Card(
    name="image",
    title="Image",
    about="What a CIFAR-10 picture shows, in gray, read pixel by pixel",
    version=1,
    tokenizer="gray level + 1 (0 is padding)",
    vocab_size=257,
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    pairs=False,
    pictures=True,
    selection="validation",
    variants={
        "full": Variant("32 x 32 pixels", {"train": TRAIN, "validation": 5_000, "test": 10_000}, 1024),
        "16": Variant(
            "16 x 16 pixels (means of 2 x 2); the first 1,000 for validation and test",
            {"train": TRAIN, "validation": SHORT, "test": SHORT},
            256,
        ),
    },
    sources=(OFFICIAL, TFDS, SAMPLE),
    obtain=(
        f"Download {URL} (170 MB) and put it, packed or unpacked (as {FOLDER}/), in the data directory; "
        f"or choose the source {TFDS}, which downloads it"
    ),
    licence="none stated by its authors; made for research; cite the report",
    citation="Alex Krizhevsky. Learning Multiple Layers of Features from Tiny Images. Technical report, 2009",
)

Pictures = tuple[np.ndarray, np.ndarray]  # uint8 [N, R, R] gray, uint8 [N] labels

_NAME = re.compile(rf"{FOLDER}/((?:data_batch_[1-5]|test_batch)\.bin)")


def locate(data_dir: Path, variant: str = "full") -> Path | None:
    """The archive or, without one, the unpacked directory."""
    archive, folder = data_dir / ARCHIVE, data_dir / FOLDER
    return archive if archive.is_file() else folder if folder.is_dir() else None


def build(
    variant: str, source: str, data_dir: Path, *, workers: int = 1, progress: Progress = quiet
) -> Iterator[Built]:
    """The splits train, validation and test; `workers` is not used: reading takes seconds.

    Raises:
      DataError: unknown variant or source, no source files, or files that are broken.
    """
    check_request(CARD, variant, source)
    if source == SAMPLE:
        return _build(variant, sample.images(progress), SAMPLE)
    found = fetch(progress) if source == TFDS else locate(data_dir)
    if found is None:
        raise DataError(f"image: neither {ARCHIVE} nor {FOLDER}/ in {data_dir}. {CARD.obtain}")
    contents = read(found, progress)
    official = found.is_file() and archives.file_sha256(found) == ARCHIVE_SHA256
    return _build(variant, split(contents), "official archive" if official else source_label(_sha256(contents), {}))


def fetch(progress: Progress = quiet) -> Path:
    """The archive from tensorflow-datasets' cache, downloaded and checked if it is not there yet.

    tensorflow-datasets prepares `cifar10` only with TensorFlow, so the archive is read by `read`.
    """
    return archives.fetch(URL, ARCHIVE_BYTES, ARCHIVE_SHA256, progress)


def read(path: Path, progress: Progress = quiet) -> dict[str, bytes]:
    """The six binary files of the archive or an unpacked directory, whole and checked.

    Raises:
      DataError: the archive is broken, a file is missing, or a record is short or has no valid label; the message
        names the file and the record.
    """
    contents: dict[str, bytes] = {}
    for name, content in _packed(path) if path.is_file() else _unpacked(path):
        _check(f"{path}: {name}", content)
        contents[name] = content
        progress(f"reading {path.name}", len(contents), len(FILES))
    for name in FILES:
        if name not in contents:
            raise DataError(f"{path}: no file {name}. {CARD.obtain}")
    return contents


def split(contents: dict[str, bytes]) -> dict[str, Pictures]:
    """Six files to gray pictures and labels, split by index in the order of the files."""
    batches = [decode(contents[name]) for name in FILES]
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches[:-1], strict=True))
    return {
        "train": (images[:TRAIN], labels[:TRAIN]),
        "validation": (images[TRAIN:], labels[TRAIN:]),
        "test": batches[-1],
    }


def decode(content: bytes) -> Pictures:
    """Records of a label byte and 1,024 red, green, blue bytes each, to gray pictures [N, 32, 32] and labels [N]."""
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES)
    colours = records[:, 1:].reshape(-1, 3, SIDE, SIDE)
    return gray(colours[:, 0], colours[:, 1], colours[:, 2]), records[:, 0].copy()


def gray(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """ITU-R BT.601 luma with TensorFlow's weights, uint8 to uint8, rounded to nearest; gray stays as it is."""
    weighted = 2989 * red.astype(np.uint32) + 5870 * green.astype(np.uint32) + 1140 * blue.astype(np.uint32)
    return ((weighted + 5000) // 10_000).astype(np.uint8)


def _packed(path: Path) -> Iterator[tuple[str, bytes]]:
    for match, content in archives.members(path, _NAME, len(FILES) * (RECORDS + 1) * RECORD_BYTES, CARD.obtain):
        yield match[1], content


def _unpacked(folder: Path) -> Iterator[tuple[str, bytes]]:
    for name in FILES:
        if (folder / name).is_file():
            yield name, archives.beginning(folder / name, (RECORDS + 1) * RECORD_BYTES, CARD.obtain)


def _check(where: str, content: bytes) -> None:
    whole, rest = divmod(len(content), RECORD_BYTES)
    if rest or whole != RECORDS:
        what = f"has {rest} of {RECORD_BYTES} bytes" if rest else "is missing" if whole < RECORDS else "is one too many"
        record = RECORDS if whole > RECORDS else whole
        raise DataError(f"{where}: record {record} (from 0) {what}; {RECORDS} records belong there. {CARD.obtain}")
    labels = np.frombuffer(content, np.uint8)[::RECORD_BYTES]
    if (wrong := np.flatnonzero(labels >= len(CARD.classes))).size:
        raise DataError(f"{where}: record {wrong[0]} (from 0) has label {labels[wrong[0]]}, not 0 to 9. {CARD.obtain}")


def _sha256(contents: dict[str, bytes]) -> str:
    """Names what was read: six files, in their order."""
    digest = hashlib.sha256()
    for name in FILES:
        digest.update(contents[name])
    return digest.hexdigest()


def _build(variant: str, pictures: dict[str, Pictures], source: str) -> Iterator[Built]:
    for name, (images, labels) in pictures.items():
        if variant == "16":
            n = CARD.variants[variant].sizes[name]
            images, labels = halve(images[:n]), labels[:n]
        yield Built(name, Split.from_images(images, labels), source)


def halve(images: np.ndarray) -> np.ndarray:
    """uint8 [N, 2R, 2R] to [N, R, R]: means of 2 x 2 pixels, rounded to nearest (halves up)."""
    n, rows, columns = images.shape
    cells = images.reshape(n, rows // 2, 2, columns // 2, 2).astype(np.uint16)
    return ((cells.sum((2, 4)) + 2) // 4).astype(np.uint8)
