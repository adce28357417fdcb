"""The preview shows the first examples of each class, in an equal file for equal data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lra.data.preview import show
from tasks import load_task
from tasks.core import Prepared, Split
from tasks.errors import DataError
from tasks.listops import encode

SQUARES = np.linspace(0, 255, 16 * 16).reshape(1, 16, 16).astype(np.uint8).repeat(40, 0)


def prepared(task: str, train: Split, variant: str = "full") -> Prepared:
    return Prepared(task, variant, 1, "sample", "0" * 64, {"train": train})


CASES = {
    "listops": Split.from_documents([encode("[MAX 2 9 [MIN 4 7 ] 0 ]"), encode("[SM " + "5 " * 900 + "]")], [9, 0]),
    "text": Split.from_documents(
        [b"$a_1$ \\frac caf\xc3\xa9 \xff\x00\n" * 200, "漢字 🙂 ".encode() * 40, b" "], [0, 1, 1]
    ),
    "retrieval": Split.from_documents([b"one paper", b"another " * 99], [0, 1], [[0, 1], [1, 0]]),
    "image": Split.from_images(SQUARES, np.arange(40) % 10),
    "pathfinder": Split.from_images(SQUARES, np.arange(40) % 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("task", CASES)
@pytest.mark.filterwarnings("error")  # a glyph that the font does not have is a warning
def test_equal_data_give_an_equal_picture(task: str, tmp_path: Path) -> None:
    card = load_task(task).CARD
    data = prepared(task, CASES[task])
    first = show(data, card, tmp_path / "new" / "first.png")
    again = show(data, card, tmp_path / "again.png")
    assert first.read_bytes() == again.read_bytes()
    with Image.open(first) as picture:
        gray = np.asarray(picture.convert("L"))
    assert gray.shape[0] > 300
    assert gray.shape[1] > 1000
    ink = gray < 128
    assert ink.any()
    assert not ink[:, -20:].any()  # nothing runs over the edges
    assert not ink[-10:].any()
    assert not ink[:, :20].any()


def test_eight_images_of_each_class_are_shown(tmp_path: Path) -> None:
    levels = np.arange(40)  # picture i is all of level 5 * i + 3; its class is i modulo 10
    images = (5 * levels + 3).astype(np.uint8)[:, None, None] * np.ones((1, 16, 16), np.uint8)
    data = prepared("image", Split.from_images(np.concatenate([images] * 3), np.tile(levels % 10, 3)))
    with Image.open(show(data, load_task("image").CARD, tmp_path / "sheet.png")) as picture:
        gray = np.asarray(picture.convert("L"))
    shown = np.bincount(gray.ravel(), minlength=256)[5 * levels + 3]
    # of the 12 pictures of a class, 8 are shown: its 4 levels, twice each
    np.testing.assert_allclose(shown, shown.mean(), rtol=0.05)
    assert shown.mean() > 2 * 100 * 100


def test_other_data_give_another_picture(tmp_path: Path) -> None:
    card = load_task("listops").CARD
    one = show(prepared("listops", CASES["listops"]), card, tmp_path / "1.png")
    other = Split.from_documents([encode("[MAX 2 9 [MIN 4 7 ] 1 ]"), encode("[SM 5 5 ]")], [9, 0])
    two = show(prepared("listops", other), card, tmp_path / "2.png")
    assert one.read_bytes() != two.read_bytes()


def test_no_examples_or_an_unwritable_path_is_an_error(tmp_path: Path) -> None:
    card = load_task("text").CARD
    with pytest.raises(DataError, match="text: the split train has no examples"):
        show(prepared("text", Split.from_documents([], [])), card, tmp_path / "x.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the picture"):
        show(prepared("text", CASES["text"]), card, tmp_path / "file" / "x.png")


def test_heavy_imports_happen_where_they_are_used() -> None:
    code = "import sys, lra.data.preview, lra.data.verify, lra.data.export; print(*sys.modules)"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert not {"matplotlib", "tensorflow_datasets", "tensorflow", "jax", "PIL"} & set(done.stdout.split())
