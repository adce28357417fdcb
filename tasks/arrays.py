"""Arrays from `.npz` and `.npy` files of unknown origin: nothing is unpickled, and no claimed size is trusted."""

from __future__ import annotations

import io
import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

_READ_BYTES = 1 << 20  # at a time
# Numpy's own reader parses the header as Python, and lets the errors of Python's tokeniser through.
_HEADER = re.compile(
    rb"\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \((|[0-9]+,|[0-9]+(?:, [0-9]+){1,3})\), \} *\n"
)


def read_npz(path: Path, dtypes: Mapping[str, Any], most: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Return the arrays that are named in `dtypes`; others in the file are ignored.

    Args:
      dtypes: by name of the array
      most: largest number of elements, by name of the array

    Raises:
      OSError, ValueError: there is no such file, it is damaged, or an array has another dtype or too many elements.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return {name: _array(file, name, np.dtype(dtype), most[name]) for name, dtype in dtypes.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, OverflowError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def read_strings(content: bytes) -> list[list[str]]:
    """Return the rows of a `.npy` file with an array of strings, [N, columns] or [N].

    Raises:
      ValueError: the array has another dtype or shape, or the content does not have the size that its header states.
    """
    stream = io.BytesIO(content)
    descr, order, shape = _header(stream, "the array")
    if not re.fullmatch(r"[<>|][SU][1-9][0-9]{0,4}", descr) or len(shape) not in (1, 2):
        raise ValueError(f"an array of dtype {descr!r} and shape {shape}, not of strings")
    dtype, start = np.dtype(descr), stream.tell()
    if math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ValueError(f"an array of {descr} {shape}, which {len(content) - start:,} bytes do not hold")
    strings = np.frombuffer(content, dtype, math.prod(shape), start).reshape(shape, order=order).astype(str)
    return strings.reshape(len(strings), -1).tolist()


def _array(file: zipfile.ZipFile, name: str, dtype: np.dtype, most: int) -> np.ndarray:
    member = file.getinfo(f"{name}.npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
        raise ValueError(f"{name} is encrypted, or compressed by a method that numpy does not write")
    with file.open(member) as stream:
        actual, order, shape = _header(stream, name)
        if actual != dtype.str:
            raise ValueError(f"{name} has dtype {actual!r}, not {dtype}")
        if math.prod(shape) > most:
            raise ValueError(f"{name} has shape {shape}, more than {most:,} elements")
        array = np.empty(math.prod(shape), dtype)
        _fill(array, stream, name)
        return array.reshape(shape, order=order)


def _header(stream: IO[bytes], name: str) -> tuple[str, Literal["C", "F"], list[int]]:
    """Return dtype, order and shape of an array, which follows in the stream."""
    start = stream.read(10)
    header = _HEADER.fullmatch(stream.read(int.from_bytes(start[8:], "little")))
    if not start.startswith(b"\x93NUMPY\1\0") or header is None:
        raise ValueError(f"{name} does not have the header that numpy writes")
    shape = [int(size) for size in re.findall(rb"[0-9]+", header[3])]
    return header[1].decode("latin-1"), "F" if header[2] == b"True" else "C", shape


def _fill(array: np.ndarray, stream: IO[bytes], name: str) -> None:
    """Read an array in parts: the system allocates memory only where something has been written to it."""
    buffer, done = array.view(np.uint8).data, 0
    while done < array.nbytes:
        part = stream.read(min(_READ_BYTES, array.nbytes - done))
        if not part:
            raise ValueError(f"{name} ends after {done:,} of {array.nbytes:,} bytes")
        buffer[done : done + len(part)] = part
        done += len(part)
    if stream.read(1):  # also reads the checksum, which follows the content
        raise ValueError(f"{name} continues after {done:,} bytes")
