"""Data are prepared once, completely or not at all, and checked when they are read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lra.data import prepare as data
from lra.errors import Interrupted
from tasks import listops, load_task
from tasks.core import Split
from tasks.errors import DataError
from tasks.origins import Origin
from tasks.prepared import prepared_dir_name, read_prepared, write_prepared


@pytest.fixture
def prepared_in(tmp_path, monkeypatch):
    monkeypatch.setenv("LRA_PREPARED", str(tmp_path / "prepared"))
    monkeypatch.setenv("LRA_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "prepared"


def shown(directory):
    return [path for path in directory.iterdir() if path.suffix != ".lock"]


def test_prepared_once_and_read_back(prepared_in, monkeypatch):
    first = data.prepare("listops", "full", "sample")
    monkeypatch.setattr(listops, "build", None)  # a second build would fail
    again = data.prepare("listops", "full", "sample")
    assert again.sha256 == first.sha256
    for name, split in first.splits.items():
        assert split.sha256 == again.splits[name].sha256
        assert len(split) == len(again.splits[name])
    assert [p.name for p in shown(prepared_in)] == ["listops-full-sample-v1"]


def test_an_interrupted_build_leaves_nothing(prepared_in, monkeypatch):
    real = listops.build

    def dying(*args, **kwargs):
        yield next(iter(real(*args, **kwargs)))
        raise KeyboardInterrupt

    monkeypatch.setattr(listops, "build", dying)
    with pytest.raises(Interrupted, match="listops full: interrupted"):
        data.prepare("listops", "full", "sample")
    assert [path.suffix for path in prepared_in.iterdir()] == [".lock"]


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "meta"])
def test_damaged_data_is_refused(prepared_in, damage):
    data.prepare("listops", "full", "sample")
    directory = prepared_in / "listops-full-sample-v1"
    path = directory / "validation.npz"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "flip":
        with np.load(path) as arrays:
            kept = {k: arrays[k] for k in arrays}
        kept["labels"][0] ^= 1
        np.savez_compressed(path, **kept)
    elif damage == "gone":
        path.unlink()
    else:
        meta = json.loads((directory / "meta.json").read_text())
        meta["version"] += 1
        (directory / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match=r"delete .*listops-full-sample-v1"):
        data.prepare("listops", "full", "sample")


def test_another_source_file_is_another_data_set(tmp_path):
    file = tmp_path / "source"
    file.write_text("one")
    one = prepared_dir_name("text", "full", 1, "official", Origin(file))
    assert prepared_dir_name("text", "full", 1, "official", Origin(file)) == one
    file.write_text("three")
    assert prepared_dir_name("text", "full", 1, "official", Origin(file)) != one


def test_labels_beyond_the_classes_and_empty_splits_are_refused(tmp_path):
    from tasks.core import Built

    split = Split.from_documents([b"a"], [10])
    with pytest.raises(DataError, match="label 10 of 10 classes"):
        write_prepared(tmp_path / "x", listops.CARD, "full", iter([Built("train", split, "test")]))
    assert list(tmp_path.iterdir()) == []
    empty = Split.from_documents([], [])
    with pytest.raises(DataError, match="listops full: train has no examples"):
        write_prepared(tmp_path / "x", listops.CARD, "full", iter([Built("train", empty, "test")]))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="not readable"):
        read_prepared(tmp_path / "x", listops.CARD)


@pytest.mark.parametrize("task", ["text", "retrieval", "image"])
def test_missing_official_files_name_the_directory_and_how_to_get_them(prepared_in, task):
    with pytest.raises(DataError) as error:
        data.prepare(task, "full")
    assert str(prepared_in.parent / "data") in str(error.value)
    assert load_task(task).CARD.obtain in str(error.value)
    assert data.choose_source(task, "full", None, allow_sample=True) == "sample"


def test_sources_and_variants_are_named(prepared_in):
    with pytest.raises(DataError, match="generated, official, sample"):
        data.prepare("listops", "full", "wikipedia")
    with pytest.raises(DataError, match="full, short"):
        data.prepare("listops", "fuller", "sample")


@pytest.mark.parametrize("change", [{"offsets": [0, 2]}, {"items": [3]}, {"labels": [0, 1]}, {"data": [1.5]}])
def test_inconsistent_splits_are_refused(change):
    fields = {"data": [1, 2, 3], "offsets": [0, 3], "labels": [0], "items": [0], **change}
    kinds = {"data": np.uint8, "offsets": np.int64, "labels": np.uint8, "items": np.int32}
    with pytest.raises(DataError):
        Split(**{k: np.asarray(v, None if v == [1.5] else kinds[k]) for k, v in fields.items()})
