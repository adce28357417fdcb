r"""LRA's files of ListOps: basic_train.tsv, basic_val.tsv and basic_test.tsv, a header and one example per row.

A row is an expression, a tab and its value: `( ( ( [MAX 2 ) 9 ) ] )\t9`. Files without the parentheses are read too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from tasks.core import OFFICIAL, SPLITS, Built, Card, Progress, Split, source_label
from tasks.errors import DataError
from tasks.listops.grammar import DIGITS, OPERATORS, SYMBOLS, decode, encode, evaluate, official_form
from tasks.origins import Origin, folders

_FILES = dict(zip(SPLITS, ("basic_train.tsv", "basic_val.tsv", "basic_test.tsv"), strict=True))
_FOLDERS = ("listops", "listops-1000")
_HEADER = "Source\tTarget"
_LENGTHS, _DEPTH = (501, 1_999), 9  # of the expressions of LRA's generator: symbols, nested operators
_PROGRESS_ROWS = 1_000  # between two reports
_MAX_ROW = 1 << 20  # characters; 2,000 symbols have about 20,000


def locate(data_dir: Path, variant: str = "full", source: str = OFFICIAL) -> list[Origin]:
    """Return the directories with LRA's basic_train.tsv: the variant full alone has official files."""
    if (variant, source) != ("full", OFFICIAL):
        return []
    places = folders(data_dir, *_FOLDERS)
    return [Origin(place, tuple(_FILES.values())) for place in places if (place / _FILES["train"]).is_file()]


def read_official(data_dir: Path, card: Card, progress: Progress) -> Iterator[Built]:
    """Yield the three splits.

    Raises:
      DataError: a file is missing, or a row is not a valid expression with its value; the message names the row.
    """
    if not (found := locate(data_dir)):
        searched = ", ".join(map(str, folders(data_dir, *_FOLDERS)))
        raise DataError(f"listops: no {_FILES['train']} in {searched}; {card.obtain}")
    files = found[0].files()
    paths = {split: found[0].path / name for split, name in _FILES.items()}
    digest = hashlib.sha256()
    for path in paths.values():
        if path.name not in files:
            raise DataError(f"{path} is missing, although {_FILES['train']} is there; {card.obtain}")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    for split, path in paths.items():
        examples = _read(path, card.variants["full"].max_bytes, progress)
        yield Built(split, examples, source_label(digest.hexdigest()))


def copy_notes(splits: Mapping[str, Split], source: str) -> list[str]:
    """Return in what the expressions differ from those of LRA's generator."""
    lengths = np.concatenate([split.lengths for split in splits.values()])
    depth = max(_depth(split.data) for split in splits.values())
    found = []
    shortest, longest = _LENGTHS
    if outside := int(np.count_nonzero((lengths < shortest) | (lengths > longest))):
        found.append(f"{outside:,} of {len(lengths):,} expressions do not have {shortest} to {longest:,} symbols")
    if depth > _DEPTH:
        found.append(f"operators are nested {depth} deep, not at most {_DEPTH}")
    return [f"{text}: these files are not LRA's, but from another generator" for text in found]


def _depth(data: np.ndarray) -> int:
    """Return the largest number of operators that are open at the same time; expressions close all that they open."""
    steps = np.zeros(256, np.int8)
    steps[[SYMBOLS.index(operator) for operator in OPERATORS]], steps[SYMBOLS.index("]")] = 1, -1
    return int(np.cumsum(steps[data], dtype=np.int32).max(initial=0))


def write_official(splits: Mapping[str, Split], directory: Path, variant: str = "full") -> None:
    """Write the three files as LRA's generator does, line ends CRLF included."""
    directory.mkdir(parents=True, exist_ok=True)
    for split, examples in splits.items():
        path = directory / _FILES[split]
        scratch = path.with_suffix(".part")
        with scratch.open("w", encoding="ascii", newline="") as file:
            file.write(f"{_HEADER}\r\n")
            for d, label in zip(examples.items, examples.labels, strict=True):
                file.write(f"{official_form(decode(examples.document(d)))}\t{label}\r\n")
        scratch.replace(path)


def _read(path: Path, max_bytes: int, progress: Progress) -> Split:
    documents, labels = [], []
    with path.open(encoding="ascii", errors="replace", newline="\n") as file:
        if (header := file.readline(_MAX_ROW).rstrip("\r\n")) != _HEADER:
            raise DataError(f"{path}, row 1: {header[:40]!r} is not the header {_HEADER!r} of LRA's files")
        for row, line in enumerate(iter(lambda: file.readline(_MAX_ROW), ""), 2):
            source, _, target = line.rstrip("\r\n").partition("\t")
            try:
                if len(line) == _MAX_ROW:
                    raise DataError(f"longer than {_MAX_ROW:,} characters; one example per row is expected")
                documents.append(_checked(source, target, max_bytes))
            except DataError as error:
                raise DataError(f"{path}, row {row} (the header is row 1): {error}") from error
            labels.append(DIGITS[target])
            if row % _PROGRESS_ROWS == 0:
                progress(f"reading {path.name}", row, 0)
    return Split.from_documents(documents, labels)


def _checked(source: str, target: str, max_bytes: int) -> bytes:
    """Return an expression as bytes, after checking its length and its value."""
    if target not in DIGITS:
        raise DataError(f"the target is {target[:20]!r}, not a digit; is the row complete?")
    document = encode(source)
    if len(document) > max_bytes:
        raise DataError(f"{len(document)} symbols; LRA's expressions have at most {max_bytes}")
    try:
        value = evaluate(decode(document))  # without the parentheses, a fifth of the time
    except DataError:
        value = evaluate(source)  # raises as well, and names the place in the row
    if value != DIGITS[target]:
        raise DataError(f"the target is {target}, but the value of the expression is {value}")
    return document
