"""Malicious files are refused: prepared data, rows and images of Pathfinder, rows of ListOps, unpacked archives."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks import image, listops, text
from tasks.core import OFFICIAL, Built, Split, no_progress
from tasks.errors import DataError
from tasks.pathfinder import official
from tasks.prepared import read_prepared, write_prepared
from tasks.retrieval.official import locate, read_pairs

# ---- prepared data

SPLITS = {
    "train": Split.from_documents([b"good", b"bad", b""], [1, 0, 1]),
    "test": Split.from_documents([b"bad"], [0]),
}


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    write_prepared(tmp_path / "p", text.CARD, "full", (Built(name, split, "x") for name, split in SPLITS.items()))
    return tmp_path / "p"


def rewrite(prepared: Path, arrays: dict[str, Any], method: int = zipfile.ZIP_DEFLATED) -> None:
    """Replace arrays (or the bytes of their files) of the split train."""
    with zipfile.ZipFile(prepared / "train.npz", "w", method) as file:
        for name, array in {**vars(SPLITS["train"]), **arrays}.items():
            written = io.BytesIO()
            if not isinstance(array, bytes):
                np.lib.format.write_array(written, np.asanyarray(array), allow_pickle=True)
            file.writestr(f"{name}.npy", array if isinstance(array, bytes) else written.getvalue())


def sign(prepared: Path, split: Split) -> None:
    """Write the metadata that are right for another split train."""
    write_prepared(
        prepared.with_name("q"),
        text.CARD,
        "full",
        iter([Built("train", split, "x"), Built("test", SPLITS["test"], "x")]),
    )
    (prepared / "meta.json").write_bytes((prepared.with_name("q") / "meta.json").read_bytes())


def npy(shape: str, content: bytes = b"", descr: str = "|u1") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n".encode()
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + content


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(prepared: Path, tmp_path: Path) -> None:
    rewrite(prepared, {"labels": np.array([Trap(tmp_path / "trapped")] * 3, object)})
    with pytest.raises(DataError, match=r"labels has dtype '\|O'"):
        read_prepared(prepared, text.CARD)
    (prepared / "train.npz").write_bytes(b"\x80\x04N.")
    with pytest.raises(DataError, match="not readable as prepared data"):
        read_prepared(prepared, text.CARD)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": npy("1000000000000,")}, "more than .* elements"),
        ({"labels": npy("9" * 30 + ",")}, "more than .* elements"),
        ({"labels": npy("0, " + "9" * 30)}, "Maximum allowed dimension exceeded"),
        ({"labels": npy("100000,", b"abc")}, "labels ends after 3 of 100,000 bytes"),
        ({"labels": npy("2,", b"abc")}, "labels continues after 2 bytes"),
        ({"labels": npy("-3,", b"abc")}, "labels does not have the header that numpy writes"),
        ({"labels": npy("3,)(", b"abc")}, "labels does not have the header"),
        ({"labels": npy("3,", b"abc").replace(b"\1\0", b"\3\0", 1)}, "labels does not have the header"),
        ({"labels": b""}, "labels does not have the header"),
        ({"labels": npy("3,", b"abc", "<u2")}, "labels has dtype '<u2'"),
        ({"labels": np.zeros((3, 1), np.uint8)}, "not uint8 in a row"),
        ({"data": np.zeros((7, 1), np.uint8)}, "not uint8 in a row"),
        ({"offsets": np.int64(0)}, "not int64 in a row"),
        ({"items": np.int32(0)}, r"items \(\) do not fit"),
        ({"items": np.array([0, 1, 3], np.int32)}, "name one of 3 documents"),
        ({"offsets": np.array([0, 2**63 - 1, -(2**63), -1, 7])}, "offsets must not fall"),
        ({"labels": np.array([0, 1, 0], np.uint8)}, "does not have the recorded hash"),
    ],
)
def test_invalid_arrays_are_refused(prepared: Path, arrays: dict[str, Any], message: str) -> None:
    rewrite(prepared, arrays)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            read_prepared(prepared, text.CARD)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_compressed_bomb_is_not_unpacked(prepared: Path) -> None:
    rewrite(prepared, {"labels": npy("50000000,", bytes(50_000_000))})
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"more than .* elements"):
            read_prepared(prepared, text.CARD)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_methods_are_refused(prepared: Path, method: int) -> None:
    rewrite(prepared, {}, zipfile.ZIP_STORED)
    assert read_prepared(prepared, text.CARD).splits["train"].labels.tolist() == [1, 0, 1]
    rewrite(prepared, {}, method)
    with pytest.raises(DataError, match="compressed by a method that numpy does not write"):
        read_prepared(prepared, text.CARD)


def test_arrays_in_fortran_order_are_read(prepared: Path) -> None:
    pairs = Split(
        SPLITS["train"].data,
        SPLITS["train"].offsets,
        SPLITS["train"].labels,
        np.array([[0, 1], [1, 1], [2, 0]], np.int32),
    )
    sign(prepared, pairs)
    rewrite(prepared, {"items": np.asfortranarray(pairs.items)})
    np.testing.assert_array_equal(read_prepared(prepared, text.CARD).splits["train"].items, pairs.items)


def test_labels_have_classes(prepared: Path) -> None:
    rewrite(prepared, {"labels": np.array([0, 1, 2], np.uint8)})
    with pytest.raises(DataError, match="train has labels beyond 2 classes"):
        read_prepared(prepared, text.CARD)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("sha256", "0" * 64),
        ("source", "red \x1b[31m"),
        ("source", 3),
        ("variant", "fuller"),
        ("variant", []),
        ("splits", {}),
        ("splits", []),
        ("splits", {"../p/train": {"sha256": SPLITS["train"].sha256}, "test": {"sha256": SPLITS["test"].sha256}}),
        ("splits", {"train": 3, "test": {}}),
        ("task", None),
        ("version", "1"),
    ],
)
def test_metadata_that_contradict_the_content_are_refused(prepared: Path, place: str, value: Any) -> None:
    """The hash identifies a column of the leaderboard, so other data must not have it."""
    meta = json.loads((prepared / "meta.json").read_text())
    (prepared / "meta.json").write_text(json.dumps({**meta, place: value}))
    with pytest.raises(DataError, match=r"delete .*, and it is prepared again"):
        read_prepared(prepared, text.CARD)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"3", b"null", b"[" * 100_000, b'{"task": "text"}'])
def test_invalid_metadata_are_refused(prepared: Path, content: bytes) -> None:
    (prepared / "meta.json").write_bytes(content)
    with pytest.raises(DataError, match=r"delete .*, and it is prepared again"):
        read_prepared(prepared, text.CARD)


# ---- Pathfinder

ROW = "imgs/0 sample_0.png 0 1 1.8 14 4 5 1.5 3 1\n"


def pathfinder(root: Path, row: str, write: Callable[[Path], object]) -> np.ndarray:
    for folder in ("metadata", "imgs/0"):
        (root / folder).mkdir(parents=True)
    (root / "metadata" / "0.npy").write_text(row)
    write(root / "imgs" / "0" / "sample_0.png")
    rows, _ = official.read_rows(root)
    return np.concatenate([images for images, _ in official.read_images(rows, 32)])


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("imgs/..", "x.png"),
        ("imgs/0", "../x.png"),
        ("", "/x.png"),
        ("/imgs/0", "x.png"),
        ("imgs/0", "x\0.png"),
        ("imgs/0", ""),
    ],
)
def test_a_row_that_names_a_file_outside_the_folder_is_refused(tmp_path: Path, folder: str, name: str) -> None:
    Image.new("L", (32, 32)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"0\.npy, row 1: .*does not name a file in a folder of imgs/"):
        pathfinder(tmp_path / "root", ROW.replace("imgs/0 sample_0.png", f"{folder} {name}"), lambda path: None)


@pytest.mark.parametrize("form", ["PPM", "EPS", "BMP", "TIFF", "GIF"])
def test_an_image_must_be_a_png(tmp_path: Path, form: str) -> None:
    """Readers of other formats may start programs (EPS), or their images may be much larger than their files."""
    with pytest.raises(DataError, match="not readable as a PNG"):
        pathfinder(tmp_path, ROW, lambda path: Image.new("L", (32, 32)).save(path, form))


def test_a_much_too_large_image_is_refused(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        Image.new("L", (32, 32)).save(path)
        content = bytearray(path.read_bytes())
        content[16:24] = (2**31 - 1).to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
        path.write_bytes(content)

    with pytest.raises(DataError, match="not readable as a PNG"):
        pathfinder(tmp_path, ROW, write)


# ---- rows without end, and files that are none


def test_a_row_of_listops_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listops.official, "_MAX_ROW", 100)
    for name in ("basic_train.tsv", "basic_val.tsv", "basic_test.tsv"):
        (tmp_path / name).write_text("Source\tTarget\n7\t7\n" + " " * 98 + "7\t78\t8\n")
    with pytest.raises(DataError, match=r"row 3 .*longer than 100 characters"):
        list(listops.build("full", OFFICIAL, tmp_path))


def test_a_directory_instead_of_a_file_is_an_error(tmp_path: Path) -> None:
    for name in ("train/neg/0_3.txt", "train/pos", "test/neg", "test/pos"):
        (tmp_path / text.ARCHIVE.folder / name).mkdir(parents=True)
    with pytest.raises(DataError, match=r"0_3\.txt: cannot be read"):
        text.read(tmp_path / text.ARCHIVE.folder)
    (tmp_path / "metadata" / "0.npy").mkdir(parents=True)
    with pytest.raises(DataError, match=r"0\.npy: cannot be read"):
        official.read_rows(tmp_path)
    (tmp_path / "papers_text" / "a.txt").mkdir(parents=True)
    (tmp_path / "new_aan_pairs.test.only_ids.tsv").write_text("0.0\ta\ta\n")
    with pytest.raises(DataError, match="not readable"):
        read_pairs(locate(tmp_path)[0], no_progress)


def test_a_file_that_is_too_long_is_refused_and_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train/neg/0_3.txt", "train/pos/0_8.txt", "test/neg/0_3.txt", "test/pos/0_8.txt"):
        (tmp_path / text.ARCHIVE.folder / name).parent.mkdir(parents=True)
        (tmp_path / text.ARCHIVE.folder / name).write_text("well")
    monkeypatch.setattr(text, "MAX_BYTES", 3)
    with pytest.raises(DataError, match=r"0_3\.txt: more than 3 bytes"):
        text.read(tmp_path / text.ARCHIVE.folder)
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "0.npy").write_text("a row\nanother\n")
    monkeypatch.setattr(official, "_MAX_METADATA", 6)  # where a row ends
    with pytest.raises(DataError, match=r"0\.npy: more than 6 bytes"):
        official.read_rows(tmp_path)


def test_an_image_file_is_read_only_to_the_expected_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "RECORDS", 2)
    for name in image.FILES:
        (tmp_path / name).write_bytes(bytes(3 * image.RECORD_BYTES))
    (tmp_path / image.FILES[0]).open("ab").truncate(1 << 33)
    with pytest.raises(DataError, match=r"record 2 .* is one too many"):
        image.read(tmp_path)
