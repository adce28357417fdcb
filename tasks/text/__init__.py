"""Text: does a film review praise or condemn? IMDB reviews, read as raw bytes.

There is no validation split: all 25,000 training reviews are used for training, nothing is selected on the test split,
and the last checkpoint is tested. LRA reads the reviews through tensorflow-datasets, which strips white space at both
ends; all readers here do the same.

A directory, an archive and tensorflow-datasets give the same reviews in three different orders. Reviews are therefore
sorted by the SHA-256 of their bytes, so that prepared data do not depend on the source. The order is also a fixed
shuffle: any prefix is a random sample of both classes.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tasks import archives
from tasks.core import (
    OFFICIAL,
    SAMPLE,
    TFDS,
    Built,
    Card,
    Progress,
    Split,
    Variant,
    check_request,
    no_progress,
    source_label,
)
from tasks.errors import DataError
from tasks.origins import Origin
from tasks.text import sample, tfds

ARCHIVE = archives.Archive(
    url="http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    folder="aclImdb",
    size=84_125_825,
    sha256="c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
    patterns=tuple(f"{split}/{label}/*.txt" for split in ("train", "test") for label in tfds.CLASSES),
    places=("imdb", "text"),
)
SPLITS = ("train", "test")
PER_CLASS = 12_500
SHORT_TEST_PER_CLASS = 500
MAX_BYTES = 1 << 28  # of all reviews; they have 65 MB

CARD = Card(
    name="text",
    title="Text",
    about="Sentiment of IMDB film reviews, read byte by byte",
    version=1,
    tokenizer="byte + 1 (0 is padding)",
    vocab_size=257,
    classes=tfds.CLASSES,
    pairs=False,
    selection="last",
    variants={
        "full": Variant("whole reviews", {"train": 25_000, "test": 25_000}, max_bytes=16_384),
        "cut": Variant("the first 256 bytes; 500 test reviews of each class", {"train": 25_000, "test": 1_000}, 256),
    },
    sources=(OFFICIAL, TFDS, SAMPLE),
    obtain=ARCHIVE.instructions,
    licence="none stated by its authors; made for research, texts belong to the reviewers of IMDb; cite the paper",
    citation=(
        "Andrew L. Maas, Raymond E. Daly, Peter T. Pham, Dan Huang, Andrew Y. Ng, Christopher Potts. "
        "Learning Word Vectors for Sentiment Analysis. ACL 2011"
    ),
    baselines=("byte n-grams",),
)

Reviews = list[tuple[bytes, int]]  # (text, 0 = negative or 1 = positive)

# The second number is the stars of ten.
_NAME = re.compile(rf"{ARCHIVE.folder}/(train|test)/(neg|pos)/([0-9]+_([0-9]{{1,9}})\.txt)")


def locate(data_dir: Path, variant: str = "full", source: str = OFFICIAL) -> list[Origin]:
    """Return the archives and unpacked directories, or for TFDS what tensorflow-datasets has prepared."""
    return ARCHIVE.locate(data_dir) if source == OFFICIAL else tfds.locate(data_dir) if source == TFDS else []


def build(
    variant: str,
    source: str,
    data_dir: Path,
    *,
    workers: int = 1,
    progress: Progress = no_progress,
    work_dir: Path | None = None,
) -> Iterator[Built]:
    """Return the splits train and test. One process reads them in seconds.

    `workers` and `work_dir` are therefore not used.

    Raises:
      DataError: there is no such variant or source, or the source files are missing, damaged or incomplete.
    """
    check_request(CARD, variant, source)
    if source == SAMPLE:
        return _build(variant, sample.reviews(progress), SAMPLE)
    found, label = locate(data_dir, variant, source), None
    if source == TFDS and found:
        path = found[0].path
        reviews = read_prepared(found[0], progress)
    else:
        if source == OFFICIAL and not found:
            raise DataError(f"text: neither {ARCHIVE.name} nor {ARCHIVE.folder}/ in {data_dir}. {CARD.obtain}")
        path = found[0].path if found else ARCHIVE.fetch(data_dir, progress)
        reviews = read(path, progress)
        label = "official archive" if ARCHIVE.is_official(path) else None
    _check_counts(reviews, path)
    return _build(variant, reviews, label or source_label(content_sha256(reviews)))


def read(path: Path, progress: Progress = no_progress) -> dict[str, Reviews]:
    """Return the labelled reviews of an archive or an unpacked directory, each split in canonical order.

    Raises:
      DataError: the archive is damaged, a folder is missing, or a review is empty, there twice, or in a folder that
        contradicts its stars; the message names the file.
    """
    files = archives.members(path, _NAME, MAX_BYTES, CARD.obtain) if path.is_file() else _walk(path)
    reviews: dict[str, Reviews] = {split: [] for split in SPLITS}
    seen: set[str] = set()
    for match, content in files:
        split, label, stars = match[1], CARD.classes.index(match[2]), int(match[4])
        where = f"{path}: {match[0]}"
        if match[0] in seen:
            raise DataError(f"{where} is there twice. {CARD.obtain}")
        if not (7 <= stars <= 10 if label else 1 <= stars <= 4):
            raise DataError(f"{where}: {stars} of 10 stars do not belong in {match[2]}/. {CARD.obtain}")
        text = content.strip()
        if not text:
            raise DataError(f"{where} is empty. {CARD.obtain}")
        seen.add(match[0])
        reviews[split].append((text, label))
        if len(seen) % 1_000 == 0:
            progress(f"reading {path.name}", len(seen), 4 * PER_CLASS)
    return {split: canonical(unsorted) for split, unsorted in reviews.items()}


def read_prepared(origin: Origin, progress: Progress = no_progress) -> dict[str, Reviews]:
    """Return the reviews of tensorflow-datasets' prepared `imdb_reviews`, each split in canonical order.

    Raises:
      DataError: a file cannot be read or is damaged.
    """
    progress("reading imdb_reviews", 0, 0)
    return {split: canonical(unsorted) for split, unsorted in tfds.read(origin).items()}


def canonical(reviews: Iterable[tuple[bytes, int]]) -> Reviews:
    """Return reviews in the order of the hash of their text, which does not depend on their source."""
    return sorted(reviews, key=lambda review: (hashlib.sha256(review[0]).digest(), review[1]))


def content_sha256(reviews: dict[str, Reviews]) -> str:
    """Return the hash of all complete texts and their labels."""
    digest = "".join(f"{split}:{_split(reviews[split], None).sha256}\n" for split in SPLITS)
    return hashlib.sha256(digest.encode()).hexdigest()


def _walk(folder: Path) -> Iterator[tuple[re.Match[str], bytes]]:
    for split in SPLITS:
        for label in CARD.classes:
            if not (folder / split / label).is_dir():
                raise DataError(f"{folder}: no folder {split}/{label}. {CARD.obtain}")
    for name in Origin(folder, ARCHIVE.patterns).files():
        if match := _NAME.fullmatch(f"{ARCHIVE.folder}/{name}"):
            yield match, archives.read_file(folder / name, MAX_BYTES, CARD.obtain)


def _check_counts(reviews: dict[str, Reviews], path: Path) -> None:
    for split in SPLITS:
        counts = Counter(label for _, label in reviews[split])
        for label, name in enumerate(CARD.classes):
            if counts[label] != PER_CLASS:
                raise DataError(f"{path}: {counts[label]} reviews in {split}/{name}, not {PER_CLASS}. {CARD.obtain}")


def _split(reviews: Reviews, max_bytes: int | None) -> Split:
    return Split.from_documents([text[:max_bytes] for text, _ in reviews], [label for _, label in reviews])


def _build(variant: str, reviews: dict[str, Reviews], source: str) -> Iterator[Built]:
    for split in SPLITS:
        chosen = reviews[split]
        if variant == "cut" and split == "test":
            halves = ([r for r in chosen if r[1] == label][:SHORT_TEST_PER_CLASS] for label in (0, 1))
            chosen = canonical(review for half in halves for review in half)
        yield Built(split, _split(chosen, CARD.variants[variant].max_bytes), source)
