"""The vocabulary of the folder: what a task says about itself, and how prepared data lies on disk.

A task is a module with three names:

    CARD                                   what the task is (`Card`)
    locate(data_dir, variant) -> Path | None
                                           the official source files of a variant, if the user has them
    build(variant, source, data_dir, *, workers, progress) -> Iterator[Built]
                                           one `Built` per split, in the order of `SPLITS`

Prepared data is ragged and small: every document once, as raw bytes. Token ids (byte + 1, so that 0
is padding and nothing else), truncation and padding are formed later, inside jit. The length of an
input therefore belongs to the protocol, not to the data.

On disk a prepared data set is a directory of one `.npz` per split and a `meta.json`. It is written
under a temporary name and renamed when whole, so nothing half-written can be taken for prepared data.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import loky
import numpy as np

from tasks.arrays import read_npz

SPLITS = ("train", "validation", "test")
SAMPLE, GENERATED, OFFICIAL, TFDS = "sample", "generated", "official", "tfds"
KINDS = {"data": np.uint8, "offsets": np.int64, "labels": np.uint8, "items": np.int32}  # of the arrays of a split

Progress = Callable[[str, int, int], None]  # (what, done, total); total 0 = not known
T = TypeVar("T")


class DataError(Exception):
    """Source or prepared data that cannot be used. The message says what, where, and how to mend it."""


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


def check_request(card: Card, variant: str, source: str) -> None:
    """Raises DataError for a variant or a source that the task does not have, listing those that it has."""
    for kind, name, valid in (("variant", variant, card.variants), ("source", source, card.sources)):
        if name not in valid:
            raise DataError(
                f"{card.name} has no {kind} {name!r}; variants: {', '.join(card.variants)}; "
                f"sources: {', '.join(card.sources)}"
            )


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
    """A prepared data set: splits, and the meta data that names its column."""

    task: str
    variant: str
    version: int
    source: str
    sha256: str
    splits: Mapping[str, Split]


def default_workers() -> int:
    return os.cpu_count() or 1


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


def build_directory(root: Path, task: str, variant: str, version: int, source: str, origin: Path | None) -> Path:
    """Where a prepared data set lies. The origin's path, size and time are part of the name, so
    exchanging the source files under a prepared set never serves the old content."""
    name = f"{task}-{variant}-{source}-v{version}"
    if origin is not None:
        stat = origin.stat()
        mark = f"{origin.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
        name += "-" + hashlib.sha256(mark.encode()).hexdigest()[:8]
    return root / name


def write_prepared(target: Path, card: Card, variant: str, built: Iterator[Built]) -> None:
    """Writes a data set as a whole or not at all. If another process was faster, its result stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    scratch.chmod(0o755)  # prepared data may be shared
    try:
        meta: dict[str, Any] = {"task": card.name, "variant": variant, "version": card.version, "splits": {}}
        for part in built:
            examples = part.examples
            if len(examples) and examples.labels.max() >= len(card.classes):
                raise DataError(
                    f"{card.name} {part.split}: label {examples.labels.max()} of {len(card.classes)} classes"
                )
            np.savez_compressed(scratch / f"{part.split}.npz", **vars(examples))
            meta["splits"][part.split] = {"examples": len(examples), "sha256": examples.sha256}
            meta["source"] = part.source
        meta["sha256"] = _whole({name: entry["sha256"] for name, entry in meta["splits"].items()})
        (scratch / "meta.json").write_text(json.dumps(meta, indent=1))
        try:
            scratch.rename(target)
        except OSError:
            if not (target / "meta.json").exists():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_prepared(directory: Path, card: Card) -> Prepared:
    """Reads and checks a prepared data set, which may come from another machine.

    Raises:
      DataError: a file is missing, torn, of another version, or its content is not what was written.
    """
    mend = f"delete {directory}, and it is prepared anew when it is next needed"
    try:
        meta = json.loads((directory / "meta.json").read_text("utf-8"))
        if meta["task"] != card.name or meta["version"] != card.version:
            raise DataError(
                f"{directory}: prepared as {meta['task']} version {meta['version']}, "
                f"this is {card.name} version {card.version}; {mend}"
            )
        variant, source = card.variants[meta["variant"]], meta["source"]
        if meta["splits"].keys() != variant.sizes.keys() or not (isinstance(source, str) and source.isprintable()):
            raise ValueError(f"its splits are not {', '.join(variant.sizes)}, or its source is no text")
        most = 4 * sum(variant.sizes.values())  # examples of a split: other copies may have more of them
        limits = {"labels": most, "items": 2 * most, "offsets": 2 * most + 1, "data": 2 * most * variant.max_bytes}
        splits = {}
        for name in meta["splits"]:
            splits[name] = Split(**read_npz(directory / f"{name}.npz", KINDS, limits))
            if splits[name].labels.max(initial=0) >= len(card.classes):
                raise ValueError(f"{name} has labels beyond {len(card.classes)} classes")
        found = {name: split.sha256 for name, split in splits.items()}
        if (
            found != {name: entry["sha256"] for name, entry in meta["splits"].items()}
            or _whole(found) != meta["sha256"]
        ):
            raise ValueError("the content is not what was written")
        return Prepared(card.name, meta["variant"], meta["version"], source, meta["sha256"], splits)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{directory}: not readable as prepared data ({error}); {mend}") from error


def _whole(hashes: Mapping[str, str]) -> str:
    """The hash of a data set, of those of its splits."""
    return hashlib.sha256("".join(f"{name}:{hashes[name]}\n" for name in sorted(hashes)).encode()).hexdigest()


def source_label(sha256: str, known: Mapping[str, str]) -> str:
    """What a source is called: by the hash of its content, never by a file's name."""
    return known.get(sha256, f"unrecognised copy {sha256[:8]}")


def chunk_seed(seed: int, chunk: int) -> np.random.RandomState:
    """The random stream of one chunk of a generator.

    `RandomState` is frozen by numpy and `SeedSequence` is stable, so what is generated depends
    neither on the number of workers nor on numpy's version.
    """
    return np.random.RandomState(np.random.SeedSequence([seed, chunk]).generate_state(8))
