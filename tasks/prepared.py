"""Prepared data on disk: a directory of one `.npz` per split and a `meta.json`.

A directory is written under a temporary name and renamed when it is complete, so nothing half-written can be taken
for prepared data. What is read may come from another machine and is checked.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tasks.arrays import read_npz
from tasks.core import KINDS, Built, Card, Prepared, Split, has_other_sizes
from tasks.errors import DataError


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
    fix = f"delete {directory}, and it is prepared again when it is next needed"
    try:
        meta = json.loads((directory / "meta.json").read_text("utf-8"))
        if meta["task"] != card.name or meta["version"] != card.version:
            raise DataError(
                f"{directory}: prepared as {meta['task']} version {meta['version']}, "
                f"this is {card.name} version {card.version}; {fix}"
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
        counts = {name: len(split) for name, split in splits.items()}
        copy = has_other_sizes(card, meta["variant"], source, counts)
        return Prepared(card.name, meta["variant"], meta["version"], source, meta["sha256"], splits, copy)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{directory}: not readable as prepared data ({error}); {fix}") from error


def _whole(hashes: Mapping[str, str]) -> str:
    """The hash of a data set, of those of its splits."""
    return hashlib.sha256("".join(f"{name}:{hashes[name]}\n" for name in sorted(hashes)).encode()).hexdigest()
