"""The batches of CIFAR-10's Python version: pickles of protocol 2, written by Python 2.

A pickle is a program. The reader here can build lists, dictionaries, tuples, integers and strings, and one kind of
object, an array of bytes. It imports and calls nothing: what would be a call is kept as its name and its state.
"""

from __future__ import annotations

import dataclasses
import pickletools
from typing import Any

_ARRAY, _TYPE = "numpy.core.multiarray _reconstruct", "numpy dtype"
_NAMES = (_ARRAY, _TYPE, "numpy ndarray")
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


@dataclasses.dataclass
class _Name:
    """What Python would import."""

    name: str


@dataclasses.dataclass
class _Object:
    """What Python would make by calling `name`."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


def to_binary(content: bytes, pixels: int) -> bytes:
    """Return a batch in the binary version: for each image its label and its bytes.

    Args:
      pixels: bytes of an image

    Raises:
      ValueError: the content is not such a pickle, or does not have a label for each image.
    """
    try:
        batch = _load(content)
        labels, array = bytes([*batch[b"labels"]]), batch[b"data"]
        _, shape, kind, by_columns, rows = array.state
        if (array.name, kind.name, kind.arguments[0], by_columns) != (_ARRAY, _TYPE, b"u1", False):
            raise ValueError("its images are not an array of bytes, row by row")
        if shape != (len(labels), pixels) or len(rows) != len(labels) * pixels:
            raise ValueError(f"{len(labels):,} labels, {len(rows):,} bytes of images of shape {shape}")
        images = (bytes(rows[i * pixels : (i + 1) * pixels]) for i in range(len(labels)))
        return b"".join(part for label, image in zip(labels, images, strict=True) for part in (bytes([label]), image))
    except Exception as error:  # a damaged pickle raises errors of any type
        raise ValueError(f"not readable as a batch of CIFAR-10 for Python ({type(error).__name__}: {error})") from error


def _load(content: bytes) -> Any:
    """Return the value of a pickle: its lists, dictionaries, tuples, integers, `bytes` and `_Object`s."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        values = stack[start:]
        del stack[start:]
        return values

    argument: Any
    for opcode, argument, position in pickletools.genops(content):
        match opcode.name:
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "BININT" | "BININT1" | "BININT2" | "BINUNICODE":
                stack.append(argument)
            case "BINSTRING" | "SHORT_BINSTRING":
                stack.append(argument.encode("latin-1"))
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                stack.append(_CONSTANTS[opcode.name])
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(opcode.name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "APPEND" | "APPENDS":
                values = since_mark() if opcode.name == "APPENDS" else [stack.pop()]
                stack[-1].extend(values)
            case "SETITEM" | "SETITEMS":
                values = since_mark() if opcode.name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                stack[-1].update(zip(values[::2], values[1::2], strict=True))
            case "GLOBAL" if argument in _NAMES:
                stack.append(_Name(argument))
            case "REDUCE":
                arguments, called = stack.pop(), stack.pop()
                stack.append(_Object(called.name, arguments))
            case "BUILD":
                state = stack.pop()
                stack[-1].state = state
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case _:
                raise ValueError(f"{opcode.name} {argument or ''} at byte {position} is not admitted")
    raise ValueError("it has no end")
