"""The exit status of `data prepare` and `data verify`, which scripts rely on."""

from __future__ import annotations

import dataclasses
import errno
import json
from pathlib import Path

import numpy as np
import pytest

import run_lra
from tasks import listops, pathfinder
from tasks.core import Built, Card, Split
from tasks.prepared import write_prepared
from tests.source_files import shrink, write

SIZES = {"train": 60, "validation": 20, "test": 20}


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LRA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LRA_PREPARED", str(tmp_path / "prepared"))
    return tmp_path / "prepared"


def shortened(monkeypatch: pytest.MonkeyPatch) -> Card:
    """Pathfinder 12 with 60, 20 and 20 pictures."""
    card = pathfinder.CARD
    cut = dataclasses.replace(card.variants["12"], sizes=SIZES)
    card = dataclasses.replace(card, variants={**card.variants, "12": cut})
    monkeypatch.setattr(pathfinder, "CARD", card)
    return card


def pictures(**changes: Split) -> dict[str, Split]:
    """Splits of noise with as many pictures of each class."""
    draw = np.random.RandomState(0)
    splits = {
        name: Split.from_images(draw.randint(0, 256, (n, 12, 12)).astype(np.uint8), np.arange(n) % 2)
        for name, n in SIZES.items()
    }
    return splits | changes


def verify_pathfinder(prepared: Path, card: Card, splits: dict[str, Split]) -> int:
    built = (Built(name, split, "generated, seed 1805") for name, split in splits.items())
    write_prepared(prepared / f"pathfinder-12-generated-v{card.version}", card, "12", built)
    return run_lra.main(["data", "verify", "--tasks", "pathfinder", "--variant", "12"])


def test_verify_of_good_data(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_lra.main(["data", "verify", "--tasks", "listops", "--variant", "short", "--source", "sample"]) == 0
    assert verify_pathfinder(prepared, shortened(monkeypatch), pictures()) == 0
    output = capsys.readouterr().out
    assert "problem" not in output
    assert "ok" in output


def one_sided(split: Split, ones: int) -> Split:
    return dataclasses.replace(split, labels=(np.arange(len(split)) < ones).astype(np.uint8))


GOOD = pictures()
TWICE = np.concatenate([GOOD["train"].data[: 3 * 144], GOOD["test"].data[3 * 144 :]])
BAD = {
    "wrong balance": (pictures(train=one_sided(GOOD["train"], 55)), "train has 55 of 60 examples of class connected"),
    "one class alone": (pictures(test=one_sided(GOOD["test"], 20)), "test has no example of class not connected"),
    "wrong counts": (pictures(test=GOOD["validation"], validation=GOOD["train"]), "validation has 60 examples, not 20"),
    "in train and test": (
        pictures(test=dataclasses.replace(GOOD["test"], data=TWICE)),
        "3 of 20 inputs of test are also in train",
    ),
    "in validation and test": (pictures(test=GOOD["validation"]), "20 of 20 inputs of test are also in validation"),
}


@pytest.mark.parametrize("fault", BAD)
def test_verify_of_bad_data(
    fault: str, prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    splits, problem = BAD[fault]
    assert verify_pathfinder(prepared, shortened(monkeypatch), splits) == 1
    output = " ".join(capsys.readouterr().out.split())
    assert f"problem: {problem}"[:60] in output


@pytest.mark.parametrize("place", ["sha256", "splits"])
def test_verify_of_a_damaged_hash(place: str, prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--tasks", "listops", "--variant", "short", "--source", "sample"]
    assert run_lra.main(["data", "prepare", *words]) == 0
    path = prepared / f"listops-short-sample-v{listops.CARD.version}" / "meta.json"
    meta = json.loads(path.read_text())
    if place == "sha256":
        meta["sha256"] = "0" * 64
    else:
        meta["splits"]["test"]["sha256"] = meta["splits"]["validation"]["sha256"]
    path.write_text(json.dumps(meta))
    assert run_lra.main(["data", "verify", *words]) == 1
    assert "the content does not have the recorded hash" in capsys.readouterr().err


def test_prepare_goes_on_and_fails_when_a_task_is_missing(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = prepared.parent / "data" / "aan"
    folder.mkdir(parents=True)
    for name in ("train", "eval", "test"):
        (folder / f"new_aan_pairs.{name}.tsv").write_text(f"1.0\tA\tB\tb'{name} a'\tb'{name} b'\n")
    assert run_lra.main(["data", "prepare", "--tasks", "text", "retrieval"]) == 1
    output = capsys.readouterr()
    assert "error: text: no official files" in output.err
    assert output.out.startswith("retrieval copy: 1 train, 1 validation, 1 test; source: unrecognised copy ")
    assert run_lra.main(["data", "prepare", "--tasks", "retrieval"]) == 0


def test_verify_goes_on_and_fails_when_a_task_is_missing(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shrink(monkeypatch)
    write("image", prepared.parent / "data")
    words = ["data", "verify", "--tasks", "text", "image", "retrieval"]
    assert run_lra.main(words) == 1
    output = capsys.readouterr()
    assert [line.partition(":")[2].split()[0] for line in output.err.splitlines() if line.startswith("error: ")] == [
        "text:",
        "retrieval:",
    ]
    assert output.err.endswith("\nno data: text, retrieval (2 of 3 tasks)\n")
    assert "image copy" in output.out
    assert run_lra.main(["data", "verify", "--tasks", "image"]) == 0


def test_verify_names_the_tasks_with_problems(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = pictures(test=GOOD["validation"])
    assert verify_pathfinder(prepared, shortened(monkeypatch), bad) == 1
    assert capsys.readouterr().err.endswith("data with problems: pathfinder (1 of 1 tasks)\n")


@pytest.mark.parametrize("verb", ["prepare", "verify", "show"])
@pytest.mark.parametrize("variable", ["LRA_DATA", "LRA_PREPARED"])
def test_a_directory_that_cannot_be_used_is_named_with_its_variable(
    variable: str,
    verb: str,
    prepared: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The tests may run as root, who may read and write everything, so the system's answer is replaced."""
    place = prepared.parent / {"LRA_DATA": "data", "LRA_PREPARED": "prepared"}[variable]

    def denied(path: Path, *arguments: object, **keywords: object) -> bool:
        if path.is_relative_to(place):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return False

    for method in ("is_file", "is_dir", "mkdir", "exists"):
        monkeypatch.setattr(Path, method, denied)
    words = [*(["--tasks"] if verb != "show" else []), "text", "--source", "official"]
    assert run_lra.main(["data", verb, *words]) == 1
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: {place}")
    assert first.endswith(f": Permission denied; set {variable} to a directory that can be used")
    assert all(not line.startswith(("error", "Traceback")) for line in rest)


def test_prepared_data_of_others_are_read_without_write_access(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--tasks", "listops", "--variant", "short", "--source", "sample"]
    assert run_lra.main(["data", "prepare", *words]) == 0
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: pytest.fail("writes"))
    monkeypatch.setattr("lra.data.prepare.FileLock", lambda *_: pytest.fail("locks"))
    assert run_lra.main(["data", "verify", *words]) == 0


def test_a_file_in_the_place_of_the_directory_is_named(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared.write_text("a file")
    assert run_lra.main(["data", "prepare", "--tasks", "listops", "--variant", "short", "--source", "sample"]) == 1
    assert f"error: {prepared}: " in (output := capsys.readouterr().err)
    assert "set LRA_PREPARED to a directory that can be used" in output
