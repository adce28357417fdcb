"""Mixers, one file each. The file's name is the mixer's name; there is no other list.

A mixer is named in one of three ways:

    cosformer                  a file of this folder
    package.module:MyMixer     a class that can be imported
    path/my_file.py:MyMixer    a class in a file of yours, from any directory

Without `:MyMixer` the class is found by convention: the one public class defined in the module that has `__call__`.

A module may state two facts about itself:

    COMPLEXITY = ("L", "L")    how its time and memory grow with the length
    VERSION = 2                to be raised when the same name and options compute something else than before: results
                               of different versions are not compared. A module without it has version 1.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flax import nnx

from models.core import Block, Dims, Mixer
from models.mixer_files import available as available
from models.mixer_files import checked_version
from models.mixer_files import version_of as version_of

FORMS = "a mixer is one of {names}, or package.module:Class, or path/my_file.py:Class"


@dataclasses.dataclass(frozen=True)
class Resolved:
    """A mixer's class and what a record says about it.

    name:       as rows name it: `cosformer`, `package.module:Class` or `my_file.py:Class`
    spec:       what finds it from any directory: a file of yours by its whole path
    complexity: growth of time and memory that its file claims, None if it claims nothing
    sha256:     of its file, where it is not a file of this folder
    version:    of what it computes, 1 if its file says nothing
    """

    name: str
    spec: str
    cls: type
    complexity: tuple[str, str] | None
    sha256: str | None
    version: int = 1


class Option(typing.NamedTuple):
    annotation: Any
    default: Any


def resolve(spec: str) -> Resolved:
    """Finds a mixer by name.

    Raises:
      ValueError: there is no such mixer, file, module or class; the message lists what there is.
    """
    if spec in available():
        module = importlib.import_module(f"{__name__}.{spec}")
        return _of_this_folder(spec, module, _mixer_class(module, "", spec))
    place, _, class_name = spec.rpartition(":") if ":" in spec else (spec, "", "")
    forms = FORMS.format(names=", ".join(available()))
    if place.endswith(".py"):
        path = Path(place).expanduser()
        if not path.is_file():
            raise ValueError(f"mixer {spec!r}: there is no file {path.absolute()}; {forms}")
        module = _load(path)
        place, name = str(path.resolve()), path.name
    elif class_name:
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{place}.".startswith(f"{error.name}."):
                raise  # the module is there; something that it imports is not
            raise ValueError(f"mixer {spec!r}: there is no module {place}; {forms}") from error
        name = place
    else:
        raise ValueError(f"unknown mixer {spec!r}; {forms}")
    cls = _mixer_class(module, class_name, spec)
    parameters = inspect.signature(cls.__call__).parameters
    if "keys" in parameters and "rng_keys" not in parameters:
        raise ValueError(f"mixer {spec!r}: rename the parameter keys of {cls.__name__}.__call__ to rng_keys")
    source = Path(str(module.__file__))
    if source.resolve().parent == Path(__file__).resolve().parent:
        return _of_this_folder(source.stem, module, cls)
    return Resolved(
        name=f"{name}:{cls.__name__}",
        spec=f"{place}:{cls.__name__}",
        cls=cls,
        complexity=getattr(module, "COMPLEXITY", None),
        sha256=hashlib.sha256(source.read_bytes()).hexdigest(),
        version=checked_version(getattr(module, "VERSION", 1), source.name),
    )


def _of_this_folder(name: str, module: types.ModuleType, cls: type) -> Resolved:
    return Resolved(name, name, cls, getattr(module, "COMPLEXITY", None), None, version_of(name))


def options(cls: type) -> dict[str, Option]:
    """The options of a mixer: its constructor's keywords but `dims` and `rngs`."""
    hints = typing.get_type_hints(cls.__init__)  # type: ignore[misc]
    found = {}
    for name, parameter in inspect.signature(cls.__init__).parameters.items():  # type: ignore[misc]
        if name in ("self", "dims", "rngs"):
            continue
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or parameter.default is parameter.empty:
            raise TypeError(f"{cls.__name__}: constructor argument {name} must be a keyword with a default")
        found[name] = Option(hints.get(name, type(parameter.default)), parameter.default)
    return found


def check_options(cls: type, given: Mapping[str, Any]) -> None:
    """Raises ValueError for an option that the constructor does not have, listing those that it has."""
    valid = options(cls)
    for name in given:
        if name not in valid:
            listed = ", ".join(f"{n}={o.default}" for n, o in valid.items()) or "none"
            raise ValueError(f"{cls.__name__} has no option {name!r}; its options: {listed}")


def parse_options(cls: type, texts: Sequence[str]) -> dict[str, Any]:
    """["window=64", ...] of the command line, converted by the annotations of the constructor.

    Raises:
      ValueError: not of the form name=value, an unknown name, or a value of another type.
    """
    valid = options(cls)
    parsed: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text!r} is not an option of the form name=value")
        check_options(cls, {name: value})
        try:
            parsed[name] = _convert(value, valid[name].annotation)
        except ValueError as error:
            raise ValueError(f"{cls.__name__}: option {name}={value}: {error}") from None
    return parsed


def build(cls: type, dims: Dims, given: Mapping[str, Any], rngs: nnx.Rngs) -> Mixer:
    """One mixer with these options.

    Raises:
      ValueError: an option that the constructor does not have.
    """
    check_options(cls, given)
    return cls(dims, **given, rngs=rngs)


def label(spec: str | Resolved, given: Mapping[str, Any]) -> str:
    """The name of a row: the mixer, its non-default options, and eight digits of the file's hash when it is yours.

    What stands in the place of the encoder's whole block says so.
    """
    mixer = resolve(spec) if isinstance(spec, str) else spec
    check_options(mixer.cls, given)
    valid = options(mixer.cls)
    changed = [f"{name}={given[name]}" for name in valid if name in given and given[name] != valid[name].default]
    name = mixer.name if mixer.sha256 is None else f"{mixer.name}@{mixer.sha256[:8]}"
    block = " [block]" if issubclass(mixer.cls, Block) else ""
    return name + (f"({', '.join(changed)})" if changed else "") + block


def _load(path: Path) -> types.ModuleType:
    """Runs a file once per content; its name among the modules is the hash of both."""
    digest = hashlib.sha256(str(path.resolve()).encode() + path.read_bytes()).hexdigest()
    name = f"mixer_{path.stem}_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, path.resolve())
    if found is None or found.loader is None:
        raise ValueError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _mixer_class(module: types.ModuleType, name: str, spec: str) -> type:
    here = {
        n: c
        for n, c in vars(module).items()
        if inspect.isclass(c) and c.__module__ == module.__name__ and "__call__" in dir(c) and not n.startswith("_")
    }
    if name:
        found = getattr(module, name, None)
        if inspect.isclass(found) and callable(getattr(found, "__call__", None)):  # noqa: B004
            return found
        raise ValueError(f"mixer {spec!r}: {module.__file__} has no mixer {name}; it has {', '.join(here) or 'none'}")
    if len(here) != 1:
        listed = ", ".join(here) or "none"
        raise ValueError(f"mixer {spec!r}: name the class, {spec}:Class; {module.__file__} has {listed}")
    return next(iter(here.values()))


def _convert(text: str, annotation: Any) -> Any:
    """The value that a text means for an annotation: int, float, bool, str, None, Literal, tuple[T, ...], a union."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        for arg in sorted(args, key=lambda a: a is str):  # str takes everything: last
            try:
                return _convert(text, arg)
            except ValueError:
                continue
        raise ValueError(f"not one of {', '.join(getattr(a, '__name__', str(a)) for a in args)}")
    if origin is typing.Literal:
        for choice in args:
            if str(choice) == text:
                return choice
        raise ValueError(f"not one of {', '.join(map(str, args))}")
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return tuple(_convert(part.strip(), args[0]) for part in text.split(",") if part.strip())
    if annotation is type(None):
        if text.lower() == "none":
            return None
        raise ValueError("not none")
    if annotation is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise ValueError("not true or false")
    if annotation in (int, float, str):
        try:
            return annotation(text)
        except ValueError:
            raise ValueError(f"not {'an int' if annotation is int else 'a float'}") from None
    raise ValueError(f"a value of type {annotation} cannot be given as text")
