"""Preparation of data: from source files or a generator to a checked data set on disk. It is done once."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from lra.errors import ConfigError, Interrupted
from lra.paths import data_directory, prepared_directory
from lra.protocols import Recipe, Shuffle
from tasks import load_task
from tasks.core import OFFICIAL, SAMPLE, TFDS, Card, Prepared, Progress, Split, check_request, no_progress
from tasks.errors import DataError
from tasks.prepared import prepared_dir_name, read_prepared, write_prepared
from tasks.processes import default_workers

LOCK_SECONDS = 1.0  # until a message says that another process is waited for


def choose_source(task: str, variant: str, source: str | None, *, allow_sample: bool) -> str:
    """Return the source to use: the requested one, else the first of the task that is available.

    Raises:
      DataError: there is no such source, or the official files are needed and missing.
    """
    module = load_task(task)
    card = module.CARD
    if source is not None:
        check_request(card, variant, source)
        return source
    first = card.sources[0]
    if first != OFFICIAL or module.locate(data_directory(), variant, OFFICIAL):
        return first
    if allow_sample:
        return SAMPLE
    copies = module.locate(data_directory(), variant, TFDS)
    found = f"`--source {TFDS}` reads {copies[0].path}. " if copies else ""
    raise DataError(
        f"{task}: no official files in {data_directory()}. {found}{card.obtain}. "
        f"Set LRA_DATA to the directory that has them, or use `--source sample` for a small generated data set."
    )


def check_length(card: Card, variant: str, max_len: int, recipe: Recipe | None = None) -> None:
    """Check that no image, and no expression that is shuffled, is longer than `max_len`: they must not be cut.

    Raises:
      ConfigError: `max_len` is shorter than the longest input of the variant.
    """
    if (
        isinstance(recipe, Shuffle)
        and variant in card.variants
        and max_len < (longest := card.variants[variant].max_bytes)
    ):
        raise ConfigError(
            f"{card.name} {variant}: expressions have up to {longest:,} symbols and max_len is {max_len:,}, but the "
            f"recipe shuffle needs complete expressions; give --max-len {longest}"
        )
    if card.images and variant in card.variants and max_len < (pixels := card.variants[variant].max_bytes):
        raise ConfigError(
            f"{card.name} {variant}: an image has {pixels:,} pixels and max_len is {max_len:,}, but images are not "
            f"cut; give --max-len {pixels}"
        )


def cut_note(prepared: Prepared, max_len: int) -> str | None:
    """Return a sentence on how many training examples are cut to `max_len`; None if none is.

    A pair counts if one of its documents is longer.
    """
    lengths = prepared.splits["train"].lengths
    cut = int(np.count_nonzero(lengths.reshape(len(lengths), -1).max(1, initial=0) > max_len))
    if not cut:
        return None
    share = 100 * cut / len(lengths)
    return (
        f"note: {cut:,} of {len(lengths):,} training examples of {prepared.task} ({share:.1f} %) are longer than "
        f"max_len {max_len:,}; only their first {max_len:,} bytes are read"
    )


def prepared_path(task: str, variant: str, source: str) -> Path:
    """Return the directory of a prepared data set, which need not exist yet.

    Raises:
      DataError: there is no such variant or source.
    """
    module = load_task(task)
    check_request(module.CARD, variant, source)
    found = module.locate(data_directory(), variant, source)
    origin = found[0] if found else None
    return prepared_directory() / prepared_dir_name(task, variant, module.CARD.version, source, origin)


def source_note(task: str, variant: str, source: str, *, requested: bool) -> str | None:
    """Return a sentence on the source that is used and on official files that are not read; None if all are.

    Args:
      requested: the user has chosen the source, so that official files are left out on purpose
    """
    module = load_task(task)
    places = [origin.path for origin in module.locate(data_directory(), variant, source)]
    if places:
        used, unused, advice = f"source {source}, read from {places[0]}", places[1:], "delete or move what is wrong"
    else:
        unused = [] if requested else [origin.path for origin in module.locate(data_directory(), variant, OFFICIAL)]
        used, advice = f"source {source}", f"`--source {OFFICIAL}` reads the first of them"
    if not unused:
        return None
    return f"note: {task} {variant}: {used}; not read: {', '.join(map(str, unused))} ({advice})"


def prepare(
    task: str, variant: str, source: str | None = None, *, allow_sample: bool = False, progress: Progress = no_progress
) -> Prepared:
    """Return a prepared data set, built first if necessary. `source_note` is printed to standard error.

    Raises:
      DataError: source files are missing or damaged; the message says which, where, and how to fix it.
      Interrupted: by Ctrl-C.
    """
    chosen = choose_source(task, variant, source, allow_sample=allow_sample)
    if note := source_note(task, variant, chosen, requested=source is not None):
        print(note, file=sys.stderr)
    target = prepared_path(task, variant, chosen)
    try:
        if not (target / "meta.json").exists():
            _build(task, variant, chosen, target, progress)
    except KeyboardInterrupt as error:
        raise Interrupted(f"{task} {variant}: interrupted; the same command prepares the data") from error
    return read_prepared(target, load_task(task).CARD)


def _build(task: str, variant: str, source: str, target: Path, progress: Progress) -> None:
    """Build a data set unless another process, which is then waited for, has done it meanwhile."""
    title = f"preparing {task} {variant} ({source})"

    def named_progress(action: str, done: int, total: int) -> None:
        progress(f"{title}: {action}", done, total)

    target.parent.mkdir(parents=True, exist_ok=True)
    # The system releases the lock when this process is killed. Without flock, filelock prints a warning, and takes over
    # the lock of a process of this machine that no longer exists.
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        held = lock.acquire(LOCK_SECONDS)
    except Timeout:
        progress(f"{title}: waiting for another process, which prepares the same data", 0, 0)
        held = lock.acquire()
    with held:
        if not (target / "meta.json").exists():
            progress(title, 0, 0)
            module, work_dir = load_task(task), target.with_name(f".{target.name}.work")
            arguments = {"workers": default_workers(), "progress": named_progress, "work_dir": work_dir}
            write_prepared(target, module.CARD, variant, module.build(variant, source, data_directory(), **arguments))
            shutil.rmtree(work_dir, ignore_errors=True)


def class_names(prepared: Prepared, card: Card) -> tuple[str, ...]:
    """Return the names of the classes of a data set; those of a sample may differ from those of the task."""
    return (card.sample_classes if prepared.source.startswith(SAMPLE) else None) or card.classes


def image_side(split: Split) -> int:
    """Return R of images [R, R].

    Raises:
      DataError: not every document has R * R bytes.
    """
    sizes = np.unique(np.diff(split.offsets))
    side = math.isqrt(int(sizes[0])) if len(sizes) == 1 else 0
    if side < 1 or side * side != sizes[0]:
        raise DataError(f"images of {', '.join(map(str, sizes[:3])) or 'no'} bytes are not squares of one size")
    return side
