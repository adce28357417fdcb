"""The notebook and the scripts of examples/ run, and the notebook's outputs are fit to be committed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lra.paths import ROOT
from tests.notebook import code_cells

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
SETTINGS = 'settings = {"protocol": "quick", "seed": 0}'
SMALL = 'settings = {"protocol": "quick", "limit": 32, "overrides": {"train.steps": 4, "train.eval_every": 4}}'
# Executes a notebook with runs of four steps.
EXECUTE = f"""
import json, sys
from tests.notebook import code_cells, execute
text = open(sys.argv[1], encoding="utf-8").read()
cells = code_cells(json.loads(text))
for cell in cells:
    cell["source"] = ["".join(cell["source"]).replace({SETTINGS!r}, {SMALL!r})]
execute(cells)
print(json.dumps([cell["outputs"] for cell in cells]))
"""


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LRA_RUNS": str(cwd / "runs"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done


def test_the_notebook_has_small_outputs_without_paths() -> None:
    text = NOTEBOOK.read_text("utf-8")
    assert len(text.encode()) < 300_000
    cells = code_cells(json.loads(text))
    assert any(SETTINGS in "".join(cell["source"]) for cell in cells)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"]) == 3
    for place in (str(ROOT), str(Path.home()) + "/", "/home/", "/tmp/"):
        assert place not in text


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    outputs = json.loads(run("-c", EXECUTE, str(NOTEBOOK), cwd=tmp_path).stdout)
    committed = [cell["outputs"] for cell in code_cells(json.loads(NOTEBOOK.read_text("utf-8")))]
    assert [[o["output_type"] for o in cell] for cell in outputs] == [
        [o["output_type"] for o in cell] for cell in committed
    ]


@pytest.mark.slow
def test_attention_maps_are_drawn_after_training_and_of_finished_runs(tmp_path: Path) -> None:
    script = str(ROOT / "examples" / "attention_maps.py")
    trained = run(script, "--steps", "2", "--output", "first.png", cwd=tmp_path)
    assert trained.stdout.count("of the weight within") == 4  # two mixers of two layers
    names = sorted(path.name for path in (tmp_path / "runs").iterdir() if path.name.startswith("pathfinder"))
    run(script, *names, "--output", "second.png", cwd=tmp_path)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
