"""Image: what does a gray image show? CIFAR-10, read as a sequence of pixels, row by row.

The validation split is the last 5,000 of the 50,000 training images in the order of the files. Its size is LRA's, its
images are not: LRA takes `train[90%:]` of tensorflow-datasets, which shuffles the images when it prepares them. The
test split is the same.

Gray is computed in whole numbers and rounded to nearest. TensorFlow's `rgb_to_grayscale`, which LRA used, has the same
weights but rounds y to floor(y + y / 510), so a pixel may be one level darker there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tasks import archives
from tasks.core import (
    OFFICIAL,
    SAMPLE,
    TFDS,
    Built,
    Card,
    Progress,
    Split,
    Variant,
    check_request,
    no_progress,
    source_label,
)
from tasks.errors import DataError
from tasks.image import python_batches, sample
from tasks.origins import Origin

FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
PYTHON_FILES = tuple(name.removesuffix(".bin") for name in FILES)
ARCHIVE = archives.Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    folder="cifar-10-batches-bin",
    size=170_052_171,
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    patterns=(*FILES, *PYTHON_FILES),
    places=("cifar", "cifar10", "image"),
)
PYTHON_ARCHIVE = dataclasses.replace(  # the same images; torchvision downloads it
    ARCHIVE,
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    folder="cifar-10-batches-py",
    size=170_498_071,
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
RECORDS, SIDE = 10_000, 32  # records of a file, pixels of a side
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
    images=True,
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
    obtain=f"{ARCHIVE.instructions}. {PYTHON_ARCHIVE.name}, which torchvision downloads, is read too",
    licence="none stated by its authors; made for research; cite the report",
    citation="Alex Krizhevsky. Learning Multiple Layers of Features from Tiny Images. Technical report, 2009",
    sample_classes=sample.CLASSES,
    baselines=("pixels",),
)

Images = tuple[np.ndarray, np.ndarray]  # gray levels uint8 [N, R, R], labels uint8 [N]

_BATCH = r"data_batch_[1-5]|test_batch"
_NAME = re.compile(rf"{ARCHIVE.folder}/(?:{_BATCH})\.bin|{PYTHON_ARCHIVE.folder}/(?:{_BATCH})")
_OTHER_BYTES = 100  # of an image in the Python version, besides its pixels: label and file name


def locate(data_dir: Path, variant: str = "full", source: str = OFFICIAL) -> list[Origin]:
    """Return the archives and unpacked directories that a data directory has, the binary version before Python's."""
    return [*ARCHIVE.locate(data_dir), *PYTHON_ARCHIVE.locate(data_dir)] if source == OFFICIAL else []


def build(
    variant: str,
    source: str,
    data_dir: Path,
    *,
    workers: int = 1,
    progress: Progress = no_progress,
    work_dir: Path | None = None,
) -> Iterator[Built]:
    """Return the splits train, validation and test. One process reads them in seconds.

    `workers` and `work_dir` are therefore not used.

    With the source TFDS, tensorflow-datasets only fetches the archive, because it prepares `cifar10` with TensorFlow.

    Raises:
      DataError: there is no such variant or source, or the source files are missing or damaged.
    """
    check_request(CARD, variant, source)
    if source == SAMPLE:
        return _build(variant, sample.images(progress), SAMPLE)
    if source == OFFICIAL and not (found := locate(data_dir)):
        names = (f"{archive.name} nor {archive.folder}/" for archive in (ARCHIVE, PYTHON_ARCHIVE))
        raise DataError(f"image: neither {' nor '.join(names)} in {data_dir}. {CARD.obtain}")
    path = ARCHIVE.fetch(data_dir, progress) if source == TFDS else found[0].path
    contents = read(path, progress)
    official = ARCHIVE.is_official(path) or PYTHON_ARCHIVE.is_official(path)
    label = "official archive" if official else source_label(_sha256(contents))
    return _build(variant, split(contents), label)


def read(path: Path, progress: Progress = no_progress) -> dict[str, bytes]:
    """Return the contents of the six binary files of an archive or of an unpacked directory.

    The Python version is converted to the binary one.

    Raises:
      DataError: the archive is damaged, a file is missing, or a record is short or has no valid label; the message
        names the file and the record.
    """
    contents: dict[str, bytes] = {}
    for name, content in _packed(path) if path.is_file() else _unpacked(path):
        where = f"{path}: {name}"
        if name in PYTHON_FILES:
            name = f"{name}.bin"
            try:
                content = python_batches.to_binary(content, RECORD_BYTES - 1)
            except ValueError as error:
                raise DataError(f"{where}: {error}. {CARD.obtain}") from error
        _check(where, content)
        contents[name] = content
        progress(f"reading {path.name}", len(contents), len(FILES))
    for name in FILES:
        if name not in contents:
            raise DataError(f"{path}: no file {name}. {CARD.obtain}")
    return contents


def split(contents: dict[str, bytes]) -> dict[str, Images]:
    """Return the gray images and labels of the six files, split by index in the order of the files."""
    batches = [decode(contents[name]) for name in FILES]
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches[:-1], strict=True))
    return {
        "train": (images[:TRAIN], labels[:TRAIN]),
        "validation": (images[TRAIN:], labels[TRAIN:]),
        "test": batches[-1],
    }


def decode(content: bytes) -> Images:
    """Return the gray images of a file's records, each a label byte and 1,024 bytes of red, green and blue."""
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES)
    colours = records[:, 1:].reshape(-1, 3, SIDE, SIDE)
    return gray(colours[:, 0], colours[:, 1], colours[:, 2]), records[:, 0].copy()


def gray(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """Return the ITU-R BT.601 luma with TensorFlow's weights, rounded to nearest; uint8 of the shape of the colours.

    A pixel whose three colours are equal keeps its level.
    """
    weighted = 2989 * red.astype(np.uint32) + 5870 * green.astype(np.uint32) + 1140 * blue.astype(np.uint32)
    return ((weighted + 5000) // 10_000).astype(np.uint8)


def halve(images: np.ndarray) -> np.ndarray:
    """Return images of half the size: uint8 [N, 2R, 2R] to [N, R, R], means of 2 x 2 pixels, halves rounded up."""
    n, rows, columns = images.shape
    cells = images.reshape(n, rows // 2, 2, columns // 2, 2).astype(np.uint16)
    return ((cells.sum((2, 4)) + 2) // 4).astype(np.uint8)


def _packed(path: Path) -> Iterator[tuple[str, bytes]]:
    most = len(FILES) * (RECORDS + 1) * (RECORD_BYTES + _OTHER_BYTES)
    for match, content in archives.members(path, _NAME, most, CARD.obtain):
        yield match[0].rpartition("/")[2], content


def _unpacked(folder: Path) -> Iterator[tuple[str, bytes]]:
    for name in Origin(folder, ARCHIVE.patterns).files():
        size = RECORD_BYTES if name in FILES else RECORD_BYTES + _OTHER_BYTES
        yield name, archives.read_beginning(folder / name, (RECORDS + 1) * size, CARD.obtain)


def _check(where: str, content: bytes) -> None:
    complete, rest = divmod(len(content), RECORD_BYTES)
    if rest or complete != RECORDS:
        what = (
            f"has {rest} of {RECORD_BYTES} bytes" if rest else "is missing" if complete < RECORDS else "is one too many"
        )
        record = min(complete, RECORDS)
        raise DataError(f"{where}: record {record} (from 0) {what}; {RECORDS} records are expected. {CARD.obtain}")
    labels = np.frombuffer(content, np.uint8)[::RECORD_BYTES]
    if (wrong := np.flatnonzero(labels >= len(CARD.classes))).size:
        raise DataError(f"{where}: record {wrong[0]} (from 0) has label {labels[wrong[0]]}, not 0 to 9. {CARD.obtain}")


def _sha256(contents: dict[str, bytes]) -> str:
    """Return the hash of the six files, in their order."""
    digest = hashlib.sha256()
    for name in FILES:
        digest.update(contents[name])
    return digest.hexdigest()


def _build(variant: str, images_of: dict[str, Images], source: str) -> Iterator[Built]:
    for name, (images, labels) in images_of.items():
        if variant == "16":
            n = CARD.variants[variant].sizes[name]
            images, labels = halve(images[:n]), labels[:n]
        yield Built(name, Split.from_images(images, labels), source)
