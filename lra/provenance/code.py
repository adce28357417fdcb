"""The code that computes a run: which files it is, and their hash, which is part of the run's id.

Edited code is another run: it neither returns the earlier score nor resumes the earlier checkpoint.
These parts count:

* The mixer's file and everything that it imports, except installed software: modules of the project
  and modules of the user's, wherever they are. Of an installed package that contains the mixer, the
  modules that the mixer imports count too.
* `models/encoder.py` and what it imports.
* The modules of `lra/` in `COMPUTING`: batches, optimiser, recipes, trainer, evaluation, settings of JAX.
* Of `tasks/`: the class `Split`, and of the task's card the size of the vocabulary, the number of
  classes and the rule of selection. Everything else there reads, generates, cuts or stores data. It
  ends in the arrays of a `Split`, and the hash of these arrays is part of the id already. Token ids
  and padding are made from the arrays by `lra/training/device_dataset.py`.

A file is hashed by its syntax tree (`lra.provenance.syntax`), so comments, formatting and docstrings do not
count. Imports are found in the text of the files: a module that is imported by a computed name is
not seen.

A process computes with the modules that it has imported, whatever is written into their files later.
Therefore the first content that this module reads of a file counts for the whole process, and a file
that has changed since then is an error. Imports neither jax nor flax.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import site
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lra.config import RunConfig
from lra.errors import RunError
from lra.paths import ROOT
from lra.provenance.syntax import Syntax, syntax
from models.user_files import TAKEN as PROJECT
from models.user_files import file_in, imported_names, module_of, own_file
from tasks import load_task

COMPUTING = (
    "runtime/devices",
    "runtime/distributed",
    "runtime/numerics",
    "selection",
    "training/batching",
    "training/device_dataset",
    "training/evaluation",
    "training/history",
    "training/objectives",
    "training/optimizer",
    "training/pretraining",
    "training/recipes/augment",
    "training/recipes/shuffle",
    "training/recipes/symbols",
    "training/step_functions",
    "training/train_step",
    "training/trainer",
)
REGISTRY = "models/mixers/__init__.py"  # finds a mixer by its name, and computes nothing


@dataclasses.dataclass(frozen=True)
class Code:
    """The code that computes a run.

    files: hash of each part by its path in the project; of modules of the user's, by their name as a path
    sources: content of the user's modules, by the same path
    mixer: path of the mixer's own file among the sources; None for a mixer of the project or an installed one
    """

    files: Mapping[str, str]
    sources: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    mixer: str | None = None

    @property
    def sha256(self) -> str:
        return sha256_of(self.files)

    def as_json(self) -> dict[str, Any]:
        return {"sha256": self.sha256, "files": dict(self.files)}


def sha256_of(files: Mapping[str, str]) -> str:
    """Return the hash of all parts of a run's code."""
    return hashlib.sha256("".join(f"{name}:{files[name]}\n" for name in sorted(files)).encode()).hexdigest()


def changes(before: Mapping[str, str] | None, now: Mapping[str, str]) -> str:
    """Return what differs between the code of two runs, in words.

    Args:
      before: the files of the earlier run; None: they were not recorded
    """
    if before is None:
        return "it was made before code was recorded"
    parts = {
        "changed": [name for name in now if name in before and before[name] != now[name]],
        "added": [name for name in now if name not in before],
        "removed": [name for name in before if name not in now],
    }
    return "; ".join(f"{what}: {', '.join(sorted(names))}" for what, names in parts.items() if names)


def computing(config: RunConfig, root: Path = ROOT) -> Code:
    """Return the code that computes a run of this configuration in this process.

    Args:
      root: the project's folder

    Raises:
      RunError: a file has changed since this process read it first.
    """
    files = {f"lra/{name}.py": _syntax(root / "lra" / f"{name}.py").sha256 for name in COMPUTING}
    files["tasks/core.py:Split"] = _syntax(root / "tasks" / "core.py", "Split").sha256
    card = load_task(config.task).CARD
    facts = json.dumps([card.vocab_size, len(card.classes), card.selection])
    files[f"tasks/{config.task}.py:CARD"] = hashlib.sha256(facts.encode()).hexdigest()
    module, path, folders = _mixer(config.mixer, root)
    mixer, is_file = _name(module, path, root), config.mixer.startswith(f"{path}:")
    waiting, seen = (
        [("models.encoder", root / "models" / "encoder.py", False), (module, path, is_file)],
        {root / REGISTRY},
    )
    own = {**dict.fromkeys(PROJECT, True), **dict.fromkeys(sys.stdlib_module_names, False)}
    copied = is_file or not _installed(module.partition(".")[0])
    own[module.partition(".")[0]] = True
    sources: dict[str, bytes] = {}
    while waiting:
        module, path, again = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        found = _syntax(path, again=again)
        name = _name(module, path, root)
        files[name] = found.sha256
        if copied and not _in_project(path, root) and path.suffix == ".py":
            sources[name] = _first[path]
        for name in imported_names(found.imports, module, is_package=path.stem == "__init__"):
            top = name.partition(".")[0]
            if (place := own_file(folders, name)) is not None:
                if place.is_file():
                    waiting.append((name, place, True))
                continue
            if top not in own:
                own[top] = not _installed(top)
            if own[top] and (place := _place(name, root)) is not None:
                waiting.append((name, place, False))
    return Code(dict(sorted(files.items())), sources, mixer if mixer in sources else None)


def _mixer(spec: str, root: Path) -> tuple[str, Path, tuple[Path, ...]]:
    """Return module and file of a mixer as `models.mixers` finds it, and the folders of its own modules."""
    place = spec.rpartition(":")[0] if ":" in spec else f"models.mixers.{spec}"
    path = Path(place) if place.endswith(".py") else _place(place, root)
    if path is None or not path.is_file():
        raise RunError(f"mixer {spec}: the file of {place} is not found")
    if place.endswith(".py"):
        name, folders = module_of(path)
        return name, path, folders
    return place, path, ()


def _in_project(path: Path, root: Path) -> bool:
    return any(path.is_relative_to(root / folder) for folder in PROJECT)


def _name(module: str, path: Path, root: Path) -> str:
    """Return a file's path in the project, or of a user's module its name as a path: `lab/ops.py` for lab.ops."""
    if _in_project(path, root):
        return str(path.relative_to(root))
    return module.replace(".", "/") + ("/__init__" if path.stem == "__init__" else "") + path.suffix


def _place(module: str, root: Path) -> Path | None:
    """Return the file of a module; None if there is none. Nothing is imported for it."""
    top, *rest = module.split(".")
    if top in PROJECT:
        return file_in(root, [top, *rest])
    if (loaded := sys.modules.get(module)) is not None:
        origin = getattr(loaded, "__file__", None)
        return Path(origin).resolve() if origin else None
    specs = (finder.find_spec(top, None) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    if (spec := next((spec for spec in specs if spec is not None), None)) is None:
        return None
    if rest:
        places = (file_in(Path(folder).resolve(), rest) for folder in spec.submodule_search_locations or ())
        return next((place for place in places if place is not None), None)
    return Path(spec.origin).resolve() if spec.has_location and spec.origin else None


def _installed(module: str) -> bool:
    """Whether a module at the top level is installed software."""
    place = _place(module, ROOT)
    return place is not None and any(place.is_relative_to(folder) for folder in INSTALLED)


INSTALLED = {
    Path(place).resolve()
    for place in (*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages())
    if Path(place).name in ("site-packages", "dist-packages") or Path(place).name.startswith("python3")
}

_first: dict[Path, bytes] = {}  # what this process read of a file first


def _syntax(path: Path, definition: str = "", *, again: bool = False) -> Syntax:
    """Return the syntax of a file as this process read it first.

    Args:
      again: the process reads the file again when its content changes, as `models.user_modules` does
    """
    content = path.read_bytes()
    if again:
        _first[path] = content
    first = _parsed(_first.setdefault(path, content), definition)
    if content != _first[path] and _parsed(content, definition) != first:
        raise RunError(f"{path} has changed since this process imported it: restart Python, so that the new code runs")
    return first


def _parsed(content: bytes, definition: str) -> Syntax:
    try:
        return syntax(content, definition)
    except (SyntaxError, ValueError):  # a compiled module
        return Syntax(hashlib.sha256(content).hexdigest(), ())


# Read before the modules are imported that this process will compute with.
for _path in (*(ROOT / "models").rglob("*.py"), *(ROOT / "lra" / f"{name}.py" for name in COMPUTING)):
    _first[_path] = _path.read_bytes()
_first[ROOT / "tasks" / "core.py"] = (ROOT / "tasks" / "core.py").read_bytes()
