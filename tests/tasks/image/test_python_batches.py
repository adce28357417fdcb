"""CIFAR-10's Python version gives the data of the binary one, and its pickles can do nothing else."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tasks import archives, image
from tasks.core import OFFICIAL
from tasks.errors import DataError
from tasks.image.python_batches import to_binary
from tests import source_files


def string(content: bytes) -> bytes:
    """Return the opcodes of a string as Python 2 writes it."""
    short = len(content) < 256
    return (b"U" + bytes([len(content)]) if short else b"T" + struct.pack("<i", len(content))) + content


def array(shape: tuple[int, int], content: bytes, kind: bytes = b"u1", by_columns: bytes = b"\x89") -> bytes:
    """Return the opcodes of an array of numpy for Python 2, memo included."""
    sizes = b"".join(b"M" + struct.pack("<H", size) for size in shape)
    state = b"(K\3" + string(b"|") + b"NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\0tb"
    dtype = b"cnumpy\ndtype\nq\x05" + string(kind) + b"K\0K\1\x87Rq\x06" + state
    start = b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\0\x85" + string(b"b") + b"\x87Rq\x04"
    return start + b"(K\1" + sizes + b"\x86" + dtype + by_columns + string(content) + b"tb"


def batch(binary: bytes, pixels: int = 3072, **form: bytes) -> bytes:
    """Return the pickle that Python 2 writes for a file of the binary version."""
    records = np.frombuffer(binary, np.uint8).reshape(-1, pixels + 1)
    content = form.pop("content", records[:, 1:].tobytes())
    labels = b"".join(b"K" + bytes([label]) for label in records[:, 0])
    names = b"".join(string(f"image_{i}.png".encode()) for i in range(len(records)))
    return b"".join(
        (
            *(b"\x80\2}q\1(", string(b"batch_label"), string(b"training batch 1 of 5")),
            *(string(b"data"), array((len(records), pixels), content, **form)),
            *(string(b"labels"), b"]q\x07(", form.get("labels", labels), b"e"),
            *(string(b"filenames"), b"]q\x08(", names, b"eu."),
        )
    )


def python_files(binary: dict[str, bytes]) -> dict[str, bytes]:
    return {name.removesuffix(".bin"): batch(content) for name, content in binary.items()}


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in {"batches.meta": b"\x80\2}.", **files}.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def built(place: Path) -> list[tuple[str, str, str]]:
    return [(part.split, part.examples.sha256, part.source) for part in image.build("full", OFFICIAL, place)]


def test_both_versions_give_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source_files.shrink(monkeypatch)
    folder = source_files.write("image", tmp_path / "binary")
    files = python_files({name: (folder / name).read_bytes() for name in image.FILES})
    expected = built(tmp_path / "binary")

    (tmp_path / "packed" / "cifar").mkdir(parents=True)
    pack(tmp_path / "packed" / "cifar" / "cifar-10-python.tar.gz", files)
    assert built(tmp_path / "packed") == expected
    unpacked = tmp_path / "unpacked" / "cifar-10-batches-py"
    unpacked.mkdir(parents=True)
    for name, content in files.items():
        (unpacked / name).write_bytes(content)
    assert built(tmp_path / "unpacked") == expected
    (unpacked / "data_batch_3").unlink()
    with pytest.raises(DataError, match=r"no file data_batch_3\.bin"):
        built(tmp_path / "unpacked")


def test_the_pickles_of_this_test_are_those_of_numpy() -> None:
    """A reader of Python's own gives the images; only the names of the types differ from those of today's numpy."""
    labels, images = bytes([3, 9]), np.random.RandomState(0).randint(0, 256, (2, 3072)).astype(np.uint8)
    content = batch(b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, images, strict=True)))
    read = pickle.loads(content, encoding="bytes")
    np.testing.assert_array_equal(read[b"data"], images)
    assert read[b"labels"] == list(labels)
    assert read[b"filenames"] == [b"image_0.png", b"image_1.png"]


def test_the_official_archive_is_known_by_its_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source_files.shrink(monkeypatch)
    folder = source_files.write("image", tmp_path / "binary")
    path = pack(tmp_path / "cifar-10-python.tar.gz", python_files({n: (folder / n).read_bytes() for n in image.FILES}))
    known = dataclasses.replace(image.PYTHON_ARCHIVE, sha256=archives.file_sha256(path))
    monkeypatch.setattr(image, "PYTHON_ARCHIVE", known)
    assert {source for _, _, source in built(tmp_path)} == {"official archive"}


class Command:
    """An object whose pickle runs a command."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch executed",)


GOOD = b"".join(bytes([i]) + bytes(range(4)) for i in range(3))
BAD = {
    "runs a command": (pickle.dumps({"data": Command(), "labels": []}, 2), "GLOBAL posix system"),
    "runs a command, protocol 4": (pickle.dumps({"data": Command(), "labels": []}, 4), "FRAME"),
    "imports another name": (b"\x80\2cos\nsystem\n.", "GLOBAL os system"),
    "imports by code": (b"\x80\2\x82\1.", "EXT1"),
    "asks for a stored object": (b"\x80\2U\1aQ.", "BINPERSID"),
    "makes an instance": (b"\x80\2)\x81.", "NEWOBJ"),
    "calls no name": (b"\x80\2U\1a)R.", "AttributeError"),
    "array of objects": (batch(GOOD, 4, kind=b"O8"), "not an array of bytes"),
    "array of words": (batch(GOOD, 4, kind=b"u2"), "not an array of bytes"),
    "array by columns": (batch(GOOD, 4, by_columns=b"\x88"), "not an array of bytes"),
    "too few bytes": (batch(GOOD, 4, content=bytes(11)), "11 bytes of images"),
    "other size": (batch(GOOD, 4).replace(b"M\3\0M\4\0", b"M\4\0M\3\0"), "3 labels, 12 bytes"),
    "a number instead of labels": (b"\x80\2}(U\6labelsJ\xff\xff\xff\x7fU\4dataNu.", "TypeError"),
    "a label above 255": (b"\x80\2}(U\6labels]M\0\1aU\4dataNu.", "ValueError"),
    "no labels": (b"\x80\2}.", "KeyError"),
    "no dictionary": (b"\x80\2].", "TypeError"),
    "a memo that was not written": (b"\x80\2j\xff\xff\xff\xff.", "KeyError"),
    "a large memo": (b"\x80\2]r\xff\xff\xff\xff.", "TypeError"),
    "a length beyond the end": (b"\x80\2T\xff\xff\xff\x7f.", "ValueError"),
    "nothing on the stack": (b"\x80\2.", "IndexError"),
    "no end": (batch(GOOD, 4)[:-1], "pickle exhausted before seeing STOP"),
    "empty": (b"", "pickle exhausted"),
}


@pytest.mark.parametrize("fault", BAD)
def test_other_pickles_are_refused(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, message = BAD[fault]
    with pytest.raises(ValueError, match=message):
        to_binary(content, 4)
    assert list(tmp_path.iterdir()) == []


def test_a_good_pickle_is_read() -> None:
    assert to_binary(batch(GOOD, 4), 4) == GOOD


def test_a_bad_batch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source_files.shrink(monkeypatch)
    pack(tmp_path / "cifar-10-python.tar.gz", {"data_batch_1": BAD["runs a command"][0]})
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz: data_batch_1: not readable .*Download http"):
        built(tmp_path)


@pytest.mark.slow
def test_the_real_images(data_dir: Path, tmp_path: Path) -> None:
    """The binary archive, converted to Python's version, gives the same data."""
    if not image.locate(data_dir):
        pytest.skip(f"no {image.ARCHIVE.name} in the data directory")
    contents = image.read(image.locate(data_dir)[0].path)
    pack(tmp_path / "cifar-10-python.tar.gz", python_files(contents))
    assert image.read(tmp_path / "cifar-10-python.tar.gz") == contents
