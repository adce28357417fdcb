"""The files of a user's mixer, found without importing them: which module means which file, and what a file imports.

The modules of a mixer's file are found in its own folder first, and in the folder that contains its package. So a
helper file in the mixer's folder needs no PYTHONPATH, and two folders may have helpers of the same name.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path

TAKEN = ("configs", "lra", "models", "tasks")  # packages of this project; a user's package cannot have their names
INSTALLED = ("site-packages", "dist-packages")  # folders in which every entry is another project
COPIES = "mixer_sources"  # folder in a run's directory with copies of the mixer's files; modules are found from it

Import = tuple[int, str, tuple[str, ...]]  # level of a relative import, module, names in it


def module_of(path: Path) -> tuple[str, tuple[Path, ...]]:
    """Return the name of a file as a module, and the folders in which its imports are looked up first.

    A file in a package (a folder with `__init__.py`) has the name of the package before its own.
    """
    folder = path.parent
    root = next((parent for parent in path.parents if parent.name == COPIES), None)
    if root is None:
        root = folder
        while (root / "__init__.py").is_file() and root.name.isidentifier():
            root = root.parent
    parts = [*folder.relative_to(root).parts, *([] if path.stem == "__init__" else [path.stem.replace(".", "_")])]
    return ".".join(parts), () if root.name in INSTALLED else tuple(dict.fromkeys((folder, root)))


def own_file(folders: Sequence[Path], module: str) -> Path | None:
    """Return the file of a module in these folders, or its directory if it is a package without `__init__.py`.

    None: the module is not there, is of the standard library, or has a name of this project.
    """
    top, *rest = module.split(".")
    if top in TAKEN or top in sys.stdlib_module_names:
        return None
    for folder in folders:
        if found := file_in(folder, [top, *rest]):
            return found
    for folder in folders:  # an installed package takes precedence over a folder that has only its name
        if (folder / top).is_dir() and (rest or (spec := PathFinder.find_spec(top)) is None or spec.loader is None):
            path = folder.joinpath(top, *rest)
            return path if path.is_dir() else None
    return None


def file_in(folder: Path, parts: Sequence[str]) -> Path | None:
    """Return the file of a module below a folder, which is a package's `__init__.py` or a plain file."""
    path = folder.joinpath(*parts)
    files = (path / "__init__.py", path.parent / f"{path.name}.py")
    return next((file for file in files if file.is_file()), None)


def imported_names(imports: Iterable[Import], module: str, *, is_package: bool) -> Iterator[str]:
    """Yield the names of all modules that imports of a module may mean, each after the packages that contain it.

    The module itself and its packages come first.
    """
    package = module if is_package else module.rpartition(".")[0]
    names = [module]
    for level, base, inside in imports:
        if level:
            around = package.split(".")[: package.count(".") + 2 - level]
            base = ".".join([*around, *([base] if base else [])])
        names += [base, *(f"{base}.{name}" for name in inside)]
    parents = (name.split(".") for name in names if name and not name.startswith("."))
    yield from dict.fromkeys(".".join(parts[:n]) for parts in parents for n in range(1, len(parts) + 1))


def own_files(module: str, path: Path, folders: Sequence[Path]) -> dict[str, Path]:
    """Return a mixer's file and all files that it imports from these folders, directly or through others, by module."""
    files = {module: path}
    waiting = [module]
    while waiting:
        module = waiting.pop()
        path = files[module]
        for name in imported_names(_imports(path.read_bytes()), module, is_package=path.stem == "__init__"):
            if name not in files and (found := own_file(folders, name)) is not None and found.is_file():
                files[name] = found
                waiting.append(name)
    return files


def sha256_of(files: dict[str, Path]) -> str:
    """Return the hash of a mixer's files: of the content of a single file, else of all names and contents."""
    contents = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    if len(contents) == 1:
        return next(iter(contents.values()))
    return hashlib.sha256("".join(f"{name}:{contents[name]}\n" for name in sorted(contents)).encode()).hexdigest()


@lru_cache(maxsize=256)
def _imports(source: bytes) -> tuple[Import, ...]:
    """Return the imports anywhere in a file; none if it is not Python, which its import reports."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return ()
    return tuple(
        [(0, alias.name, ()) for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        + [
            (node.level, node.module or "", tuple(alias.name for alias in node.names))
            for node in nodes
            if isinstance(node, ast.ImportFrom)
        ]
    )
