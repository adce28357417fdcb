"""Import of a user's mixer file with the files of its folder.

Modules from the file's folders are not entered into `sys.modules`. Each version of a mixer has its own modules, so
edited helpers are read again, and helpers of the same name in two folders do not meet.
"""

from __future__ import annotations

import builtins
import importlib.util
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any

from models.user_files import module_of, own_file, own_files, sha256_of

_loaded: dict[Path, tuple[str, types.ModuleType]] = {}  # by file: hash of the mixer's files, module
_lock = threading.RLock()


def load(path: Path) -> tuple[types.ModuleType, str]:
    """Return the module of a mixer's file and the hash of all its files; execute them again if one has changed.

    Raises:
      ValueError: the file, or one that it imports, is not Python.
    """
    path = path.resolve()
    name, folders = module_of(path)
    with _lock:
        digest = sha256_of(own_files(name, path, folders))
        if (known := _loaded.get(path)) is None or known[0] != digest:
            try:
                known = _loaded[path] = digest, _Importer(folders).main(name, path)
            except SyntaxError as error:
                raise ValueError(f"{error.filename or path}, line {error.lineno}: {error.msg}") from error
    return known[1], digest


class _Importer:
    """The import system of one version of a mixer: `importer(...)` is the `__import__` of its modules."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self.modules: dict[str, types.ModuleType] = {}
        self._top = ""  # what is imported now; what installed packages import then is not looked up in the folders
        self.builtins = {**vars(builtins), "__import__": self}

    def main(self, name: str, path: Path) -> types.ModuleType:
        """Execute the mixer's file after the packages that contain it."""
        if package := name.rpartition(".")[0]:
            self(package)
            if name in self.modules:  # the package imports it
                return self.modules[name]
        spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, str(path), self))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        with self._visible(name.partition(".")[0]):
            sys.modules[name] = module
            spec.loader.exec_module(module)
        return module

    def __call__(
        self, name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> types.ModuleType:
        package = (globals or {}).get("__package__") or ""
        top = (package if level else name).partition(".")[0]
        if not top or own_file(self.folders, top) is None:
            return builtins.__import__(name, globals, locals, fromlist, level)
        with self._visible(top):
            return builtins.__import__(name, globals, locals, fromlist, level)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find a module in the folders of the mixer."""
        found = own_file(self.folders, name) if name.partition(".")[0] == self._top else None
        if found is None:
            return None
        if found.is_dir():
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [str(found)]
            return spec
        return importlib.util.spec_from_file_location(name, found, loader=_Loader(name, str(found), self))

    @contextmanager
    def _visible(self, top: str) -> Iterator[None]:
        """Let `sys.modules` contain the mixer's modules below `top` instead of others of these names."""

        def below() -> dict[str, types.ModuleType]:
            return {n: m for n, m in list(sys.modules.items()) if n == top or n.startswith(f"{top}.")}

        with _lock:
            others = below()
            for name in others:
                del sys.modules[name]
            sys.modules.update({n: m for n, m in self.modules.items() if n.partition(".")[0] == top})
            outer, self._top = self._top, top
            sys.meta_path.insert(0, self)
            try:
                yield
            finally:
                sys.meta_path.remove(self)
                self._top = outer
                own = below()
                self.modules.update(own)
                for name in own:
                    del sys.modules[name]
                sys.modules.update(others)


class _Loader(SourceFileLoader):
    """A loader whose modules import by an `_Importer`, and which does not use cached bytecode.

    Cached bytecode is looked up by size and time in seconds, so a quick edit would not be seen.
    """

    def __init__(self, name: str, path: str, importer: _Importer) -> None:
        super().__init__(name, path)
        self._importer = importer

    def path_stats(self, path: Any) -> Any:
        raise OSError("no bytecode")

    def exec_module(self, module: types.ModuleType) -> None:
        vars(module)["__builtins__"] = self._importer.builtins
        self._importer.modules[module.__name__] = module
        try:
            super().exec_module(module)
        except BaseException:
            self._importer.modules.pop(module.__name__, None)
            raise
