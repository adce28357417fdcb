"""What a Python file computes, as one hash: of its syntax tree, without comments, formatting and docstrings.

The text that is hashed is written here and not by `ast.dump`, whose form changes with the version of Python.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any, NamedTuple

from models.user_files import Import

# `ctx` follows from where a name is, `kind` says only that a string was written u"...".
UNUSED = {"ctx", "kind", "type_comment", "type_ignores"}


class Syntax(NamedTuple):
    """A file's hash, and what it imports, anywhere in it."""

    sha256: str
    imports: tuple[Import, ...]


@lru_cache(maxsize=1024)
def syntax(source: bytes, definition: str = "") -> Syntax:
    """Return the hash and the imports of a file, or of one class or function at its top level.

    Raises:
      SyntaxError, ValueError: the file is not Python, or has no such definition.
    """
    tree: ast.AST = ast.parse(source)
    if definition:
        found = [node for node in ast.iter_child_nodes(tree) if getattr(node, "name", "") == definition]
        if len(found) != 1:
            raise ValueError(f"{len(found)} definitions of {definition}, not one")
        tree = found[0]
    parts: list[str] = []
    imports: list[Import] = []
    _write(tree, parts, imports)
    return Syntax(hashlib.sha256("".join(parts).encode()).hexdigest(), tuple(imports))


def _write(node: ast.AST, parts: list[str], imports: list[Import]) -> None:
    """Append the text of a node to `parts`: its class, and its fields that are neither empty nor unused."""
    if isinstance(node, ast.Constant):
        parts.append(_constant(node.value))
        return
    if isinstance(node, ast.JoinedStr):
        node = ast.JoinedStr(_joined(node.values))
    elif isinstance(node, ast.Import):
        imports += [(0, alias.name, ()) for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        imports.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
    begin, fields = _form(type(node).__name__, node._fields)
    parts.append(begin)
    for name, label in fields:
        value = getattr(node, name, None)
        if value is None or value == []:
            continue
        parts.append(label)
        if isinstance(value, ast.AST):
            _write(value, parts, imports)
        elif not isinstance(value, list):
            parts.append(_constant(value))
        else:
            for item in value:
                if not isinstance(item, ast.AST):
                    parts.append(_constant(item))
                elif not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant)):
                    _write(item, parts, imports)  # a constant as a statement is a docstring, or does nothing
    parts.append(")")


@cache
def _form(kind: str, fields: tuple[str, ...]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return how the text of a node of this class begins, and the fields that count with their labels."""
    return f"({kind}", tuple((name, f" {name}=") for name in fields if name not in UNUSED)


def _constant(value: Any) -> str:
    """Return a constant with its type: 1, 1.0, True and "1" differ."""
    # `repr` of a string depends on the characters that a version of Python takes for printable.
    text = json.dumps(value) if isinstance(value, str) else repr(value)
    return f"[{type(value).__name__}:{text}]"


def _joined(values: Iterable[ast.expr]) -> list[ast.expr]:
    """Return the parts of an f-string with neighbouring texts as one, as some versions of Python leave them apart."""
    joined: list[ast.expr] = []
    for value in values:
        if isinstance(value, ast.Constant) and joined and isinstance(joined[-1], ast.Constant):
            joined[-1] = ast.Constant(str(joined[-1].value) + str(value.value))
        elif not (isinstance(value, ast.Constant) and value.value == ""):
            joined.append(value)
    return joined
