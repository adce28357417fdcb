"""LRA's layout of Pathfinder: written, read, and with damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks import pathfinder
from tasks.core import OFFICIAL, SPLITS, Split
from tasks.errors import DataError


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """Write 60 images of 32 hard in LRA's layout; return their directory."""
    images, labels = pathfinder.generate(60, seed=9)
    cuts = dict(zip(SPLITS, (slice(0, 48), slice(48, 54), slice(54, 60)), strict=True))
    splits = {name: Split.from_images(images[cut], labels[cut]) for name, cut in cuts.items()}
    root = pathfinder.write_official(splits, tmp_path)
    assert root == pathfinder.locate(tmp_path)[0].path == tmp_path / "pathfinder32" / "curv_contour_length_14"
    return root


def read(tmp_path: Path) -> tuple[np.ndarray, np.ndarray, list[int], str]:
    built = list(pathfinder.build("full", OFFICIAL, tmp_path))
    data = np.concatenate([b.examples.data for b in built]).reshape(-1, 32, 32)
    return data, np.concatenate([b.examples.labels for b in built]), [len(b.examples) for b in built], built[-1].source


def test_official_round_trip(official: Path, tmp_path: Path) -> None:
    images, labels, sizes, source = read(tmp_path)
    expected = pathfinder.generate(60, seed=9)
    np.testing.assert_array_equal(images, expected[0])
    np.testing.assert_array_equal(labels, expected[1])
    assert sizes == [48, 6, 6]
    assert source.startswith("unrecognised copy ")
    first = (official / "metadata" / "0.npy").read_text().split("\n")[0]
    assert first == f"imgs/0 sample_0.png 0 {expected[1][0]} 1.0 14 4 2 0.5 1 1"
    assert Image.open(official / "imgs" / "0" / "sample_0.png").mode == "L"
    with pytest.raises(DataError, match="exists"):
        pathfinder.write_official({"train": Split.from_images(*expected)}, tmp_path)


def test_batches_are_read_in_the_order_of_their_numbers(official: Path, tmp_path: Path) -> None:
    rows = (official / "metadata" / "0.npy").read_text().splitlines(keepends=True)
    (official / "metadata" / "0.npy").unlink()
    for name, part in (("2", rows[:20]), ("10", rows[20:40]), ("100", rows[40:])):
        (official / "metadata" / f"{name}.npy").write_text("".join(part))
    np.testing.assert_array_equal(read(tmp_path)[0], pathfinder.generate(60, seed=9)[0])


def test_empty_images_are_left_out_and_counted(official: Path, tmp_path: Path) -> None:
    (official / "imgs" / "0" / "sample_5.png").write_bytes(b"")
    images, _, sizes, source = read(tmp_path)
    np.testing.assert_array_equal(images, np.delete(pathfinder.generate(60, seed=9)[0], 5, 0))
    assert sum(sizes) == 59
    assert source.endswith("1 empty images left out")


def test_broken_images_and_rows_are_named(official: Path, tmp_path: Path) -> None:
    image = official / "imgs" / "0" / "sample_7.png"
    whole = image.read_bytes()
    for content in (whole[:60], b"no picture", whole[:40] + bytes(20) + whole[60:]):
        image.write_bytes(content)
        with pytest.raises(DataError, match=r"sample_7\.png \(.*0\.npy, row 8\)"):
            read(tmp_path)
    Image.new("L", (31, 32)).save(image)
    with pytest.raises(DataError, match=r"sample_7\.png.*31 x 32"):
        read(tmp_path)
    image.unlink()
    with pytest.raises(DataError, match=r"0\.npy, row 8: .*sample_7\.png"):
        read(tmp_path)
    image.write_bytes(whole)

    metadata = official / "metadata" / "0.npy"
    text = metadata.read_text()
    for broken, row in (
        (text.replace("sample_3.png 3 ", "sample_3.png "), 4),
        (text.replace("sample_59.png 59 ", "sample_59.png 59 2"), 60),
        (text[:-30], 60),
        (text + "\n", 61),
    ):
        metadata.write_text(broken)
        with pytest.raises(DataError, match=rf"0\.npy, row {row}\b"):
            read(tmp_path)
    metadata.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="neither text"):
        read(tmp_path)


@pytest.mark.parametrize("form", ["U", "S", ">U40", "F", "rows"])
def test_metadata_of_the_generator_are_read(official: Path, tmp_path: Path, form: str) -> None:
    images, labels, sizes, _ = read(tmp_path)
    metadata = official / "metadata" / "0.npy"
    rows = metadata.read_text().splitlines()
    array = np.array(rows if form == "rows" else [row.split(" ") for row in rows])
    array = np.asfortranarray(array) if form == "F" else array if form == "rows" else array.astype(form)
    with metadata.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    got = read(tmp_path)
    np.testing.assert_array_equal(got[0], images)
    np.testing.assert_array_equal(got[1], labels)
    assert got[2] == sizes


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([["imgs/0", "sample_0.png"]]), "row 1: 'imgs/0 sample_0.png' is not 11 columns"),
        (np.zeros((2, 11)), "dtype '<f8'"),
        (np.array([["imgs/0", 1]], object), r"dtype '\|O'"),
        (np.array([[["imgs/0"]]]), r"shape \[1, 1, 1\]"),
        (np.array([[b"\xff"]]), "neither text"),
    ],
)
def test_other_arrays_are_refused(official: Path, tmp_path: Path, array: np.ndarray, message: str) -> None:
    with (official / "metadata" / "0.npy").open("wb") as file:
        np.save(file, array, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_a_truncated_array_is_refused(official: Path, tmp_path: Path) -> None:
    metadata = official / "metadata" / "0.npy"
    with metadata.open("wb") as file:
        np.save(file, np.array([["imgs/0"] * 11] * 3))
    metadata.write_bytes(metadata.read_bytes()[:-1])
    with pytest.raises(DataError, match="do not hold"):
        read(tmp_path)


@pytest.mark.parametrize(("images", "enough"), [(0, False), (5, False), (9, False), (10, True)])
def test_ten_images_are_enough(official: Path, tmp_path: Path, images: int, enough: bool) -> None:
    metadata = official / "metadata" / "0.npy"
    metadata.write_text("".join(metadata.read_text().splitlines(keepends=True)[:images]))
    if enough:
        assert read(tmp_path)[2] == [8, 1, 1]
        return
    with pytest.raises(DataError, match=f"{official}: {images} images; at least 10 are needed"):
        read(tmp_path)


def test_missing_official_files_say_where_they_were_looked_for(tmp_path: Path) -> None:
    assert pathfinder.locate(tmp_path) == []
    with pytest.raises(DataError, match=r"pathfinder128/curv_contour_length_14.*lra_release\.gz"):
        next(pathfinder.build("128", OFFICIAL, tmp_path))
    with pytest.raises(DataError, match="LRA has no images of the variant 12"):
        next(pathfinder.build("12", OFFICIAL, tmp_path))
