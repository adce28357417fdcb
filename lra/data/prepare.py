"""Preparation of data: from source files or a generator to a checked data set on disk. It is done once."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from lra.errors import ConfigError
from lra.paths import data_directory, prepared_directory
from tasks import load_task
from tasks.core import OFFICIAL, SAMPLE, Card, Prepared, Progress, Split, check_request, no_progress
from tasks.errors import DataError
from tasks.prepared import prepared_dir_name, read_prepared, write_prepared
from tasks.processes import default_workers


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
    if first != OFFICIAL or module.locate(data_directory(), variant) is not None:
        return first
    if allow_sample:
        return SAMPLE
    raise DataError(
        f"{task}: no official files in {data_directory()}. {card.obtain}. "
        f"Set LRA_DATA to the directory that has them, or use `--source sample` for a small generated data set."
    )


def check_length(card: Card, variant: str, max_len: int) -> None:
    """Check that no image is longer than `max_len`, because an image must not be cut.

    Raises:
      ConfigError: `max_len` is shorter than the images of the variant.
    """
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
    origin = module.locate(data_directory(), variant) if source == OFFICIAL else None
    return prepared_directory() / prepared_dir_name(task, variant, module.CARD.version, source, origin)


def prepare(
    task: str, variant: str, source: str | None = None, *, allow_sample: bool = False, progress: Progress = no_progress
) -> Prepared:
    """Return a prepared data set, built first if necessary.

    Raises:
      DataError: source files are missing or damaged; the message says which, where, and how to fix it.
    """
    module = load_task(task)
    source = choose_source(task, variant, source, allow_sample=allow_sample)
    target = prepared_path(task, variant, source)
    if not (target / "meta.json").exists():
        title = f"preparing {task} {variant} ({source})"

        def named_progress(action: str, done: int, total: int) -> None:
            progress(f"{title}: {action}", done, total)

        progress(title, 0, 0)
        built = module.build(variant, source, data_directory(), workers=default_workers(), progress=named_progress)
        write_prepared(target, module.CARD, variant, built)
    return read_prepared(target, module.CARD)


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
