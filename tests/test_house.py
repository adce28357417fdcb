"""Rules of the house that a tool can hold: who imports whom, and how quickly the door opens."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOUSE = {"lra", "models", "tasks", "configs", "run_lra"}
MAY_IMPORT = {
    "tasks": {"tasks"},
    "models": {"models"},
    "configs": {"configs", "lra.config"},
    "lra": {"lra", "configs", "tasks", "models"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_who_imports_whom(folder):
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    for path in paths:
        for name in imports(path):
            if name.split(".")[0] in HOUSE:
                allowed = MAY_IMPORT[folder]
                assert name.split(".")[0] in allowed or name in allowed, f"{path.relative_to(ROOT)} imports {name}"


CODE_IN_DATA = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml", "torch"}
# They evaluate what they read, unpickle it, or write where it says. Arrays are read by `tasks.arrays`.
OBEYS = {"eval", "exec", "np.load", "numpy.load"}


@pytest.mark.parametrize("folder", [*MAY_IMPORT, "run_lra.py"])
def test_nothing_that_is_read_can_run(folder):
    paths = [ROOT / folder] if folder.endswith(".py") else sorted((ROOT / folder).rglob("*.py"))
    for path in paths:
        assert not {name.split(".")[0] for name in imports(path)} & CODE_IN_DATA, path
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            called, place = ast.unparse(call.func), f"{path}:{call.lineno}"
            assert called not in OBEYS, place
            assert not called.endswith((".extractall", ".extract")), place
            if called == "Image.open":  # Pillow hands EPS to another program
                assert {k.arg: ast.unparse(k.value) for k in call.keywords}["formats"] == "['PNG']", place


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("run_lra", ("jax", "flax", "tensorflow_datasets", "matplotlib", "numpy")),
        ("configs.listops", ("jax", "flax")),
        ("lra.status", ("jax", "flax")),
        ("tasks.text", ("jax", "flax", "tensorflow", "tensorflow_datasets")),
        ("tasks.pathfinder", ("jax", "flax", "tensorflow", "tensorflow_datasets")),
        ("lra.train", ("tensorflow", "tensorflow_datasets", "matplotlib", "sklearn")),
    ],
)
def test_heavy_imports_happen_where_they_are_used(module, banned):
    code = f"import sys, {module}; print([m for m in {banned!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_another_models_is_named(tmp_path):
    """A package of the same name in front on the path must not be taken for ours."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import lra"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "another module called 'models'" in done.stderr
