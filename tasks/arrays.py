"""Arrays from `.npz` files, which may come from elsewhere: nothing is unpickled, and no size is believed."""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

_AT_ONCE = 1 << 20  # bytes
# Numpy's own reader takes this for Python, and lets out the errors of Python's tokeniser.
_HEADER = re.compile(
    rb"\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \((|[0-9]+,|[0-9]+(?:, [0-9]+){1,3})\), \} *\n"
)


def read_npz(path: Path, kinds: Mapping[str, Any], most: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The arrays of these names and dtypes, with at most so many elements each; others are not looked at.

    Raises:
      OSError, ValueError: no such file, torn, or its arrays are other ones; the message says which and how.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return {name: _array(file, name, np.dtype(dtype), most[name]) for name, dtype in kinds.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, OverflowError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def _array(file: zipfile.ZipFile, name: str, dtype: np.dtype, most: int) -> np.ndarray:
    member = file.getinfo(f"{name}.npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
        raise ValueError(f"{name} is encrypted or compressed in another way than numpy does it")
    with file.open(member) as stream:
        start = stream.read(10)
        header = _HEADER.fullmatch(stream.read(int.from_bytes(start[8:], "little")))
        if not start.startswith(b"\x93NUMPY\1\0") or header is None:
            raise ValueError(f"{name} does not begin as numpy writes it")
        if (found := header[1].decode("latin-1")) != dtype.str:
            raise ValueError(f"{name} has dtype {found!r}, not {dtype}")
        shape = [int(size) for size in re.findall(rb"[0-9]+", header[3])]
        if math.prod(shape) > most:
            raise ValueError(f"{name} has shape {shape}; {most:,} elements are the most")
        array = np.empty(math.prod(shape), dtype)
        _fill(array, stream, name)
        return array.reshape(shape, order="F" if header[2] == b"True" else "C")


def _fill(array: np.ndarray, stream: IO[bytes], name: str) -> None:
    """Bit by bit: memory that was asked for is taken only when something is written to it."""
    room, done = array.view(np.uint8).data, 0
    while done < array.nbytes:
        part = stream.read(min(_AT_ONCE, array.nbytes - done))
        if not part:
            raise ValueError(f"{name} ends after {done:,} of {array.nbytes:,} bytes")
        room[done : done + len(part)] = part
        done += len(part)
    if stream.read(1):  # the checksum stands at the end as well
        raise ValueError(f"{name} goes on after {done:,} bytes")
