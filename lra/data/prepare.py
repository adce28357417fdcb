"""From source files to a prepared data set: which source is used, where it is stored; data are prepared once."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from lra.errors import ConfigError
from lra.paths import data_directory, prepared_directory
from tasks import load_task
from tasks.core import OFFICIAL, SAMPLE, Card, Prepared, Progress, Split, check_request, default_workers, quiet
from tasks.errors import DataError
from tasks.prepared import build_directory, read_prepared, write_prepared


def choose_source(task: str, variant: str, source: str | None, *, allow_sample: bool) -> str:
    """The source that is used: the one asked for, else the first of the task's that is at hand.

    Raises:
      DataError: no such source; or official files are needed and are not there.
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
        f"Set LRA_DATA to the directory that has them, or take `--source sample` for a small generated data set."
    )


def check_length(card: Card, variant: str, max_len: int) -> None:
    """Check that no input of a task whose inputs are pictures is longer than `max_len`: a cut picture is not one.

    Raises:
      ConfigError: `max_len` is shorter than the pictures of the variant.
    """
    if card.pictures and variant in card.variants and max_len < (pixels := card.variants[variant].max_bytes):
        raise ConfigError(
            f"{card.name} {variant}: a picture has {pixels:,} pixels and max_len is {max_len:,}, but pictures are not "
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
    """Directory of the prepared data set, whether it is there yet or not."""
    module = load_task(task)
    check_request(module.CARD, variant, source)
    origin = module.locate(data_directory(), variant) if source == OFFICIAL else None
    return build_directory(prepared_directory(), task, variant, module.CARD.version, source, origin)


def prepare(
    task: str, variant: str, source: str | None = None, *, allow_sample: bool = False, progress: Progress = quiet
) -> Prepared:
    """The prepared data set, built first if need be.

    Raises:
      DataError: source files are missing or broken; the message says which, where, and how to mend it.
    """
    module = load_task(task)
    source = choose_source(task, variant, source, allow_sample=allow_sample)
    target = prepared_path(task, variant, source)
    if not (target / "meta.json").exists():
        built = module.build(variant, source, data_directory(), workers=default_workers(), progress=progress)
        write_prepared(target, module.CARD, variant, built)
    return read_prepared(target, module.CARD)


def class_names(prepared: Prepared, card: Card) -> tuple[str, ...]:
    """Names of the classes as they are in this data: the sample of Image shows figures, not aeroplanes."""
    if card.name == "image" and prepared.source.startswith(SAMPLE):
        from tasks.image.sample import CLASSES

        return CLASSES
    return card.classes


def image_side(split: Split) -> int:
    """R of pictures [R, R].

    Raises:
      DataError: not every document has R * R bytes.
    """
    sizes = np.unique(np.diff(split.offsets))
    side = math.isqrt(int(sizes[0])) if len(sizes) == 1 else 0
    if side < 1 or side * side != sizes[0]:
        raise DataError(f"pictures of {', '.join(map(str, sizes[:3])) or 'no'} bytes are not squares of one size")
    return side
