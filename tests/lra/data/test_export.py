"""Exported data are read back by tensorflow-datasets and in LRA's layouts, completely or not at all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lra.data.export
from lra.data.export import export
from tasks import listops, load_task, pathfinder
from tasks.core import Prepared, Split
from tasks.errors import DataError

RNG = np.random.RandomState(0)
IMAGES = RNG.randint(0, 256, (30, 16, 16)).astype(np.uint8)
TEXTS = [RNG.bytes(1 + RNG.randint(300)) for _ in range(30)]  # any byte, also what is not UTF-8
EXPRESSIONS = listops.generate(60, seed=3, min_length=4, max_length=60)
PAIRS = RNG.randint(0, 30, (60, 2))

CASES: dict[str, tuple[str, Split, list[dict[str, Any]]]] = {
    "listops": (
        "full",
        Split.from_documents([listops.encode(e) for e in EXPRESSIONS[0]], EXPRESSIONS[1]),
        [{"text": e.encode()} for e in EXPRESSIONS[0]],
    ),
    "text": ("cut", Split.from_documents(TEXTS, np.arange(30) % 2), [{"text": t} for t in TEXTS]),
    "retrieval": (
        "full",
        Split.from_documents(TEXTS, np.arange(60) % 2, PAIRS),
        [{"text1": TEXTS[a], "text2": TEXTS[b]} for a, b in PAIRS],
    ),
    "image": ("16", Split.from_images(IMAGES, np.arange(30) % 10), [{"image": i[..., None]} for i in IMAGES]),
    "pathfinder": ("12", Split.from_images(IMAGES, np.arange(30) % 2), [{"image": i[..., None]} for i in IMAGES]),
}  # fmt: skip


def part(split: Split, n: int) -> Split:
    return Split(split.data, split.offsets, split.labels[:n], split.items[:n])


def prepared(task: str, source: str = "generated, seed 0") -> Prepared:
    variant, split, _ = CASES[task]
    splits = {"train": split, "test": part(split, 7)}
    return Prepared(task, variant, load_task(task).CARD.version, source, "ab" * 32, splits)


@pytest.mark.parametrize("task", CASES)
def test_tensorflow_datasets_reads_every_example_in_order(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lra.data.export, "_BLOCK", 8)
    monkeypatch.setattr(lra.data.export, "_SHARD_BYTES", 500)  # several files a split
    card = load_task(task).CARD
    seen: list[tuple[int, int]] = []
    target = tmp_path / "deep" / "out"
    assert export(prepared(task), card, target, progress=lambda what, done, total: seen.append((done, total))) == target

    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(target)
    variant, split, expected = CASES[task]
    assert builder.info.full_name == f"lra_{task}/{variant}/{card.version}.0.0"
    assert builder.info.features["label"].names == list(card.classes)
    assert builder.info.citation == card.citation
    assert "generated, seed 0" in builder.info.description
    assert "ab" * 32 in builder.info.description
    assert set(builder.info.splits) == {"train", "test"}
    assert builder.info.splits["train"].num_shards > 1
    for name, n in (("train", len(split)), ("test", 7)):
        source = builder.as_data_source(name)
        assert len(source) == n
        for i, want in enumerate(expected[:n]):
            got = source[i]
            assert got.keys() == {*want, "label"}
            assert got["label"] == split.labels[i]
            for key, value in want.items():
                if key == "image":
                    assert got[key].dtype == np.uint8
                np.testing.assert_array_equal(got[key], value)
    assert seen[-1] == (len(split) + 7, len(split) + 7)
    assert "tensorflow" not in sys.modules
    assert str(tmp_path) not in "".join(p.read_text() for p in target.glob("*.json"))


def test_the_image_sample_keeps_its_own_class_names(tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    export(prepared("image", "sample"), load_task("image").CARD, tmp_path / "out")
    assert tfds.builder_from_directory(tmp_path / "out").info.features["label"].int2str(0) == "disc"


def test_listops_in_the_layout_of_lra(tmp_path: Path) -> None:
    export(prepared("listops"), listops.CARD, tmp_path / "out", "lra")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["basic_test.tsv", "basic_train.tsv"]
    header, *rows = (tmp_path / "out" / "basic_train.tsv").read_text().splitlines()
    assert header == "Source\tTarget"
    assert len(rows) == 60
    for row, expression, answer in zip(rows, *EXPRESSIONS, strict=True):
        source, target = row.split("\t")
        assert listops.encode(source) == listops.encode(expression)
        assert listops.evaluate(source) == int(target) == answer


def test_pathfinder_in_the_layout_of_lra(tmp_path: Path) -> None:
    from PIL import Image

    images, labels = RNG.randint(0, 256, (12, 32, 32)).astype(np.uint8), np.arange(12) % 2
    splits = {"train": Split.from_images(images, labels)}
    data = Prepared("pathfinder", "32-intermediate", 1, "generated", "0" * 64, splits)
    export(data, pathfinder.CARD, tmp_path / "out", "lra")
    (metadata,) = (tmp_path / "out").rglob("metadata")
    assert metadata.parent.relative_to(tmp_path / "out") == Path("pathfinder32/curv_contour_length_9")
    rows = [line.split(" ") for line in (metadata / "0.npy").read_text().splitlines()]
    assert [int(row[3]) for row in rows] == labels.tolist()
    assert {row[5] for row in rows} == {"9"}
    for row, image in zip(rows, images, strict=True):
        with Image.open(metadata.parent / row[0] / row[1]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), image)


@pytest.mark.parametrize("task", ["text", "retrieval", "image"])
def test_other_tasks_have_no_layout_of_lra(task: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{task} has no layout of LRA's.* only listops, pathfinder"):
        export(prepared(task), load_task(task).CARD, tmp_path / "out", "lra")
    assert not any(tmp_path.iterdir())


def test_an_unknown_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no export format 'csv'; the formats are lra, tfds"):
        export(prepared("text"), load_task("text").CARD, tmp_path / "out", "csv")  # type: ignore[arg-type]


@pytest.mark.parametrize("format", ["lra", "tfds"])
def test_nothing_is_overwritten(format: lra.data.export.Format, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine").write_text("mine")
    with pytest.raises(DataError, match=r"out exists; choose a new directory"):
        export(prepared("listops"), listops.CARD, target, format)
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "mine"]


@pytest.mark.parametrize("error", [DataError, KeyboardInterrupt])
def test_an_interrupted_export_leaves_no_files(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lra.data.export, "_BLOCK", 8)

    def stop(what: str, done: int, total: int) -> None:
        assert (tmp_path / "out").exists() is False
        if done >= 24:
            raise error("stop")

    with pytest.raises(error, match="stop"):
        export(prepared("listops"), listops.CARD, tmp_path / "out", progress=stop)
    assert not any(tmp_path.iterdir())
