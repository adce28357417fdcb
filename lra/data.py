"""From source files to a prepared data set: which source, where it lies, prepared once."""

from __future__ import annotations

import os
from pathlib import Path

from tasks import load_task
from tasks.core import (
    OFFICIAL,
    SAMPLE,
    DataError,
    Prepared,
    Progress,
    build_directory,
    check_request,
    default_workers,
    quiet,
    read_prepared,
    write_prepared,
)

ROOT = Path(__file__).resolve().parent.parent


def data_directory() -> Path:
    """Where the user's source files lie: LRA_DATA, else `data/` in the project."""
    return Path(os.environ.get("LRA_DATA") or ROOT / "data").expanduser().resolve()


def prepared_directory() -> Path:
    """Where prepared data is kept: LRA_PREPARED, else `.cache/prepared/` in the project."""
    return Path(os.environ.get("LRA_PREPARED") or ROOT / ".cache" / "prepared").expanduser().resolve()


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
