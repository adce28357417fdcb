"""Which code is part of a run's id: everything that computes it, wherever it is, and nothing else."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lra.errors import RunError
from lra.paths import ROOT
from lra.provenance import code
from lra.provenance.code import COMPUTING, changes, computing
from tasks import listops
from tests.lra.conftest import tiny_config

# Modules that the trainer imports and that compute no number of a run, and what they are for.
NOT_COMPUTING = {
    "config": "values",  # which are in the hash of the configuration
    "errors": "messages",
    "paths": "storage",
    "protocols": "values",  # as in config
    "provenance/code": "identity",
    "provenance/environment": "provenance",
    "provenance/sessions": "provenance",
    "provenance/syntax": "identity",
    "runtime/heartbeat": "display",
    "runtime/locks": "storage",
    "runtime/memory": "cost",
    "runtime/progress": "display",
    "runtime/signals": "signals",
    "training/budget": "limits",
    "training/checkpoints": "storage",
    "training/failure": "display",
    "training/flops": "cost",
    "training/meter": "cost",
    "training/metrics": "display",
    "training/outcome": "values",
    "training/receptive_field": "measures a trained model",
    "typed_json": "validation",
}


def imported_by(module: str) -> set[str]:
    """Modules of lra/ that one of them imports anywhere in its file, found without `lra.provenance.syntax`."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / "lra" / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "lra":
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    paths = (name.removeprefix("lra.").replace(".", "/") for name in names)
    return {path for path in paths if (ROOT / "lra" / f"{path}.py").is_file()}


def test_every_module_that_the_trainer_imports_is_said_to_compute_or_not() -> None:
    waiting, reached = {"training/trainer"}, set()
    while waiting:
        reached.add(module := waiting.pop())
        waiting |= imported_by(module) - reached
    assert not set(COMPUTING) & NOT_COMPUTING.keys()
    assert reached == set(COMPUTING) | NOT_COMPUTING.keys()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project's code."""
    root = tmp_path / "project"
    for folder in ("lra", "models", "tasks", "configs"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def files(root: Path, mixer: str = "cosformer") -> dict[str, str]:
    """The code of a run as a new process finds it."""
    code._first.clear()
    return dict(computing(dataclasses.replace(tiny_config(), mixer=mixer), root).files)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_first", {})


def edit(path: Path, before: str = "", after: str = "EDITED = 1\n") -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1) if before else text + after)


@pytest.mark.parametrize(
    "path",
    [
        "models/mixers/cosformer.py",
        "models/core.py",
        "models/encoder.py",
        *(f"lra/training/{n}.py" for n in ("batching", "optimizer", "step_functions", "trainer", "evaluation")),
        "lra/runtime/numerics.py",
    ],
)
def test_edited_code_that_computes_is_named(tree: Path, path: str) -> None:
    before = files(tree)
    edit(tree / path)
    assert changes(before, files(tree)) == f"changed: {path}"
    edit(tree / path, "EDITED = 1\n", "# a comment\n")
    assert files(tree) == before


@pytest.mark.parametrize(
    "path",
    [
        "models/mixers/__init__.py",
        "models/mixers/softmax.py",
        "models/convolution.py",  # cosFormer does not import it
        "lra/leaderboard/build.py",
        "lra/runtime/progress.py",
        "lra/training/checkpoints.py",
        "tasks/listops/__init__.py",
        "tasks/listops/grammar.py",
        "tasks/arrays.py",
        "configs/listops.py",
    ],
)
def test_other_edited_code_makes_no_new_run(tree: Path, path: str) -> None:
    before = files(tree)
    edit(tree / path)
    assert files(tree) == before


def test_a_mixer_brings_what_it_imports(tree: Path) -> None:
    before = files(tree, "s4d")
    added = before.keys() - files(tree).keys()
    assert added == {f"models/{name}.py" for name in ("mixers/s4d", "convolution", "hippo")}
    edit(tree / "models" / "convolution.py", "import jax\n", "import jax\nfrom models import newton_schulz\n")
    after = files(tree, "s4d")
    assert changes(before, after) == "changed: models/convolution.py; added: models/newton_schulz.py"
    assert changes(after, before) == "changed: models/convolution.py; removed: models/newton_schulz.py"
    assert changes(None, after) == "it was made before code was recorded"


def test_of_tasks_the_split_and_three_facts_count(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(tree)
    assert [name for name in before if name.startswith("tasks/")] == ["tasks/core.py:Split", "tasks/listops.py:CARD"]
    edit(tree / "tasks" / "core.py", 'f"unrecognised copy {sha256[:8]}"', "sha256")
    assert files(tree) == before
    edit(tree / "tasks" / "core.py", "return np.diff(self.offsets)[self.items]", "return self.items")
    assert changes(before, files(tree)) == "changed: tasks/core.py:Split"
    edit(tree / "tasks" / "core.py", "return self.items", "return np.diff(self.offsets)[self.items]")
    for change in ({"vocab_size": 99}, {"classes": ("0", "1")}, {"selection": "last"}):
        with monkeypatch.context() as patched:
            patched.setattr(listops, "CARD", dataclasses.replace(listops.CARD, **change))
            assert changes(before, files(tree)) == "changed: tasks/listops.py:CARD"
    with monkeypatch.context() as patched:
        patched.setattr(listops, "CARD", dataclasses.replace(listops.CARD, title="Lists", licence="other"))
        assert files(tree) == before


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of the user's, and a module in another folder, both found by PYTHONPATH."""
    texts = {
        "one/lab/__init__.py": "",
        "one/lab/mixers/__init__.py": "RATE = 1",
        "one/lab/mixers/mine.py": "import json, numpy\nfrom models import convolution\nfrom . import ops\n",
        "one/lab/mixers/ops.py": "import helpers\nfrom ..deep.er import thing\n",
        "one/lab/deep/er.py": "def thing():\n    import lab.later\n",  # a folder without __init__.py
        "one/lab/later.py": "",
        "one/lab/unused.py": "",
        "two/helpers.py": "A = 1",
        "two/alone.py": "import helpers\nclass Mine: ...\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for folder in ("one", "two"):
        monkeypatch.syspath_prepend(tmp_path / folder)
    yield tmp_path
    sys.modules.pop("helpers", None)


OWN = {
    *("lab/__init__.py", "lab/mixers/__init__.py", "lab/mixers/mine.py", "lab/mixers/ops.py"),
    *("lab/deep/er.py", "lab/later.py", "helpers.py", "models/convolution.py"),
}


def test_modules_of_the_users_own_count_wherever_they_are(tree: Path, lab: Path) -> None:
    before, project = files(tree, "lab.mixers.mine:Mine"), files(tree).keys() - {"models/mixers/cosformer.py"}
    assert before.keys() - project == OWN
    edit(lab / "two" / "helpers.py", "A = 1", "A = 2")
    assert changes(before, files(tree, "lab.mixers.mine:Mine")) == "changed: helpers.py"
    edit(lab / "one" / "lab" / "unused.py", after="B = 1")
    assert changes(before, files(tree, "lab.mixers.mine:Mine")) == "changed: helpers.py"


def test_a_file_of_the_users_own_brings_what_it_imports(tree: Path, lab: Path) -> None:
    project = files(tree).keys() - {"models/mixers/cosformer.py"}
    assert files(tree, f"{lab}/two/alone.py:Mine").keys() - project == {"alone.py", "helpers.py"}


def test_what_a_process_has_imported_is_taken_from_where_it_was(
    tree: Path, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    importlib.import_module("helpers")
    (lab / "three").mkdir()
    (lab / "three" / "helpers.py").write_text("A = 3")
    monkeypatch.syspath_prepend(lab / "three")  # too late for this process
    before = files(tree, f"{lab}/two/alone.py:Mine")
    edit(lab / "three" / "helpers.py")
    assert files(tree, f"{lab}/two/alone.py:Mine") == before
    edit(lab / "two" / "helpers.py")
    assert files(tree, f"{lab}/two/alone.py:Mine") != before


def test_installed_software_does_not_count_but_the_mixers_own_package_does(
    tree: Path, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "INSTALLED", {*code.INSTALLED, lab / "one"})
    project = files(tree).keys() - {"models/mixers/cosformer.py"}
    assert files(tree, "lab.mixers.mine:Mine").keys() - project == OWN
    (lab / "two" / "other.py").write_text("import lab.mixers.mine, helpers")
    assert files(tree, f"{lab}/two/other.py:Mine").keys() - project == {"other.py", "helpers.py"}


def test_a_process_that_has_imported_other_code_is_stopped(tree: Path, lab: Path) -> None:
    """As in a notebook: what is written into a file after its import does not run."""
    config = tiny_config()
    before = computing(config, tree)
    edit(tree / "models" / "core.py", after="# a comment\n")
    assert computing(config, tree) == before
    edit(tree / "models" / "core.py")
    with pytest.raises(RunError, match=r"models/core.py has changed since this process imported it: restart Python"):
        computing(config, tree)
    edit(tree / "models" / "core.py", "EDITED = 1\n", "")
    assert computing(config, tree) == before

    own = dataclasses.replace(config, mixer=f"{lab}/two/alone.py:Mine")
    mine = computing(own, tree)
    edit(lab / "two" / "alone.py")  # such a file and those beside it are executed again when their content changes
    assert changes(mine.files, computing(own, tree).files) == "changed: alone.py"
    edit(lab / "two" / "helpers.py")
    assert changes(mine.files, computing(own, tree).files) == "changed: alone.py, helpers.py"
    (lab / "one" / "mine.py").write_text("import helpers")  # from another folder, by sys.path
    own = dataclasses.replace(config, mixer=f"{lab}/one/mine.py:Mine")
    fresh = computing(own, tree)
    assert {"mine.py", "helpers.py"} <= fresh.sources.keys()
    edit(lab / "two" / "helpers.py")
    with pytest.raises(RunError, match=r"helpers.py has changed"):
        computing(own, tree)


def test_the_files_of_this_process_are_read_when_it_starts() -> None:
    script = "from lra.provenance import code; print(sorted(p.relative_to(code.ROOT).as_posix() for p in code._first))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    read = set(ast.literal_eval(done.stdout))
    for mixer in ("cosformer", "mega", "reformer"):
        named = computing(dataclasses.replace(tiny_config(), mixer=mixer)).files
        assert {name.removesuffix(":Split") for name in named if not name.endswith(":CARD")} <= read
