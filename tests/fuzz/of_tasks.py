"""Targets of `tasks/`: official files and archives, and prepared data."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import tarfile
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np

from tasks import image, listops, retrieval, text
from tasks.core import OFFICIAL, SPLITS, no_progress
from tasks.errors import DataError
from tasks.origins import Origin
from tasks.pathfinder import official
from tasks.prepared import read_prepared
from tasks.retrieval.bytes_literal import bytes_literal
from tests.fuzz.forms import archive, header, joined, npy, npz, parted, png, tar
from tests.fuzz.target import Target

# ---- ListOps

_HEADER = b"Source\tTarget\r\n"


def _listops(data: bytes, place: Path) -> None:
    files = dict(zip(("basic_train.tsv", "basic_val.tsv", "basic_test.tsv"), parted(data, 3), strict=True))
    for name, content in files.items():
        (place / name).write_bytes(content or _HEADER)
    with contextlib.suppress(DataError):
        for built in listops.build("full", OFFICIAL, place):
            for d, label in zip(built.examples.items, built.examples.labels, strict=True):
                assert listops.evaluate(listops.decode(built.examples.document(d))) == label


def _listops_seeds() -> list[bytes]:
    rows = [
        b"7\t7",
        b"( ( ( [MAX 2 ) 9 ) ] )\t9",
        b"[SM 9 9 [MED 1 [MIN 4 7 ] ] ]\t0",
        b"( ( ( [MIN ( ( ( [SM 9 ) 8 ) ] ) ) 3 ) ] )\t3",
    ]
    return [_HEADER + b"\r\n".join(rows) + b"\r\n", joined(_HEADER, _HEADER + rows[0], _HEADER + rows[2] + b"\n")]


# ---- Retrieval

_ROW = b"1.0\tA00-1\tB2\tb'one\\xef\\n'\tb\"it's\"\n"
_IDS = b"0.0\tA\tA\n1.0\tA\tA\n"
_AAN = [f"new_aan_pairs.{part}.tsv" for part in ("train", "eval", "test")]
_AAN_IDS = [name.replace(".tsv", ".only_ids.tsv") for name in _AAN]


def _literal(data: bytes, place: Path) -> None:
    with contextlib.suppress(ValueError):
        value = bytes_literal(data, 1 << 20)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert value == ast.literal_eval(data.decode("latin-1"))
        assert bytes_literal(data, 3) == value[:3]


def _built(place: Path) -> None:
    with contextlib.suppress(DataError):
        for built in retrieval.build("cut", OFFICIAL, place, workers=1, progress=no_progress):
            assert built.examples.lengths.shape == (len(built.examples), 2)


def _retrieval(data: bytes, place: Path) -> None:
    (place / "papers_text").mkdir(exist_ok=True)
    for name, content in zip([*_AAN, *_AAN_IDS, "papers_text/A.txt"], parted(data, 7), strict=True):
        (place / name).write_bytes(content) if content else (place / name).unlink(missing_ok=True)
    _built(place)


def _retrieval_archive(data: bytes, place: Path) -> None:
    (place / "aan.tar.gz").write_bytes(archive(data))
    _built(place)


# ---- archives


def _text_archive(data: bytes, place: Path) -> None:
    (place / text.ARCHIVE.name).write_bytes(archive(data))
    with contextlib.suppress(DataError):
        reviews = text.read(place / text.ARCHIVE.name)
        assert all(content and label in (0, 1) for split in text.SPLITS for content, label in reviews[split])


def _text_records(data: bytes, place: Path) -> None:
    """What tensorflow-datasets prepares: the examples of both splits are the same file."""
    for split in text.SPLITS:
        (place / f"imdb_reviews-{split}.array_record-00000-of-00001").write_bytes(data)
    with contextlib.suppress(DataError):
        assert set(text.read_prepared(Origin(place, ("imdb_reviews-*",)))) == set(text.SPLITS)


def _text_records_seeds() -> list[bytes]:
    from array_record.python.array_record_module import ArrayRecordWriter

    review = b"\n\x22\n\x10\n\x04text\x12\x08\n\x06\n\x04dull\n\x0e\n\x05label\x12\x05\x1a\x03\n\1\0"  # an Example
    with tempfile.TemporaryDirectory() as made:
        for name, options in (("plain", "group_size:1,uncompressed"), ("packed", "group_size:1")):
            writer = ArrayRecordWriter(str(Path(made) / name), options)
            writer.write(review)
            writer.close()
        return [path.read_bytes() for path in sorted(Path(made).iterdir())]


def _image_archive(data: bytes, place: Path) -> None:
    """Pictures of 2 x 2 pixels, two a file: what is read does not depend on it."""
    (place / image.ARCHIVE.name).write_bytes(archive(data))
    small = mock.patch.multiple(image, SIDE=2, RECORD_BYTES=13, RECORDS=2)
    with contextlib.suppress(DataError), small:
        assert {len(images) for images, _ in image.split(image.read(place / image.ARCHIVE.name)).values()} <= {0, 2, 10}


def _tars(files: dict[str, bytes]) -> Callable[[], list[bytes]]:
    def seeds() -> list[bytes]:
        forms = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
        long = {"x" * 101 + name: content for name, content in files.items()}
        return [*(tar(files, form) for form in forms), *(tar(long, form) for form in forms[1:]), archive(tar(files))]

    return seeds


_REVIEWS = {"aclImdb/train/neg/0_3.txt": b"dull", "aclImdb/test/pos/1_10.txt": b"caf\xe9"}
_PICTURES = {f"{image.ARCHIVE.folder}/{name}": bytes(2 * 13) for name in image.FILES}
_PAIRS = {**dict.fromkeys(_AAN_IDS, _IDS), "papers_text/A.txt": b"a paper"}
_TAR_WORDS = (b"ustar", b"path=", b"size=", b"GNU.sparse.map=0,1", b"GNU.sparse.major=1", b"././@LongLink")

# ---- Pathfinder

_META = b"imgs/0 sample_0.png 0 1 1.8 14 4 5 1.5 3 1\n"


def _pathfinder(data: bytes, place: Path) -> None:
    (place / "metadata").mkdir(exist_ok=True)
    (place / "imgs" / "0").mkdir(parents=True, exist_ok=True)
    rows, chunks, raw = parted(data, 3)
    (place / "metadata" / "0.npy").write_bytes(rows)
    (place / "imgs" / "0" / "sample_0.png").write_bytes(png(chunks) if chunks else raw)
    with contextlib.suppress(DataError):
        found, _ = official.read_rows(place)
        for images, labels in official.read_images(found, 4):
            assert images.shape == (len(labels), 4, 4)


def _pathfinder_seeds() -> list[bytes]:
    pixels = b"IDAT" + bytes(4 * 5)
    grey = b"|".join([header(4, 4), pixels, b"IEND"])
    more = b"|".join([header(4, 4, 1, 3), b"PLTE" + bytes(6), b"tEXta\0b", b"gAMA\0\0\0\1", pixels, b"IEND"])
    return [joined(_META, grey), joined(_META * 2, more), joined(_META, b"", b"P5 4 4 255 " + bytes(16))]


# ---- prepared data

_NAMES = ("data", "offsets", "labels", "items")


def _prepared(data: bytes, place: Path) -> None:
    meta, *arrays, raw = parted(data, 6)
    packed = raw or npz(dict(zip(_NAMES, arrays, strict=True)))
    for split in text.SPLITS:
        (place / f"{split}.npz").write_bytes(packed)
    (place / "meta.json").write_bytes(meta or _true_meta(place))
    with contextlib.suppress(DataError):
        for split in read_prepared(place, text.CARD).splits.values():
            documents = [split.document(d) for d in range(len(split.offsets) - 1)]
            assert sum(map(len, documents)) == len(split.data)
            assert split.labels.max(initial=0) < len(text.CARD.classes)
            assert (split.lengths >= 0).all()


def _true_meta(place: Path) -> bytes:
    """The meta data that fits the files, if they can be read: only in their content a fault can then be found."""
    entry = {"examples": 0, "sha256": "0" * 64}
    with contextlib.suppress(Exception), np.load(place / "train.npz", allow_pickle=False) as found:
        kept = [found[name] for name in ("labels", "items", "offsets", "data")]
        parts = (f"{a.dtype.str}{a.shape}".encode() + np.ascontiguousarray(a).tobytes() for a in kept)
        entry = {"examples": len(kept[0]), "sha256": hashlib.sha256(b"".join(parts)).hexdigest()}
    whole = hashlib.sha256("".join(f"{s}:{entry['sha256']}\n" for s in sorted(text.SPLITS)).encode()).hexdigest()
    message = {"task": "text", "variant": "full", "version": text.CARD.version, "source": "x", "sha256": whole}
    return json.dumps({**message, "splits": dict.fromkeys(text.SPLITS, entry)}).encode()


def _prepared_seeds() -> list[bytes]:
    arrays = [
        npy(np.frombuffer(b"goodbad", np.uint8)),
        npy(np.array([0, 4, 7])),
        npy(np.array([1, 0], np.uint8)),
        npy(np.array([0, 1], np.int32)),
    ]
    packed = npz(dict(zip(_NAMES, arrays, strict=True)))
    return [joined(b"", *arrays), joined(b"{}", *arrays), joined(b"", *[b""] * 4, packed)]


TARGETS = {
    "listops": Target(_listops, _listops_seeds, (b"[MIN ", b"[MAX ", b"[MED ", b"[SM ", b" ]", b"( ", b" )", b"\t")),
    "literal": Target(_literal, lambda: [b"b'one\\xef\\n\\'\\101'", b'B"it\'s"'], (b"\\x", b"\\", b"b'", b'b"')),
    "retrieval": Target(
        _retrieval, lambda: [joined(_ROW, _ROW * 2, _ROW), joined(b"", b"", b"", _IDS, _IDS, _IDS, b"a paper")]
    ),
    "retrieval_archive": Target(_retrieval_archive, _tars(_PAIRS), _TAR_WORDS),
    "text_archive": Target(_text_archive, _tars(_REVIEWS), _TAR_WORDS),
    "text_records": Target(_text_records, _text_records_seeds),
    "image_archive": Target(_image_archive, _tars(_PICTURES), _TAR_WORDS),
    "pathfinder": Target(
        _pathfinder,
        _pathfinder_seeds,
        (b"|IDAT", b"|PLTE", b"|tEXt", b"|zTXt", b"|iTXt", b"|iCCP", b"|fcTL", b"|fdAT", b"|acTL", b"imgs/", b"../"),
    ),
    "prepared": Target(
        _prepared, _prepared_seeds, (b"'descr': ", b"'shape': ", b"'fortran_order': ", b"'|O'", b"'<i8'", b"(9,)")
    ),
}

assert set(SPLITS) >= set(text.SPLITS)
