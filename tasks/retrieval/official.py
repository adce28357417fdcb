"""LRA's files of Retrieval, in a directory or in a `.tar.gz` that is streamed and never unpacked.

There are two layouts:

    new_aan_pairs.{train,eval,test}.tsv           label, id1, id2, text1, text2; the texts are Python bytes literals
    new_aan_pairs.{train,eval,test}.only_ids.tsv  label, id1, id2; the texts are papers_text/ID.txt, as they are

The first is used where it is complete. A literal is the beginning of its paper's text, so both give the same pairs as
long as the literals have `max_bytes`.
"""

from __future__ import annotations

import dataclasses
import os
import re
from array import array
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from tasks import archives
from tasks.core import OFFICIAL, SPLITS, Progress
from tasks.errors import DataError
from tasks.origins import Origin, folders
from tasks.retrieval.bytes_literal import bytes_literal, excerpt

MAX_BYTES = 4096  # LRA reads 4,000
MAX_ROW_BYTES = 1 << 27  # in a longer row, the line ends have been lost
OBTAIN = (
    "LRA's release (https://storage.googleapis.com/long-range-arena/lra_release.gz, 7.7 GB; where it is refused, "
    "docs/data.md names others) holds them in lra_release/tsv_data: put the three new_aan_pairs.{train,eval,test}.tsv, "
    "or a .tar.gz of them whose name holds 'aan', into the data directory or its folder aan/ or retrieval/"
)

Pairs = dict[str, tuple[np.ndarray, np.ndarray]]  # by split: labels uint8 [N], and indices of two texts int32 [N, 2]

_FOLDERS = ("aan", "aan_mini", "tsv_data", "retrieval", "aan/tsv_data", "retrieval/tsv_data")
_ARCHIVES = ("aan.tar.gz", "*aan*.tar.gz", "lra_release*.gz")
_FILE = {"train": "new_aan_pairs.train", "validation": "new_aan_pairs.eval", "test": "new_aan_pairs.test"}
_WITH_TEXT = {f"{name}.tsv": split for split, name in _FILE.items()}
_ONLY_IDS = {f"{name}.only_ids.tsv": split for split, name in _FILE.items()}

_LABELS = {b"0.0": 0, b"1.0": 1}
_ID = re.compile(rb"[^./\\\0- ][^/\\\0- ]*")  # names a file in papers_text: no separators, no hidden names


def locate(data_dir: Path, variant: str = "full", source: str = OFFICIAL) -> list[Origin]:
    """Return the directories with the pairs, then the archives: reading a directory is faster."""
    if source != OFFICIAL:
        return []
    places = folders(data_dir, *_FOLDERS)
    found = []
    for place in places:
        present = Origin(place, (*_WITH_TEXT, *_ONLY_IDS)).files()
        if present:
            complete = all(name in present for name in _WITH_TEXT)
            found.append(Origin(place, (*_WITH_TEXT,) if complete else (*_WITH_TEXT, *_ONLY_IDS, "papers_text/*.txt")))
    archive_names = ((place, name) for place in places for p in _ARCHIVES for name in Origin(place, (p,)).files())
    return found + [Origin(path) for path in dict.fromkeys(place / name for place, name in archive_names)]


def source_origin(data_dir: Path) -> Origin:
    """Return the first that `locate` returns.

    Raises:
      DataError: there is neither a directory nor an archive with the pairs.
    """
    if not (found := locate(data_dir)):
        raise DataError(
            f"retrieval: neither {', '.join(_WITH_TEXT)} (nor *.only_ids.tsv) nor {', '.join(_ARCHIVES)} in {data_dir} "
            f"or its folders {', '.join(_FOLDERS)}. {OBTAIN}"
        )
    return found[0]


@dataclasses.dataclass
class _Contents:
    """What has been read so far.

    index:     number of each distinct text
    papers:    number of a paper's text, by the id of a file in papers_text
    with_text: by split: label, text, text, label, text, text, ...
    only_ids:  by split: (label, id, id) of each row
    names:     where each file was, by its name
    """

    index: dict[bytes, int] = dataclasses.field(default_factory=dict)
    papers: dict[bytes, int] = dataclasses.field(default_factory=dict)
    with_text: dict[str, array[int]] = dataclasses.field(default_factory=dict)
    only_ids: dict[str, list[tuple[int, bytes, bytes]]] = dataclasses.field(default_factory=dict)
    names: dict[str, str] = dataclasses.field(default_factory=dict)

    def number(self, text: bytes) -> int:
        return self.index.setdefault(text, len(self.index))


def read_pairs(origin: Origin, progress: Progress) -> tuple[list[bytes], Pairs]:
    """Return the distinct texts, and the pairs of each split, of a directory or an archive.

    Raises:
      DataError: a file is missing or invalid; the message names it, and the row and column where there is one.
    """
    contents = _Contents()
    try:
        for where, path, stream, size in _members(origin):
            _read_member(contents, where, path, stream, size, progress)
    except archives.READ_ERRORS as error:
        raise DataError(f"{origin.path}: not readable ({error}); fetch or unpack it again") from error
    flat = contents.with_text if set(contents.with_text) == set(SPLITS) else _join_papers(contents, origin.path)
    rows = {split: np.frombuffer(flat[split], np.int32).reshape(-1, 3) for split in SPLITS}
    return list(contents.index), {split: (r[:, 0].astype(np.uint8), r[:, 1:]) for split, r in rows.items()}


def _members(origin: Origin) -> Iterator[tuple[str, PurePosixPath, IO[bytes], int]]:
    """Yield (location for messages, path inside the origin, stream, bytes) of each file that may be needed."""
    if origin.path.is_dir():
        for name, state in origin.files().items():
            with (origin.path / name).open("rb") as stream:
                yield str(origin.path / name), PurePosixPath(name), stream, state.size
        return
    for member, file in archives.walk(origin.path, "this is not a copy of AAN: fetch it again"):
        if file is not None:
            yield f"{origin.path}: {member.name}", PurePosixPath(member.name), file, member.size


def _read_member(
    contents: _Contents, where: str, path: PurePosixPath, stream: IO[bytes], size: int, progress: Progress
) -> None:
    name = path.name
    if path.parent.name == "papers_text" and path.suffix == ".txt" and not name.startswith("."):
        _register(contents, f"papers_text/{name}", where)
        contents.papers[os.fsencode(path.stem)] = contents.number(stream.read(MAX_BYTES))
        if len(contents.papers) % 1000 == 0:
            progress("reading papers_text", len(contents.papers), 0)
    elif split := _WITH_TEXT.get(name):
        _register(contents, name, where)
        flat = contents.with_text.setdefault(split, array("i"))
        for at, (label, _, _, *literals) in _rows(where, stream, 5, size, progress):
            flat.append(label)
            for column, literal in zip((4, 5), literals, strict=True):
                try:
                    flat.append(contents.number(bytes_literal(literal, MAX_BYTES)))
                except ValueError as error:
                    raise DataError(f"{at}, column {column}: {error}") from error
    elif split := _ONLY_IDS.get(name):
        _register(contents, name, where)
        ids: dict[bytes, bytes] = {}  # one object per id, not per row
        contents.only_ids[split] = [
            (label, ids.setdefault(a, a), ids.setdefault(b, b))
            for _, (label, a, b) in _rows(where, stream, 3, size, progress)
        ]


def _register(contents: _Contents, name: str, where: str) -> None:
    """Record that a file has been read; a second one of the same name is an error."""
    if name in contents.names:
        raise DataError(f"{where}: {name} is there twice (also {contents.names[name]}); keep one")
    contents.names[name] = where


def _rows(
    where: str, stream: IO[bytes], columns: int, size: int, progress: Progress
) -> Iterator[tuple[str, list[Any]]]:
    """Yield (file and row, fields) of a TSV file; the label is an int and the ids are checked. The first row is 1."""
    done = row = 0
    while line := stream.readline(MAX_ROW_BYTES):
        row, done = row + 1, done + len(line)
        at = f"{where} row {row}"
        if len(line) == MAX_ROW_BYTES:
            raise DataError(f"{at}: longer than {MAX_ROW_BYTES:,} bytes; one pair per row is expected")
        fields: list[Any] = line.removesuffix(b"\n").removesuffix(b"\r").split(b"\t")
        if len(fields) != columns:
            raise DataError(f"{at}: {len(fields)} tab-separated columns, not {columns}; fetch the file again")
        if fields[0] not in _LABELS:
            raise DataError(f"{at}, column 1: label {excerpt(fields[0])} is neither 0.0 nor 1.0")
        for column in (1, 2):
            if not _ID.fullmatch(fields[column]):
                raise DataError(f"{at}, column {column + 1}: {excerpt(fields[column])} is not a paper id")
        fields[0] = _LABELS[fields[0]]
        yield at, fields
        if row % 500 == 0:
            progress(f"reading {PurePosixPath(where).name}", done, size)
    if row == 0:
        raise DataError(f"{where}: the file is empty; fetch it again")


def _join_papers(contents: _Contents, origin: Path) -> dict[str, array[int]]:
    """Return the pairs of the `only_ids` files with the texts of papers_text: label, text, text, label, ..."""
    flat = {}
    for name, split in _ONLY_IDS.items():
        if split not in contents.only_ids:
            absent = [n for n in _WITH_TEXT if n not in contents.names]
            raise DataError(f"{origin}: no {', '.join(absent)}, and no {name} instead. {OBTAIN}")
        flat[split] = array("i")
        for row, (label, *ids) in enumerate(contents.only_ids[split], 1):
            for paper in ids:
                if paper not in contents.papers:
                    path = f"papers_text/{paper.decode(errors='replace')}.txt"
                    raise DataError(f"{contents.names[name]} row {row}: no {path} in {origin}; unpack the papers again")
            flat[split].extend((label, *(contents.papers[paper] for paper in ids)))
    return flat
