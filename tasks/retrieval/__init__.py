"""Retrieval: does one paper cite the other? Pairs of ACL Anthology papers (AAN), read byte by byte.

Two layouts of LRA's release are read, as a directory or from a `.tar.gz` that is streamed and never unpacked:

    new_aan_pairs.{train,eval,test}.tsv           label, id1, id2, text1, text2; the texts are Python bytes literals
    new_aan_pairs.{train,eval,test}.only_ids.tsv  label, id1, id2; the texts are papers_text/ID.txt, as they are

Where both are whole, the first is used. A literal is the beginning of its paper's text, so both give the
same pairs as long as the literals hold `max_bytes`.

LRA's own pipeline (lra_benchmarks/matching/input_pipeline.py) feeds the *source text* of the literals: `b'`
first, and four characters for a byte such as `\\xef`. Here the literals are decoded.

A document is known by its content, not by its id: the text of the row is what a model is to read. An id with
two texts makes two documents, two ids with one text make one, and neither changes an example.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from array import array
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from tasks import archives, core
from tasks.core import OFFICIAL, SAMPLE, SPLITS, Built, Card, Progress, Split, Variant, check_request
from tasks.errors import DataError
from tasks.retrieval.bytes_literal import bytes_literal, excerpt
from tasks.retrieval.sample import sample_pairs

MAX_BYTES = 4096  # LRA reads 4,000
MAX_ROW_BYTES = 1 << 27  # a longer row is not one: its line ends are lost
CUT_PAIRS = {"train": 30_000, "validation": 1_000, "test": 1_000}

CARD = Card(
    name="retrieval",
    title="Retrieval (AAN)",
    about="Byte-level matching of two documents: does one ACL Anthology paper cite the other?",
    version=1,
    tokenizer="bytes of both documents, each truncated on its own",
    vocab_size=257,
    classes=("not cited", "cited"),
    pairs=True,
    selection="validation",
    variants={
        "full": Variant(
            "LRA's pairs, 4,096 bytes of each document",
            {"train": 147_086, "validation": 18_090, "test": 17_437},
            MAX_BYTES,
        ),
        "cut": Variant("256 bytes of each document, a fixed choice of pairs", CUT_PAIRS, 256),
    },
    sources=(OFFICIAL, SAMPLE),
    obtain="LRA's release (https://storage.googleapis.com/long-range-arena/lra_release.gz, 7.7 GB) holds them in "
    "lra_release/tsv_data: put the three new_aan_pairs.{train,eval,test}.tsv, or a .tar.gz of them whose name holds "
    "'aan', into the data directory or its folder aan",
    licence="ACL Anthology: CC BY-NC-SA 3.0 (papers before 2016), CC BY 4.0 (later ones)",
    citation="Radev, Muthukrishnan, Qazvinian, Abu-Jbara (2013), The ACL Anthology Network corpus; "
    "as pairs: Tay et al. (2021), Long Range Arena, arXiv:2011.04006",
)

# Content hash -> name. LRA's release belongs here once its hash has been taken from LRA's own files.
KNOWN: dict[str, str] = {}

_FOLDERS = (
    "",
    "aan",
    "aan_mini",
    "tsv_data",
    "lra_release",
    "lra_release/tsv_data",
    "lra_release/lra_release/tsv_data",
)
_ARCHIVES = ("aan.tar.gz", "*aan*.tar.gz", "lra_release*.gz")
_FILE = {"train": "new_aan_pairs.train", "validation": "new_aan_pairs.eval", "test": "new_aan_pairs.test"}
_WITH_TEXT = {f"{name}.tsv": split for split, name in _FILE.items()}
_ONLY_IDS = {f"{name}.only_ids.tsv": split for split, name in _FILE.items()}

_LABELS = {b"0.0": 0, b"1.0": 1}
_ID = re.compile(rb"[^./\\\0- ][^/\\\0- ]*")  # names a file in papers_text: no separators, no hidden names


def locate(data_dir: Path, variant: str = "full") -> Path | None:
    """The directory or archive that holds the pairs; a directory is preferred, reading it is faster."""
    for folder in _FOLDERS:
        if any((data_dir / folder / name).is_file() for name in (*_WITH_TEXT, *_ONLY_IDS)):
            return data_dir / folder
    for pattern in _ARCHIVES:
        for path in sorted(data_dir.glob(pattern)):
            if path.is_file():
                return path
    return None


def build(variant: str, source: str, data_dir: Path, *, workers: int, progress: Progress) -> Iterator[Built]:
    """The three splits, validation being LRA's `eval`. Reading is one stream: `workers` has no use here.

    Memory is bounded by the distinct documents (`MAX_BYTES` of each), whatever the size of the source.

    Raises:
      DataError: unknown variant or source; no source; a bad archive, file, row, label, id or literal.
    """
    check_request(CARD, variant, source)
    max_bytes = CARD.variants[variant].max_bytes
    if source == SAMPLE:
        return (Built(split, sample_pairs(split, max_bytes=max_bytes), SAMPLE) for split in SPLITS)
    origin = locate(data_dir)
    if origin is None:
        raise DataError(
            f"retrieval: found neither {', '.join(_WITH_TEXT)} (nor *.only_ids.tsv) in {data_dir} or its folders "
            f"{', '.join(_FOLDERS[1:])}, nor {', '.join(_ARCHIVES)} in {data_dir}. {CARD.obtain}"
        )
    return _build_official(variant, origin, progress)


def _build_official(variant: str, origin: Path, progress: Progress) -> Iterator[Built]:
    texts, pairs = read_pairs(origin, progress)
    label = core.source_label(_content_sha256(texts, pairs), KNOWN)
    for number, split in enumerate(SPLITS):
        labels, items = pairs[split]
        if variant == "cut" and len(labels) > CUT_PAIRS[split]:
            kept = np.sort(core.chunk_seed(0, number).permutation(len(labels))[: CUT_PAIRS[split]])
            labels, items = labels[kept], items[kept]
        yield Built(split, pair_split(texts, labels, items, CARD.variants[variant].max_bytes), label)


def pair_split(texts: list[bytes], labels: np.ndarray, items: np.ndarray, max_bytes: int) -> Split:
    """Pairs of `texts` (items [N, 2]) to a split of the documents they use, cut, each stored once."""
    place: dict[bytes, int] = {}
    flat = [place.setdefault(texts[t][:max_bytes], len(place)) for t in items.reshape(-1).tolist()]
    return Split.from_documents(list(place), labels, np.array(flat, np.int32).reshape(-1, 2))


def _content_sha256(texts: list[bytes], pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """One hash for all variants and layouts: labels and `MAX_BYTES` of both texts, in the order of the rows."""
    digests = np.frombuffer(b"".join(hashlib.sha256(text).digest() for text in texts), np.uint8).reshape(-1, 32)
    content = hashlib.sha256()
    for split in SPLITS:
        labels, items = pairs[split]
        content.update(f"{split} {len(labels)}\n".encode())
        content.update(np.column_stack([labels, digests[items].reshape(-1, 64)]).tobytes())
    return content.hexdigest()


# ---- reading ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class _Found:
    """What has been read so far. Texts are the keys of `place`, so each is held once."""

    place: dict[bytes, int] = dataclasses.field(default_factory=dict)  # text -> its number
    papers: dict[bytes, int] = dataclasses.field(default_factory=dict)  # id -> its text, from papers_text
    with_text: dict[str, array[int]] = dataclasses.field(default_factory=dict)  # flat: label, text, text
    only_ids: dict[str, list[tuple[int, bytes, bytes]]] = dataclasses.field(default_factory=dict)
    names: dict[str, str] = dataclasses.field(default_factory=dict)  # file name -> where it was

    def text(self, text: bytes) -> int:
        return self.place.setdefault(text, len(self.place))


def read_pairs(origin: Path, progress: Progress) -> tuple[list[bytes], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Reads a directory or an archive: distinct texts, and labels [N] and items [N, 2] (into texts) per split.

    Raises:
      DataError: as `build`; names the file, and the row and column where there is one.
    """
    found = _Found()
    try:
        for where, path, stream, size in _members(origin):
            _read_member(found, where, path, stream, size, progress)
    except archives.FAULTS as error:
        raise DataError(f"{origin}: not readable ({error}); fetch or unpack it again") from error
    flat = found.with_text if set(found.with_text) == set(SPLITS) else _join_papers(found, origin)
    rows = {split: np.frombuffer(flat[split], np.int32).reshape(-1, 3) for split in SPLITS}
    return list(found.place), {split: (r[:, 0].astype(np.uint8), r[:, 1:]) for split, r in rows.items()}


def _members(origin: Path) -> Iterator[tuple[str, PurePosixPath, IO[bytes], int]]:
    """(where it is, path inside the origin, stream, bytes) of every file that may matter."""
    if origin.is_dir():
        names = [n for n in _WITH_TEXT if (origin / n).is_file()]
        if len(names) < len(SPLITS):
            names += [n for n in _ONLY_IDS if (origin / n).is_file()]
            names += sorted(f"papers_text/{p.name}" for p in (origin / "papers_text").glob("*.txt"))
        for name in names:
            with (origin / name).open("rb") as stream:
                yield str(origin / name), PurePosixPath(name), stream, (origin / name).stat().st_size
        return
    for member, file in archives.walk(origin, "this is no copy of AAN: fetch it again"):
        if file is not None:
            yield f"{origin}: {member.name}", PurePosixPath(member.name), file, member.size


def _read_member(
    found: _Found, where: str, path: PurePosixPath, stream: IO[bytes], size: int, progress: Progress
) -> None:
    name = path.name
    if path.parent.name == "papers_text" and path.suffix == ".txt" and not name.startswith("."):
        _only_once(found, f"papers_text/{name}", where)
        found.papers[os.fsencode(path.stem)] = found.text(stream.read(MAX_BYTES))
        if len(found.papers) % 1000 == 0:
            progress("reading papers_text", len(found.papers), 0)
    elif split := _WITH_TEXT.get(name):
        _only_once(found, name, where)
        flat = found.with_text.setdefault(split, array("i"))
        for at, (label, _, _, *literals) in _rows(where, stream, 5, size, progress):
            flat.append(label)
            for column, literal in zip((4, 5), literals, strict=True):
                try:
                    flat.append(found.text(bytes_literal(literal, MAX_BYTES)))
                except ValueError as error:
                    raise DataError(f"{at}, column {column}: {error}") from error
    elif split := _ONLY_IDS.get(name):
        _only_once(found, name, where)
        known: dict[bytes, bytes] = {}  # one object an id, not one a row
        found.only_ids[split] = [
            (label, known.setdefault(a, a), known.setdefault(b, b))
            for _, (label, a, b) in _rows(where, stream, 3, size, progress)
        ]


def _only_once(found: _Found, name: str, where: str) -> None:
    if name in found.names:
        raise DataError(f"{where}: {name} is there twice (also {found.names[name]}); keep one")
    found.names[name] = where


def _rows(
    where: str, stream: IO[bytes], columns: int, size: int, progress: Progress
) -> Iterator[tuple[str, list[Any]]]:
    """(file and row, fields) of a TSV file; the label is an int and the ids are checked. Rows count from 1."""
    done = row = 0
    shown = f"reading {PurePosixPath(where).name}"
    while line := stream.readline(MAX_ROW_BYTES):
        row, done = row + 1, done + len(line)
        at = f"{where} row {row}"
        if len(line) == MAX_ROW_BYTES:
            raise DataError(f"{at}: longer than {MAX_ROW_BYTES:,} bytes; one row a line is expected")
        fields: list[Any] = line.removesuffix(b"\n").removesuffix(b"\r").split(b"\t")
        if len(fields) != columns:
            raise DataError(f"{at}: {len(fields)} tab-separated columns, not {columns}; fetch the file again")
        if fields[0] not in _LABELS:
            raise DataError(f"{at}, column 1: label {excerpt(fields[0])} is neither 0.0 nor 1.0")
        for column in (1, 2):
            if not _ID.fullmatch(fields[column]):
                raise DataError(f"{at}, column {column + 1}: {excerpt(fields[column])} is no paper id")
        fields[0] = _LABELS[fields[0]]
        yield at, fields
        if row % 500 == 0:
            progress(shown, done, size)
    if row == 0:
        raise DataError(f"{where}: the file is empty; fetch it again")


def _join_papers(found: _Found, origin: Path) -> dict[str, array[int]]:
    """The pairs of the `only_ids` files with the texts of papers_text, as flat label, text, text."""
    flat = {}
    for name, split in _ONLY_IDS.items():
        if split not in found.only_ids:
            absent = [n for n in _WITH_TEXT if n not in found.names]
            raise DataError(f"{origin}: no {', '.join(absent)}, and no {name} to stand for them. {CARD.obtain}")
        flat[split] = array("i")
        for row, (label, *ids) in enumerate(found.only_ids[split], 1):
            for paper in ids:
                if paper not in found.papers:
                    text = f"papers_text/{paper.decode(errors='replace')}.txt"
                    raise DataError(f"{found.names[name]} row {row}: no {text} in {origin}; unpack the papers again")
            flat[split].extend((label, *(found.papers[paper] for paper in ids)))
    return flat
