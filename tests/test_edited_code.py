"""Code that is edited between two commands, in a copy of the project: as a contributor works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
WORDS = [
    *("train", "--task", "listops", "--mixer", "cosformer", "--protocol", "quick", "--source", "sample"),
    *("--limit", "20", "--max-len", "64", "--train.steps", "2", "--train.batch-size", "4"),
    *("--model.layers", "1", "--model.d-model", "16", "--model.qkv-dim", "16", "--model.mlp-dim", "16"),
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("lra", "models", "tasks", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run_lra.py", tmp_path)
    return tmp_path


COSFORMER = "models/mixers/cosformer.py"


def command(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    prepared = str(ROOT / ".cache" / "prepared-for-tests")
    environment = {**os.environ, "LRA_RUNS": str(project / "runs"), "LRA_PREPARED": prepared}
    words = (sys.executable, str(project / "run_lra.py"), *words)
    return subprocess.run(words, env=environment, cwd=project, capture_output=True, text=True)


def edit(path: Path, before: str, after: str) -> None:
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def test_edited_code_is_run_again_and_a_comment_is_not(project: Path) -> None:
    done = command(project, *WORDS)
    assert done.returncode == 0, done.stderr
    (first,) = (project / "runs").glob("*/records/*.json")
    before, result = first.read_bytes(), json.loads(first.read_text())

    edit(project / COSFORMER, "import jax\n", "import jax  # arrays\n")
    edit(project / "lra" / "runtime" / "progress.py", "LOG_SECONDS = 30.0", "LOG_SECONDS = 3.0")
    done = command(project, *WORDS)
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"{result['id']}: complete since {result['created']}, not trained again\n"

    edit(project / COSFORMER, "FEATURE_MAPS[feature_map](q)", "jax.nn.softplus(q)")
    done = command(project, *WORDS)
    assert done.returncode == 0, done.stderr
    assert f"not that of {result['id']} (complete" in done.stderr
    assert f"  changed: {COSFORMER}\n" in done.stderr
    assert first.read_bytes() == before
    (second,) = {*(project / "runs").glob("*/records/*.json")} - {first}
    assert second.stem.rpartition("-")[0] == first.stem.rpartition("-")[0]
    assert json.loads(second.read_text())["curve"] != result["curve"]

    done = command(project, "evaluate", result["id"])
    assert f"note: the code here is not that which trained {result['id']}: changed: {COSFORMER}" in done.stderr
    assert done.stdout.startswith("test accuracy")
