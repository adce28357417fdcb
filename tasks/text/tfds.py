"""The reviews as tensorflow-datasets prepares them (`imdb_reviews`), in array_record or TFRecord files.

Both are read without TensorFlow. Preparing them needs it, so where nothing is prepared, the archive is fetched instead.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tasks.archives import tfds_root
from tasks.errors import DataError
from tasks.origins import Origin

CLASSES = ("neg", "pos")

_FOLDER = "imdb_reviews/plain_text"
_FORMATS = ("array_record", "tfrecord")
_MAX_RECORD = 1 << 20  # bytes; the longest review has 14 KB


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC_TABLE = _crc_table()  # of CRC-32C


def locate(data_dir: Path) -> list[Origin]:
    """Return the prepared versions in the data directory and in that of tensorflow-datasets, array_record first."""
    found = []
    for root in dict.fromkeys((data_dir.resolve(), tfds_root().resolve())):
        for form in _FORMATS:
            shards = Origin(root, (f"{_FOLDER}/*/imdb_reviews-test.{form}*",)).files()
            for version in dict.fromkeys((root / shard).parent for shard in shards):
                found.append(Origin(version, tuple(f"imdb_reviews-{split}.{form}*" for split in ("train", "test"))))
    return found


def read(origin: Origin) -> dict[str, list[tuple[bytes, int]]]:
    """Return the texts and labels of the splits train and test, in the order of the files.

    Only the examples are read. The metadata are not, because features.json names modules that its reader imports.

    Raises:
      DataError: a file cannot be read or is damaged.
    """
    import tensorflow_datasets as tfds

    labels = tfds.features.ClassLabel(names=CLASSES)
    features = tfds.features.FeaturesDict({"text": tfds.features.Text(), "label": labels})
    reviews: dict[str, list[tuple[bytes, int]]] = {"train": [], "test": []}
    try:
        for name in origin.files():
            split = name.removeprefix("imdb_reviews-").partition(".")[0]
            for record in _records(origin.path / name):
                example = features.deserialize_example_np(record)
                reviews[split].append((bytes(example["text"]).strip(), int(example["label"])))
    except Exception as error:  # protobuf, array_record and numpy each have their own
        raise DataError(
            f"{origin.path}: not readable ({error}); delete it, and the archive is fetched instead"
        ) from error
    return reviews


def _records(path: Path) -> Iterator[bytes]:
    if ".tfrecord" in path.name:
        with path.open("rb") as file:
            yield from _tfrecords(file)
        return
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    records = ArrayRecordDataSource([str(path)])
    yield from (records[i] for i in range(len(records)))


def _tfrecords(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the records of a TFRecord file: length, checksum of the length, content, checksum of the content.

    Raises:
      ValueError: the file is truncated or damaged.
    """
    while start := file.read(12):
        if len(start) < 12:
            raise ValueError("the file is truncated")
        size, checksum = struct.unpack("<QI", start)
        if checksum != _masked_crc(start[:8]) or size > _MAX_RECORD:
            raise ValueError("the length of a record is damaged")
        content, checksum_bytes = file.read(size), file.read(4)
        if len(content) < size or len(checksum_bytes) < 4:
            raise ValueError("the file is truncated")
        if struct.unpack("<I", checksum_bytes)[0] != _masked_crc(content):
            raise ValueError("the checksum of a record is wrong")
        yield content


def _masked_crc(content: bytes) -> int:
    """Return the CRC-32C of a content, rotated and moved by a constant as the format demands."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
