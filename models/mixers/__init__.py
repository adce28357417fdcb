"""Mixers, one file each. The name of the file is the name of the mixer; there is no other list.

A mixer is specified in one of three forms:

    cosformer                  a file in this directory
    package.module:MyMixer     an importable class
    path/my_file.py:MyMixer    a class in a file anywhere

Without `:MyMixer`, the class is the only public class with `__call__` that the module defines.

A module may define two constants:

    COMPLEXITY = ("L", "L")    growth of time and memory with the sequence length
    VERSION = 2                version of what the mixer computes, 1 by default. Raise it when the same options compute
                               something else; results of different versions are not compared.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import nnx

from models.core import Block, Dims, Mixer
from models.mixer_files import FOLDER, checked_version, did_you_mean
from models.mixer_files import available as available
from models.mixer_files import version_of as version_of
from models.mixer_options import Option as Option
from models.mixer_options import check_options, options, title_of
from models.mixer_options import parse_options as parse_options
from models.user_files import INSTALLED, TAKEN, own_files, sha256_of
from models.user_modules import load

FORMS = "a mixer is one of {names}, or package.module:Class, or path/my_file.py:Class"


@dataclasses.dataclass(frozen=True)
class Resolved:
    """A mixer's class and the facts that a record stores about it.

    name:       display name: `cosformer`, `package.module:Class` or `my_file.py:Class`
    spec:       specification that finds the mixer from any directory, with absolute paths
    cls:        the class
    complexity: claimed growth of time and memory, None if not claimed
    sha256:     hash of its file, None for the mixers of this directory
    version:    its VERSION
    """

    name: str
    spec: str
    cls: type
    complexity: tuple[str, str] | None
    sha256: str | None
    version: int = 1


def resolve(spec: str) -> Resolved:
    """Find a mixer by its specification.

    Raises:
      ValueError: the mixer, file, module or class does not exist, or its `__call__` has the parameter `keys` of
        earlier versions instead of `rng_keys`.
    """
    if spec in available():
        module = importlib.import_module(f"{__name__}.{spec}")
        return _project_mixer(spec, module, _mixer_class(module, "", spec))
    if not spec.isprintable():  # a name that Python cannot decode in this locale, or with a line break
        raise ValueError(
            f"mixer {spec!r}: the name has characters that cannot be printed: rename it, or set LC_ALL=C.UTF-8"
        )
    location, _, class_name = spec.rpartition(":") if ":" in spec else (spec, "", "")
    forms = FORMS.format(names=", ".join(available()))
    name = location
    if location.endswith(".py"):
        path = Path(location).expanduser()
        if not path.is_file():
            raise ValueError(f"mixer {spec!r}: there is no file {path.absolute()}; {forms}")
        name, path = path.name, path.resolve()
        location = f"{__name__}.{path.stem}" if path.parent == FOLDER.resolve() else str(path)
    elif not class_name:
        raise ValueError(f"unknown mixer {spec!r}{did_you_mean(spec, available())}; {forms}")
    try:
        module, sha256 = load(path) if location.endswith(".py") else _import(location)
    except ImportError as error:
        top = (error.name or "").partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and f"{location}.".startswith(f"{error.name}."):
            hint = f"; {taken(top)}" if top in TAKEN else ""
            raise ValueError(f"mixer {spec!r}: there is no module {location}{hint}; {forms}") from error
        if top in TAKEN:
            raise ValueError(f"mixer {spec!r}: {error}; {taken(top)}") from error
        raise
    cls = _mixer_class(module, class_name, spec)
    source = Path(str(module.__file__))
    if source.resolve().parent == FOLDER.resolve():
        return _project_mixer(source.stem, module, cls)
    return Resolved(
        name=f"{name}:{cls.__name__}",
        spec=f"{location}:{cls.__name__}",
        cls=cls,
        complexity=getattr(module, "COMPLEXITY", None),
        sha256=sha256,
        version=checked_version(getattr(module, "VERSION", 1), source.name),
    )


def _project_mixer(name: str, module: types.ModuleType, cls: type) -> Resolved:
    return Resolved(name, name, cls, getattr(module, "COMPLEXITY", None), None, version_of(name))


def build(cls: type, dims: Dims, given: Mapping[str, Any], rngs: nnx.Rngs) -> Mixer:
    """Construct a mixer with these options.

    Raises:
      ValueError: as `check_options`, or the constructor refuses an option; the message begins with the mixer's name.
    """
    check_options(cls, given)
    try:
        return cls(dims, **given, rngs=rngs)
    except ValueError as error:
        text = str(error)
        if "nnx.List" in text:  # flax, in twenty lines, about a plain list or dict of modules or arrays
            text = f"{text.partition('. Static attributes')[0]}; use nnx.List([...]) or nnx.Dict(...) instead"
        raise ValueError(f"{title_of(cls)}: {' '.join(text.split())}") from error


def label(spec: str | Resolved, given: Mapping[str, Any]) -> str:
    """Return the label of a leaderboard row: `cosformer`, `local(window=64)`, `mega [block]`, `my.py:Mine@1a2b3c4d`.

    It contains the mixer's name, the first eight digits of its file's hash if it is not one of this directory, its
    non-default options, and a mark for a mixer that replaces the whole block.
    """
    mixer = resolve(spec) if isinstance(spec, str) else spec
    check_options(mixer.cls, given)
    valid = options(mixer.cls)
    changed = [f"{name}={given[name]}" for name in valid if name in given and given[name] != valid[name].default]
    name = mixer.name if mixer.sha256 is None else f"{mixer.name}@{mixer.sha256[:8]}"
    block = " [block]" if issubclass(mixer.cls, Block) else ""
    return name + (f"({', '.join(changed)})" if changed else "") + block


def taken(name: str) -> str:
    """Return what to do about a user's package that has the name of one of this project."""
    return (
        f"the name {name} is taken by this project: give your own package another name, or make the folder of the "
        f"mixer a package (with __init__.py) and import relatively, as in `from .{name} import ...`"
    )


def _import(name: str) -> tuple[types.ModuleType, str]:
    """Import a module, and return it with the hash of its file and of the modules of its package that it imports."""
    module = importlib.import_module(name)
    if module.__file__ is None:
        raise ValueError(f"{name} is a folder, not a module: name one of its modules, as in {name}.my_file:MyMixer")
    path = Path(module.__file__).resolve()
    root = path.parents[name.count(".") + (path.stem == "__init__")]
    return module, sha256_of(own_files(name, path, () if root.name in INSTALLED else (root,)))


def _mixer_class(module: types.ModuleType, name: str, spec: str) -> type:
    """Return the class of this name in a module, or its only mixer class if the name is empty."""
    classes = {
        n: c
        for n, c in vars(module).items()
        if inspect.isclass(c) and c.__module__ == module.__name__ and "__call__" in dir(c) and not n.startswith("_")
    }
    listed = ", ".join(classes) or "none"
    if not name and len(classes) != 1:
        raise ValueError(f"mixer {spec!r}: name the class, {spec}:Class; {module.__file__} has {listed}")
    cls = getattr(module, name, None) if name else next(iter(classes.values()))
    if not (inspect.isclass(cls) and callable(getattr(cls, "__call__", None))):  # noqa: B004
        raise ValueError(f"mixer {spec!r}: {module.__file__} has no mixer {name}; it has {listed}")
    parameters = inspect.signature(cls.__call__).parameters
    if "keys" in parameters and "rng_keys" not in parameters:
        raise ValueError(f"mixer {spec!r}: rename the parameter keys of {cls.__name__}.__call__ to rng_keys")
    return cls
