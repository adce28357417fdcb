"""Mixers in files of the user's: what they import from their own folders, and which of these files identify them."""

from __future__ import annotations

import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from flax import nnx

from models.core import Dims
from models.mixers import resolve

DIMS = Dims(d_model=4, num_heads=1, qkv_dim=4, max_len=8, mlp_dim=4)
MIXER = """
{imports}

class Mine:
    def __init__(self, dims, *, rngs): ...

    def __call__(self, x, mask, *, rng_keys=None):
        {lazy}
        return {value} * x
"""


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def mixer(imports: str, value: str = "factor", lazy: str = "") -> str:
    return MIXER.format(imports=imports, lazy=lazy, value=value)


def factor(spec: Path | str) -> float:
    """The number by which a mixer multiplies x."""
    made = resolve(str(spec)).cls(DIMS, rngs=nnx.Rngs(0))
    return float(made(jnp.ones((1, 2, 4)), jnp.ones((1, 2), bool))[0, 0, 0])


def test_a_helper_beside_the_file_is_imported_and_its_changed_content_too(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "mine.py": mixer("from my_helper import factor"),
            "my_helper.py": "import deep.er\nfrom parts import half\nfactor = 2 * deep.er.factor * half.half",
            "deep/er.py": "factor = 3",  # a folder without __init__.py
            "parts/__init__.py": "from . import half",
            "parts/half.py": "half = 0.5",
            "unused.py": "",
        },
    )
    before, modules, path = resolve(str(tmp_path / "mine.py")), dict(sys.modules), list(sys.path)
    assert factor(tmp_path / "mine.py") == 3
    assert resolve(str(tmp_path / "mine.py")) == before
    seen = {before.sha256}
    # Of the same size and in the same second, which the bytecode cache of Python takes for the same file.
    for name, text, want in (("deep/er.py", "factor = 5", 5), ("parts/half.py", "half = 1.5", 15)):
        write(tmp_path, {name: text})
        assert factor(tmp_path / "mine.py") == want
        seen.add(resolve(str(tmp_path / "mine.py")).sha256)
    assert len(seen) == 3
    write(tmp_path, {"unused.py": "factor = 7"})
    assert resolve(str(tmp_path / "mine.py")).sha256 in seen
    assert sys.path == path
    assert not {"mine", "my_helper", "deep", "deep.er", "parts"} & (sys.modules.keys() - modules.keys())
    assert sys.meta_path == [finder for finder in sys.meta_path if not hasattr(finder, "folders")]


def test_two_folders_with_helpers_of_one_name_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, value in (("one", 2), ("two", 3), ("elsewhere", 4)):
        write(tmp_path / folder, {"my_helper.py": f"factor = {value}"})
    for folder in ("one", "two"):
        write(tmp_path / folder, {"mine.py": mixer("", "factor", "from my_helper import factor")})
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    import my_helper  # of the folder in sys.path

    for _ in range(2):
        assert factor(tmp_path / "one" / "mine.py") == 2  # imported when it is called
        assert factor(tmp_path / "two" / "mine.py") == 3
    assert sys.modules.pop("my_helper") is my_helper
    assert my_helper.factor == 4
    (tmp_path / "two" / "my_helper.py").unlink()
    assert factor(tmp_path / "two" / "mine.py") == 4


def test_modules_of_a_circle_are_executed_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "mine.py": "factor = 2\n" + mixer("from first import product"),
            "first.py": "import second, mine\nproduct = 3\n",
            "second.py": "import first\ntimes = []\ntimes.append(1)\nassert len(times) == 1\n",
        },
    )
    assert factor(tmp_path / "mine.py") == 2


PACKAGE = {
    "lab/__init__.py": "",
    "lab/mixers/__init__.py": "from .mine import Mine",
    "lab/mixers/mine.py": mixer("from ..ops import factor\nimport lab.mixers.other"),
    "lab/mixers/other.py": "",
    "lab/ops.py": "factor = 2",
}


def test_relative_imports_in_a_package_by_path_and_by_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    mixers = [tmp_path / "lab" / "mixers" / "mine.py", "lab.mixers.mine:Mine"]
    before = [resolve(str(spec)) for spec in mixers]
    assert [factor(spec) for spec in mixers] == [2, 2]
    assert [m.name for m in before] == ["mine.py:Mine", "lab.mixers.mine:Mine"]
    assert before[0].sha256 == before[1].sha256
    write(tmp_path, {"lab/ops.py": "factor = 3"})
    assert factor(mixers[0]) == 3
    after = [resolve(str(spec)).sha256 for spec in mixers]
    assert after[0] == after[1] != before[0].sha256
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["aft_ü.py", "my mixer.py", "my-mixer.py", "2nd.py", "my.mixer.v2.py", "random.py"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    write(tmp_path, {name: mixer("from my_helper import factor"), "my_helper.py": "factor = 2"})
    assert factor(tmp_path / name) == 2
    assert resolve(str(tmp_path / name)).name == f"{name}:Mine"


def test_a_package_with_a_name_of_the_project_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"models/blocks.py": "factor = 2", "tasks/__init__.py": "factor = 2"})
    for imports in ("from models.blocks import factor", "import models.blocks", "from tasks import factor"):
        write(tmp_path, {"mine.py": mixer(imports)})
        top = "tasks" if "tasks" in imports else "models"
        with pytest.raises(
            ValueError, match=rf"the name {top} is taken by this project: give your own package another"
        ):
            resolve(str(tmp_path / "mine.py"))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"there is no module models.blocks; the name models is taken by this project"):
        resolve("models.blocks:Mine")
    # As the message says: in a package, relative imports find it.
    write(tmp_path / "lab", {"__init__.py": "", "models/blocks.py": "factor = 2"})
    write(tmp_path / "lab", {"mine.py": mixer("from .models.blocks import factor")})
    assert factor(tmp_path / "lab" / "mine.py") == 2


def test_a_file_of_the_project_is_the_mixer_of_its_name() -> None:
    path = Path(sys.modules["models.mixers"].__file__ or "").parent / "linear.py"
    assert resolve(f"{path}:Linear") == resolve(str(path)) == resolve("linear")


def test_a_syntax_error_is_named_with_its_file(tmp_path: Path) -> None:
    write(tmp_path, {"mine.py": mixer("from my_helper import factor"), "my_helper.py": "factor = (\n"})
    with pytest.raises(ValueError, match=r"my_helper.py, line 1: '\(' was never closed"):
        resolve(str(tmp_path / "mine.py"))


def test_a_name_that_cannot_be_decoded_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"mine_\\udcc3.py': the name has characters that cannot be printed: rename it"
    ):
        resolve("mine_\udcc3.py")
