"""From fuzzed bytes to files whose checksums are right: what is mutated is the content, not the armour around it."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SEPARATOR = b"\n\xff\xfe\n"  # between the files of one input


def joined(*files: bytes) -> bytes:
    return SEPARATOR.join(files)


def parted(data: bytes, count: int) -> list[bytes]:
    """The files of an input, exactly `count`; those that are missing are empty."""
    found = data.split(SEPARATOR, count - 1)
    return found + [b""] * (count - len(found))


def tar(files: Mapping[str, bytes], format: int = tarfile.USTAR_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=format) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        end = archive.offset + 2 * tarfile.BLOCKSIZE  # it would be filled up to 10,240
    return packed.getvalue()[:end]


def archive(data: bytes) -> bytes:
    """Blocks of a tar, with the checksum of every header mended, as .tar.gz; what is gzip already stays as it is."""
    if data.startswith(b"\x1f\x8b"):
        return data
    blocks = bytearray(data)
    for start in range(0, len(blocks) - 511, 512):
        if blocks[start + 257 : start + 262] == b"ustar":
            blocks[start + 148 : start + 156] = b" " * 8
            blocks[start + 148 : start + 156] = b"%06o\0 " % sum(blocks[start : start + 512])
    return gzip.compress(bytes(blocks), 1)


def npz(members: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return packed.getvalue()


def npy(array: np.ndarray) -> bytes:
    written = io.BytesIO()
    np.lib.format.write_array(written, array)
    return written.getvalue()


def png(data: bytes) -> bytes:
    """A PNG of chunks, a kind of four bytes and a content each, parted by `|`; IDAT is compressed here."""
    made = [b"\x89PNG\r\n\x1a\n"]
    for chunk in data.split(b"|"):
        kind, content = chunk[:4].ljust(4, b"?"), chunk[4:]
        if kind == b"IDAT":
            content = zlib.compress(content)
        made.append(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content)))
    return b"".join(made)


def header(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    return b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


def patched(base: Mapping[str, Any], data: bytes) -> bytes:
    """A JSON object with places replaced: each line is a dotted path and a value, or a path alone, which is deleted.

    What begins like JSON stays as it is.
    """
    if data[:1] in (b"{", b"[", b'"', b""):
        return data
    changed = json.loads(json.dumps(base))
    for line in data.decode("utf-8", "replace").split("\n"):
        place, _, text = line.partition(" ")
        _put(changed, place.split("."), text)
    return json.dumps(changed).encode()


def _put(inside: Any, names: Sequence[str], text: str) -> None:
    for name in names[:-1]:
        inside = inside.get(name) if isinstance(inside, dict) else None
    if not isinstance(inside, dict):
        return
    try:
        inside[names[-1]] = json.loads(text)
    except (ValueError, RecursionError):
        inside.pop(names[-1], None)
