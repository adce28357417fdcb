"""The vocabulary of the folder: what a task says about itself, and what prepared data are.

A task is a module with three names:

    CARD                                   what the task is (`Card`)
    locate(data_dir, variant) -> Path | None
                                           the official source files of a variant, if the user has them
    build(variant, source, data_dir, *, workers, progress) -> Iterator[Built]
                                           one `Built` per split, in the order of `SPLITS`

Prepared data is ragged and small: every document once, as raw bytes. Token ids (byte + 1, so that 0
is padding and nothing else), truncation and padding are formed later, inside jit. The length of an
input therefore belongs to the protocol, not to the data.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import loky
import numpy as np

from tasks.errors import DataError

SPLITS = ("train", "validation", "test")
SAMPLE, GENERATED, OFFICIAL, TFDS = "sample", "generated", "official", "tfds"
COPY = "copy"
KINDS = {"data": np.uint8, "offsets": np.int64, "labels": np.uint8, "items": np.int32}  # of the arrays of a split

Progress = Callable[[str, int, int], None]  # (what, done, total); total 0 = not known
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way of cutting a task: its own column on the board, never mixed with another's."""

    about: str
    sizes: Mapping[str, int]  # examples per split, as built from the official or generated source
    max_bytes: int  # longest item; longer documents are cut when prepared


@dataclasses.dataclass(frozen=True)
class Card:
    """What a task is. Constants only: vocabularies are never derived from data."""

    name: str
    title: str
    about: str
    version: int  # raised by every change that can change a score
    tokenizer: str
    vocab_size: int  # number of token ids, padding (0) included
    classes: tuple[str, ...]
    pairs: bool
    selection: Literal["validation", "last"]  # which checkpoint is tested
    variants: Mapping[str, Variant]
    sources: tuple[str, ...]  # the default is the first that is at hand (SAMPLE only where a protocol allows it)
    obtain: str  # how to get the official files, and where to put them
    licence: str
    citation: str
    metric: str = "accuracy"
    balanced: bool = True  # all classes are equally likely
    pictures: bool = False  # an input is a square picture, read row by row: it is never cut to a length


def check_request(card: Card, variant: str, source: str) -> None:
    """Raises DataError for a variant or a source that the task does not have, listing those that it has."""
    for kind, name, valid in (("variant", variant, card.variants), ("source", source, card.sources)):
        if name not in valid:
            raise DataError(
                f"{card.name} has no {kind} {name!r}; variants: {', '.join(card.variants)}; "
                f"sources: {', '.join(card.sources)}"
            )


def has_other_sizes(card: Card, variant: str, source: str, counts: Mapping[str, int]) -> bool:
    """Return whether data read from files have other split sizes than the task's, which makes them a copy.

    Args:
      variant: as the data were prepared
      source: what the source turned out to be (`Built.source`); generated data and samples are never a copy
      counts: examples of every split that is known
    """
    if variant not in card.variants or source.startswith((GENERATED, SAMPLE)):
        return False
    return any(card.variants[variant].sizes.get(split) != n for split, n in counts.items())


def copy_name(variant: str) -> str:
    """Return the variant under which a copy is reported: `copy` for `full`, `cut-copy` for `cut`."""
    return COPY if variant == "full" else f"{variant}-{COPY}"


def base_variant(variant: str) -> str:
    """Return the card's variant of a reported one: undoes `copy_name`, and leaves other names as they are."""
    return "full" if variant == COPY else variant.removesuffix(f"-{COPY}")


def is_copy(variant: str) -> bool:
    """Return whether a reported variant is that of a copy."""
    return base_variant(variant) != variant


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples of one split.

    data:    uint8 [total]      all documents, end to end
    offsets: int64 [D + 1]      document d is data[offsets[d]:offsets[d + 1]]
    labels:  uint8 [N]
    items:   int32 [N] or [N, 2] the document (or two documents) of each example
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
        """Ragged documents to a split; without `items`, example i is document i."""
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
        """uint8 images [N, R, R], read row by row."""
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
        return self.data[self.offsets[d] : self.offsets[d + 1]].tobytes()

    @property
    def majority(self) -> int:
        """The most frequent label, the smallest of several; 0 of none."""
        return int(np.argmax(np.bincount(self.labels, minlength=1)))

    @property
    def lengths(self) -> np.ndarray:
        """Bytes of each example, [N] or [N, 2]."""
        return np.diff(self.offsets)[self.items]

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for array in (self.labels, self.items, self.offsets, self.data):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Built:
    """One split as a task built it, and what its source turned out to be (by content, not by file name)."""

    split: str
    examples: Split
    source: str


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared data set: splits, and the metadata that names its column.

    variant: of the card, as the data were prepared
    copy: the files have other split sizes than the card's (`has_other_sizes`)
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
        """Hash and reported variant: what tells these data from others of the task."""
        return self.sha256, self.column_variant


def default_workers() -> int:
    return loky.cpu_count()


def process_pool(workers: int) -> loky.ProcessPoolExecutor:
    """Worker processes that do not run the caller's `__main__` again (a user's script needs no guard) and
    inherit no threads (jax may be running here)."""
    return loky.ProcessPoolExecutor(max_workers=workers)


def in_a_process(function: Callable[..., T], *arguments: Any) -> T:
    """`function(*arguments)` in a process that ends with it, and gives back what it holds of memory and devices."""
    pool = process_pool(1)
    try:
        return pool.submit(function, *arguments).result()
    finally:
        pool.shutdown(kill_workers=True)


def quiet(what: str, done: int, total: int) -> None:
    """The progress that shows nothing."""


def source_label(sha256: str, known: Mapping[str, str]) -> str:
    """What a source is called: by the hash of its content, never by a file's name."""
    return known.get(sha256, f"unrecognised copy {sha256[:8]}")


def chunk_seed(seed: int, chunk: int) -> np.random.RandomState:
    """The random stream of one chunk of a generator.

    `RandomState` is frozen by numpy and `SeedSequence` is stable, so what is generated depends
    neither on the number of workers nor on numpy's version.
    """
    return np.random.RandomState(np.random.SeedSequence([seed, chunk]).generate_state(8))
