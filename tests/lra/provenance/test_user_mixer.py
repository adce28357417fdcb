"""A run with a mixer of the user's: an edited helper is another run, and a run keeps the code that computed it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import run_lra
from lra.paths import ROOT
from models.user_files import COPIES

WORDS = [
    *("--task", "listops", "--protocol", "quick", "--source", "sample", "--limit", "20", "--max-len", "64"),
    *("--train.steps", "2", "--train.batch-size", "4", "--model.layers", "1", "--model.d-model", "16"),
    *("--model.qkv-dim", "16", "--model.mlp-dim", "16"),
]
MIXER = """
import jax.numpy as jnp
from models.core import QKVAttention
from {helper} import power


class Mean(QKVAttention):
    def attend(self, q, k, v, mask, rng_keys):
        real = mask[:, :, None, None]
        total = jnp.where(real, v, 0).sum(1, keepdims=True) / jnp.maximum(real.sum(1, keepdims=True), 1) ** power
        return jnp.broadcast_to(total, v.shape)
"""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LRA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LRA_PREPARED", str(ROOT / ".cache" / "prepared-for-tests"))
    return tmp_path / "runs"


def folder(path: Path, power: float = 1.0, name: str = "mean.py", helper: str = "my_helper") -> Path:
    path.mkdir(exist_ok=True)
    (path / name).write_text(MIXER.format(helper=helper), "utf-8")
    (path / "my_helper.py").write_text(f"import later\npower = {power}\n")
    (path / "later.py").write_text("")
    return path / name


def records(runs: Path) -> list[Path]:
    return sorted(runs.glob("*/records/*.json"), key=lambda path: path.stat().st_mtime_ns)


def test_an_edited_helper_is_another_run(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder(tmp_path / "lab")
    for _ in range(2):
        assert run_lra.main(["train", "--mixer", str(path), *WORDS]) == 0
    assert "not trained again" in capsys.readouterr().err
    folder(tmp_path / "lab", power=0.5)
    assert run_lra.main(["train", "--mixer", str(path), *WORDS]) == 0
    assert "not trained again" not in capsys.readouterr().err
    first, second = (json.loads(record.read_text()) for record in records(runs))
    assert first["curve"] != second["curve"]
    assert first["mixer"]["sha256"] != second["mixer"]["sha256"]
    changed = [
        n
        for n, digest in first["code"]["computing"]["files"].items()
        if second["code"]["computing"]["files"][n] != digest
    ]
    assert changed == ["my_helper.py"]


def test_a_run_is_evaluated_with_its_own_copy_of_the_mixer(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder(tmp_path / "lab")
    assert run_lra.main(["train", "--mixer", str(path), *WORDS]) == 0
    (directory,) = runs.iterdir()
    assert {p.name for p in (directory / COPIES).iterdir()} == {"mean.py", "my_helper.py", "later.py"}

    def evaluate() -> str:
        capsys.readouterr()
        status = run_lra.main(["evaluate", directory.name])
        out, err = capsys.readouterr()
        assert (status == 1) == err.startswith("error: "), err
        assert status == 1 or ("the same" in out and "note" not in err)
        assert err.count("\n") == status
        return err

    folder(tmp_path / "lab", power=2.0)
    assert evaluate() == ""
    shutil.rmtree(tmp_path / "lab")
    assert evaluate() == ""
    assert run_lra.main(["attention", directory.name, "--output", str(tmp_path / "a.png")]) == 0
    moved = directory.rename(tmp_path / directory.name)
    assert run_lra.main(["evaluate", str(moved)]) == 0
    directory = moved.rename(runs / moved.name)

    # A run of an earlier version has no copy.
    shutil.rmtree(directory / COPIES)
    assert "its mixer cannot be loaded: mixer '" in evaluate()
    folder(tmp_path / "lab", power=2.0)
    assert f"{directory.name} contains no copy of its mixer, and {path}:Mean is no longer mean.py:Mean@" in evaluate()
    folder(tmp_path / "lab")
    assert evaluate() == ""


def test_a_mixer_of_a_package_is_copied_as_one(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(tmp_path / "some_lab", helper=".my_helper")  # a package without __init__.py
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "some_lab")  # for `import later`
    assert run_lra.main(["train", "--mixer", "some_lab.mean:Mean", *WORDS]) == 0
    (directory,) = runs.iterdir()
    shutil.rmtree(tmp_path / "some_lab")
    capsys.readouterr()
    assert run_lra.main(["evaluate", directory.name]) == 0
    out, err = capsys.readouterr()
    assert "the same" in out
    assert err == ""


def test_a_file_of_any_name_gives_a_valid_record(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("aft_ü.py", "2 mean@-x.y.py"):
        assert run_lra.main(["train", "--mixer", str(folder(tmp_path / "lab", name=name)), *WORDS]) == 0
    for directory in runs.iterdir():
        assert run_lra.main(["evaluate", directory.name]) == 0
        assert run_lra.main(["validate", str(directory / "records")]) == 0
    capsys.readouterr()
    assert run_lra.main(["leaderboard", "--format", "md"]) == 0
    assert "aft\\_ü.py:Mean@" in capsys.readouterr().out
