"""Prepared data on disk: a directory with one `.npz` per split and a `meta.json`.

A directory is written under a temporary name and renamed when it is complete, so an unfinished one is never taken for
prepared data. One process at a time writes it: `lra.data.prepare` holds a lock. Files may come from another machine, so
everything that is read is checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tasks.arrays import read_npz
from tasks.core import KINDS, Built, Card, Prepared, Split, has_other_sizes
from tasks.errors import DataError
from tasks.origins import Origin


def prepared_dir_name(task: str, variant: str, version: int, source: str, origin: Origin | None) -> str:
    """Return the name of the directory of a prepared data set.

    The place of the source files, and the name, size and time of every file that is read, are part of the name, so
    prepared data are never used after one of the files was replaced, added or deleted.

    Args:
      origin: the source files; None for data that are generated or downloaded
    """
    name = f"{task}-{variant}-{source}-v{version}"
    if origin is not None:
        digest = hashlib.sha256(os.fsencode(origin.path.resolve()))
        for path, state in origin.files().items():
            digest.update(f"\0{state.size} {state.time} ".encode() + os.fsencode(path))
        name += f"-{digest.hexdigest()[:8]}"
    return name


def write_prepared(target: Path, card: Card, variant: str, built: Iterator[Built]) -> None:
    """Write a data set completely or not at all. What a killed process has left of it is deleted first.

    Raises:
      DataError: a split has no examples, or a label is not one of the card's classes.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        meta: dict[str, Any] = {"task": card.name, "variant": variant, "version": card.version, "splits": {}}
        for part in built:
            examples = part.examples
            if not len(examples):
                raise DataError(
                    f"{card.name} {variant}: {part.split} has no examples ({part.source}); add at least one"
                )
            if examples.labels.max() >= len(card.classes):
                raise DataError(
                    f"{card.name} {part.split}: label {examples.labels.max()} of {len(card.classes)} classes"
                )
            np.savez_compressed(scratch / f"{part.split}.npz", **vars(examples))
            meta["splits"][part.split] = {"examples": len(examples), "sha256": examples.sha256}
            meta["source"] = part.source
        meta["sha256"] = combined_sha256({name: entry["sha256"] for name, entry in meta["splits"].items()})
        (scratch / "meta.json").write_text(json.dumps(meta, indent=1))
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_prepared(directory: Path, card: Card) -> Prepared:
    """Return a prepared data set after checking it.

    Raises:
      DataError: a file is missing, damaged or of another version, or the content does not have the recorded hash.
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
            raise ValueError(f"its splits are not {', '.join(variant.sizes)}, or its source is not a printable text")
        most = 4 * sum(variant.sizes.values())  # examples of a split: other copies may have more of them
        limits = {"labels": most, "items": 2 * most, "offsets": 2 * most + 1, "data": 2 * most * variant.max_bytes}
        splits = {}
        for name in meta["splits"]:
            splits[name] = Split(**read_npz(directory / f"{name}.npz", KINDS, limits))
            if splits[name].labels.max(initial=0) >= len(card.classes):
                raise ValueError(f"{name} has labels beyond {len(card.classes)} classes")
        hashes = {name: split.sha256 for name, split in splits.items()}
        recorded = {name: entry["sha256"] for name, entry in meta["splits"].items()}
        if hashes != recorded or combined_sha256(hashes) != meta["sha256"]:
            raise ValueError("the content does not have the recorded hash")
        counts = {name: len(split) for name, split in splits.items()}
        copy = has_other_sizes(card, meta["variant"], source, counts)
        return Prepared(card.name, meta["variant"], meta["version"], source, meta["sha256"], splits, copy)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{directory}: not readable as prepared data ({error}); {fix}") from error


def combined_sha256(hashes: Mapping[str, str]) -> str:
    """Return the hash of a data set, computed from the hashes of its splits."""
    return hashlib.sha256("".join(f"{name}:{hashes[name]}\n" for name in sorted(hashes)).encode()).hexdigest()
