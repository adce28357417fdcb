"""What a task is, and what prepared data are.

A task is a module or package of this folder with three names:

    CARD                                   the facts about the task (`Card`)
    locate(data_dir, variant, source) -> list[Origin]
                                           the places with files of a source; the first is read. [] if there are none,
                                           and for data that are generated or downloaded
    build(variant, source, data_dir, *, workers, progress, work_dir) -> Iterator[Built]
                                           one `Built` per split, in the order of `SPLITS`

Its protocols are in `configs/<task>.py`. No other file names a task: what else depends on it is on its card.

Prepared data store every document once, as raw bytes. Token ids (byte + 1; 0 is padding and nothing else), truncation
and padding are computed later, inside jit. The input length is therefore part of the protocol, not of the data.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tasks.errors import DataError, did_you_mean

SPLITS = ("train", "validation", "test")
SAMPLE, GENERATED, OFFICIAL, TFDS = "sample", "generated", "official", "tfds"
COPY = "copy"
KINDS = {"data": np.uint8, "offsets": np.int64, "labels": np.uint8, "items": np.int32}  # dtypes of a split's arrays

Progress = Callable[[str, int, int], None]  # (description, done, total); total 0: not known


@dataclasses.dataclass(frozen=True)
class Variant:
    """A form of a task with its own column on the leaderboard. Results of different variants are never mixed.

    sizes:     examples per split, as built from the official or generated source
    max_bytes: length of the longest document; longer ones are cut when prepared. Images have exactly this many pixels
    """

    about: str
    sizes: Mapping[str, int]
    max_bytes: int


@dataclasses.dataclass(frozen=True)
class Card:
    """The facts about a task. Constants only: a vocabulary is never derived from data.

    version:        raised by every change that can change a score
    vocab_size:     number of token ids, padding (0) included
    pairs:          an example is a pair of documents
    selection:      the checkpoint that is tested: the best on "validation", or the "last"
    variants:       by name; one of them is "full"
    sources:        the first that is available is the default (SAMPLE only where it is requested)
    obtain:         how to get the official files, and where to put them
    balanced:       all classes are equally likely
    images:         an input is a square image, read row by row: it is never cut to a length
    sample_classes: names of the classes of the generated sample; None: those of the task
    to_text:        decodes a document into text that a person can read; None: the bytes are text themselves
    write_official: writes splits of a variant into a directory in LRA's layout; None: the task has no such layout
    copy_notes:     returns what the statistics of unrecognised files say about their origin, one sentence each
    baselines:      names of trivial baselines in `lra.record.baseline_models`, besides the majority class
    former_variants: variants of earlier versions of the suite; their records are retired
    """

    name: str
    title: str
    about: str
    version: int
    tokenizer: str
    vocab_size: int
    classes: tuple[str, ...]
    pairs: bool
    selection: Literal["validation", "last"]
    variants: Mapping[str, Variant]
    sources: tuple[str, ...]
    obtain: str
    licence: str
    citation: str
    metric: str = "accuracy"
    balanced: bool = True
    images: bool = False
    sample_classes: tuple[str, ...] | None = None
    to_text: Callable[[bytes], str] | None = None
    write_official: Callable[[Mapping[str, Split], Path, str], object] | None = None
    copy_notes: Callable[[Mapping[str, Split], str], list[str]] | None = None  # arguments: splits, source
    baselines: tuple[str, ...] = ()
    former_variants: tuple[str, ...] = ()


def check_request(card: Card, variant: str, source: str) -> None:
    """Check that a task has a variant and a source.

    Raises:
      DataError: it has not; the message lists those that it has.
    """
    for kind, name, valid in (("variant", variant, card.variants), ("source", source, card.sources)):
        if name not in valid:
            raise DataError(
                f"{card.name} has no {kind} {name!r}{did_you_mean(name, valid)}; variants: {', '.join(card.variants)}; "
                f"sources: {', '.join(card.sources)}"
            )


def has_other_sizes(card: Card, variant: str, source: str, counts: Mapping[str, int]) -> bool:
    """Return whether data read from files have other split sizes than the task, which makes them a copy.

    Args:
      variant: as the data were prepared
      source: name of the source that was read (`Built.source`); generated data and samples are never a copy
      counts: examples of every split that is known
    """
    if variant not in card.variants or source.startswith((GENERATED, SAMPLE)):
        return False
    return any(card.variants[variant].sizes.get(split) != n for split, n in counts.items())


def copy_name(variant: str) -> str:
    """Return the variant under which a copy is reported: `copy` for `full`, `cut-copy` for `cut`."""
    return COPY if variant == "full" else f"{variant}-{COPY}"


def base_variant(variant: str) -> str:
    """Return the card's variant of a reported one: undoes `copy_name`, and returns other names unchanged."""
    return "full" if variant == COPY else variant.removesuffix(f"-{COPY}")


def is_copy(variant: str) -> bool:
    """Return whether a reported variant is that of a copy."""
    return base_variant(variant) != variant


@dataclasses.dataclass(frozen=True)
class Split:
    """The N examples of one split, over D documents.

    data:    uint8 [total bytes], all documents concatenated
    offsets: int64 [D + 1], document d is data[offsets[d]:offsets[d + 1]]
    labels:  uint8 [N], the class of each example
    items:   int32 [N] or [N, 2], the document (or the two documents) of each example
    """

    data: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    items: np.ndarray

    def __post_init__(self) -> None:
        for name, dtype in KINDS.items():
            array = getattr(self, name)
            if array.dtype != dtype or (array.ndim != 1 and name != "items"):
                raise DataError(f"split: {name} has dtype {array.dtype} {array.shape}, not {np.dtype(dtype)} in a row")
        if not len(self.offsets) or self.offsets[0] or self.offsets[-1] != len(self.data):
            raise DataError(f"split: offsets must go from 0 to {len(self.data)}, the number of bytes")
        if (self.offsets[1:] < self.offsets[:-1]).any():  # their difference may be too large for int64
            raise DataError("split: offsets must not fall")
        if self.items.shape[:1] != self.labels.shape or self.items.shape[1:] not in ((), (2,)):
            raise DataError(f"split: items {self.items.shape} do not fit labels {self.labels.shape}")
        if len(self.items) and not 0 <= self.items.min() <= self.items.max() < len(self.offsets) - 1:
            raise DataError(f"split: items must name one of {len(self.offsets) - 1} documents")

    @classmethod
    def from_documents(cls, documents: list[bytes], labels: Any, items: Any = None) -> Split:
        """Return the split of these documents; without `items`, example i is document i."""
        offsets = np.zeros(len(documents) + 1, np.int64)
        np.cumsum([len(d) for d in documents], out=offsets[1:])
        return cls(
            data=np.frombuffer(b"".join(documents), np.uint8),
            offsets=offsets,
            labels=np.asarray(labels, np.uint8),
            items=np.arange(len(documents), dtype=np.int32) if items is None else np.asarray(items, np.int32),
        )

    @classmethod
    def from_images(cls, images: np.ndarray, labels: Any) -> Split:
        """Return the split of images, uint8 [N, R, R], read row by row."""
        n, size = len(images), int(np.prod(images.shape[1:]))
        return cls(
            data=np.ascontiguousarray(images, np.uint8).reshape(-1),
            offsets=np.arange(n + 1, dtype=np.int64) * size,
            labels=np.asarray(labels, np.uint8),
            items=np.arange(n, dtype=np.int32),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def document(self, d: int) -> bytes:
        """Return document d."""
        return self.data[self.offsets[d] : self.offsets[d + 1]].tobytes()

    @property
    def majority(self) -> int:
        """The most frequent label; the smallest if several are, 0 if there are no examples."""
        return int(np.argmax(np.bincount(self.labels, minlength=1)))

    @property
    def lengths(self) -> np.ndarray:
        """Bytes of the document of each example, int64 [N], or of its two documents, int64 [N, 2]."""
        return np.diff(self.offsets)[self.items]

    @property
    def sha256(self) -> str:
        """Hash of the labels, items, offsets and data, in hexadecimal digits."""
        digest = hashlib.sha256()
        for array in (self.labels, self.items, self.offsets, self.data):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Built:
    """One split as a task built it.

    source: name of what was read or generated, by its content and not by the name of a file
    """

    split: str
    examples: Split
    source: str


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared data set: splits, and the metadata that identify its column on the leaderboard.

    variant: of the card, as the data were prepared
    copy:    the files have other split sizes than the card (`has_other_sizes`)
    """

    task: str
    variant: str
    version: int
    source: str
    sha256: str
    splits: Mapping[str, Split]
    copy: bool = False

    @property
    def column_variant(self) -> str:
        """The variant under which scores on these data are reported."""
        return copy_name(self.variant) if self.copy else self.variant

    @property
    def name(self) -> tuple[str, str]:
        """Hash and reported variant, which identify these data among those of the task."""
        return self.sha256, self.column_variant


def no_progress(what: str, done: int, total: int) -> None:
    """Report no progress."""


def source_label(sha256: str) -> str:
    """Return the name of a source that is not known to be official, with eight digits of the hash of its content."""
    return f"unrecognised copy {sha256[:8]}"


def chunk_rng(seed: int, chunk: int) -> np.random.RandomState:
    """Return the random stream of one chunk of a generator.

    `RandomState` is frozen by numpy and `SeedSequence` is stable, so generated data depend neither on the number of
    workers nor on the version of numpy.
    """
    return np.random.RandomState(np.random.SeedSequence([seed, chunk]).generate_state(8))
