"""The structure of the repository: which packages import which, and what is not imported at start-up."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

from lra.paths import ROOT

TOP_LEVEL = {"lra", "models", "tasks", "configs", "run_lra"}
MAY_IMPORT = {
    "tasks": {"tasks"},
    "models": {"models"},
    "configs": {"configs", "lra.protocols"},
    "lra": {"lra", "configs", "tasks", "models"},
}
# Inside `lra/`: what each package or module may import, besides `BASE`.
BASE = {"errors", "paths", "protocols", "selection", "typed_json", "config", "plain_table"}
LAYERS = {
    "runtime": set(),
    "data": set(),
    "provenance": {"runtime"},
    "record": {"runtime", "data", "provenance"},
    "training": {"runtime", "provenance"},
    "leaderboard": {"record"},
    "run_record": {"training", "record", "provenance"},
    "api": {"run_record", "training", "record", "provenance", "data", "runtime"},
    "finished": {"api", "training", "record", "provenance", "data", "runtime"},
    "analysis": {"finished"},
    "sweep": {"api", "record", "provenance", "data", "runtime"},
    "contract": {"api", "training", "runtime"},
    "bench": {"api", "training", "leaderboard", "record", "provenance", "runtime"},
    "protocol_tables": {"training"},
    "catalog": {"protocol_tables"},
}
LAYERS["commands"] = set(LAYERS)


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere in it; `from lra import x` counts as `lra.x`."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == "lra":
            modules |= {f"lra.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules.add(node.module)
    return modules


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_top_level_packages_import_only_what_they_may(folder):
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    for path in paths:
        for name in imports(path):
            if name.split(".")[0] in TOP_LEVEL:
                allowed = MAY_IMPORT[folder]
                assert name.split(".")[0] in allowed or name in allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_packages_of_lra_import_only_lower_layers():
    for path in sorted((ROOT / "lra").rglob("*.py")):
        importer = path.relative_to(ROOT / "lra").with_suffix("").parts[0]
        for name in imports(path):
            if not name.startswith("lra.") or importer == "__init__":
                continue
            imported = name.split(".")[1]
            allowed = BASE | LAYERS.get(importer, set()) | {importer}
            assert imported in allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_layers_are_acyclic_and_complete():
    graphlib.TopologicalSorter(LAYERS).prepare()  # raises CycleError
    parts = {path.stem for path in (ROOT / "lra").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__"} == BASE | LAYERS.keys()


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
        ("run_lra", ("jax", "flax", "tensorflow_datasets", "matplotlib", "numpy", "pydantic")),
        ("configs.listops", ("jax", "flax", "pydantic")),
        ("lra.record.status", ("jax", "flax")),
        ("tasks.text", ("jax", "flax", "tensorflow", "tensorflow_datasets")),
        ("tasks.pathfinder", ("jax", "flax", "tensorflow", "tensorflow_datasets")),
        ("lra.training.trainer", ("tensorflow", "tensorflow_datasets", "matplotlib", "sklearn")),
    ],
)
def test_heavy_imports_happen_where_they_are_used(module, banned):
    code = f"import sys, {module}; print([m for m in {banned!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pydantic_is_imported_where_records_and_configurations_are_read():
    code = "import sys, run_lra; run_lra.main(['list']); sys.exit('pydantic' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    importers = {
        path.relative_to(ROOT / "lra").as_posix()
        for path in (ROOT / "lra").rglob("*.py")
        if imports(path) & {"pydantic"}
    }
    assert importers == {"typed_json.py", "record/field_types.py", "record/files.py", "record/schema.py"}


def test_another_models_is_named(tmp_path):
    """A package of the same name in front on the path must not be taken for ours."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import lra"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "another module called 'models'" in done.stderr
