"""Source files are found in every usual place, and prepared data belong to exactly the files that were read."""

from __future__ import annotations

import os
import sys
import tarfile
from pathlib import Path

import pytest

import run_lra
from lra.data.prepare import prepare, prepared_path, source_note
from tasks import LRA_TASKS, load_task
from tasks.core import OFFICIAL
from tasks.errors import DataError
from tests.source_files import ARCHIVES, pack, shrink, write

SYSTEM_FILES = ("._{}", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/{}")
PLACES = {
    "listops": ("", "listops", "listops-1000", "lra_release/lra_release/listops-1000"),
    "text": ("", "imdb", "lra_release"),
    "retrieval": ("", "aan", "retrieval", "retrieval/tsv_data", "lra_release/lra_release/tsv_data"),
    "image": ("", "cifar", "lra_release"),
    "pathfinder": ("", "pathfinder", "lra_release/lra_release", "lra_release/pathfinder"),
}
opened: list[Path] = []


def record_opened(event: str, arguments: tuple) -> None:
    if event == "open" and isinstance(arguments[0], str):
        opened.append(Path(arguments[0]))


sys.addaudithook(record_opened)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shrink(monkeypatch)
    monkeypatch.setenv("LRA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LRA_PREPARED", str(tmp_path / "prepared"))
    return tmp_path / "data"


def sha256(task: str) -> str:
    return prepare(task, "full", OFFICIAL).sha256


def path(task: str) -> Path:
    return prepared_path(task, "full", OFFICIAL)


def test_a_corrected_file_is_read(data: Path) -> None:
    write("listops", data / "listops")
    first = sha256("listops")
    test = data / "listops" / "basic_test.tsv"
    test.write_bytes(test.read_bytes().replace(b"1 ) ] )\t1", b"2 ) ] )\t2"))
    assert sha256("listops") != first


@pytest.mark.parametrize("task", LRA_TASKS)
def test_every_file_that_is_read_counts_and_no_other(task: str, data: Path) -> None:
    directory = write(task, data)
    files = load_task(task).locate(data, "full", OFFICIAL)[0].files()
    opened.clear()
    sha256(task)
    assert {directory / name for name in files} == {p for p in opened if p.is_relative_to(data)}

    before = path(task)
    for name, state in files.items():
        os.utime(directory / name, ns=(state.time + 1, state.time + 1))
        assert path(task) != before, name
        os.utime(directory / name, ns=(state.time, state.time))
        assert path(task) == before
        content = (directory / name).read_bytes()
        (directory / name).write_bytes(content + b"x")
        os.utime(directory / name, ns=(state.time, state.time))
        assert path(task) != before, name
        (directory / name).write_bytes(content)
        os.utime(directory / name, ns=(state.time, state.time))
    assert path(task) == before
    (directory / "README").write_text("not read")
    assert path(task) == before


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("text", "train/neg/1_3.txt"),
        ("retrieval", "papers_text/C.txt"),
        ("pathfinder", "metadata/1.npy"),
        ("pathfinder", "imgs/0/sample_99.png"),
    ],
)
def test_a_new_file_counts(task: str, name: str, data: Path) -> None:
    directory = write(task, data)
    before = path(task)
    (directory / name).write_bytes(b"new")
    assert path(task) != before
    (directory / name).unlink()
    assert path(task) == before


@pytest.mark.parametrize("task", ARCHIVES)
def test_an_archive_counts(task: str, data: Path) -> None:
    archive = pack(task, data, {})
    before = path(task)
    os.utime(archive, (1, 1))
    assert path(task) != before


def test_a_copy_of_tensorflow_datasets_counts(data: Path) -> None:
    version = data / "imdb_reviews" / "plain_text" / "1.0.0"
    version.mkdir(parents=True)
    names = [prepared_path("text", "full", "tfds").name]
    for split in ("test", "train"):
        (version / f"imdb_reviews-{split}.tfrecord-00000-of-00001").write_bytes(b"")
        names.append(prepared_path("text", "full", "tfds").name)
    with pytest.raises(DataError, match=rf"no official files in {data}\. `--source tfds` reads {version}\. Download"):
        prepare("text", "full")
    assert names[0] == "text-full-tfds-v1"
    assert len(set(names)) == 3


@pytest.mark.parametrize("task", LRA_TASKS)
def test_files_of_the_operating_system_are_ignored_in_directories(task: str, data: Path) -> None:
    directory = write(task, data)
    before, name = sha256(task), path(task)
    for file in [f for f in directory.rglob("*") if f.is_file()]:
        for form in SYSTEM_FILES:
            extra = file.parent / form.format(file.name)
            extra.parent.mkdir(exist_ok=True)
            extra.write_bytes(b"\0\5\x16\7 not of the set")
    for folder in {f.parent for f in directory.rglob("*") if f.is_dir()}:
        (folder / "__MACOSX").mkdir(exist_ok=True)
    assert path(task) == name
    assert prepare(task, "full", OFFICIAL).sha256 == before
    for file in name.iterdir():
        file.unlink()
    name.rmdir()
    assert sha256(task) == before


@pytest.mark.parametrize("task", ARCHIVES)
def test_files_of_the_operating_system_are_ignored_in_archives(task: str, data: Path) -> None:
    members = pack(task, data, {})
    before = sha256(task)
    with tarfile.open(members) as tar:
        names = [member.name for member in tar]
    extra = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        extra |= {f"{folder}/{form.format(file)}": b"not of the set" for form in SYSTEM_FILES}
        extra[f"__MACOSX/{folder}/._{file}"] = extra[f"__MACOSX/{name}"] = b"not of the set"
    pack(task, data, extra)
    (data / f"._{members.name}").write_bytes(b"not an archive")
    assert sha256(task) == before


@pytest.mark.parametrize(("task", "place"), [(task, place) for task, places in PLACES.items() for place in places])
def test_official_files_are_found_in_every_usual_place(task: str, place: str, data: Path) -> None:
    directory = write(task, data / place)
    assert [origin.path for origin in load_task(task).locate(data, "full", OFFICIAL)] == [directory]
    assert sha256(task)


@pytest.mark.parametrize("task", LRA_TASKS)
def test_of_two_copies_the_one_that_is_read_is_named(task: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outer = write(task, data)
    expected = sha256(task)
    capsys.readouterr()
    inner = write(task, data / "lra_release" / "lra_release", number=1)
    assert sha256(task) == expected
    assert f"source official, read from {outer}; not read: {inner} (" in capsys.readouterr().err


@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
def test_generated_images_are_used_with_a_note_that_official_ones_exist(
    resolution: int, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = "full" if resolution == 32 else str(resolution)
    directory = data / "pathfinder" / f"pathfinder{resolution}" / "curv_contour_length_14"
    (directory / "metadata").mkdir(parents=True)
    note = source_note("pathfinder", variant, "generated", requested=False)
    assert note is not None
    assert f"source generated; not read: {directory} (`--source official` reads" in note
    assert source_note("pathfinder", variant, "generated", requested=True) is None
    assert source_note("pathfinder", variant, OFFICIAL, requested=True) is None
    assert source_note("pathfinder", "12", "generated", requested=False) is None


def test_the_command_prints_the_note_once_on_standard_error(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("text", data)
    pack("text", data, {})
    assert run_lra.main(["data", "prepare", "--tasks", "text"]) == 0
    output = capsys.readouterr()
    assert output.err.count("note: text full: source official, read from ") == 1
    assert "note" not in output.out
