"""Small sets of official files of each task, in a directory or packed, for tests."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tasks import image, listops, pathfinder, text
from tasks.core import SPLITS, Split

FOLDERS = {  # the directory that holds the files of a task, in the data directory or in one of its folders
    "listops": "",
    "text": "aclImdb",
    "retrieval": "",
    "image": "cifar-10-batches-bin",
    "pathfinder": "pathfinder32/curv_contour_length_14",
}
ARCHIVES = {"text": "aclImdb_v1.tar.gz", "retrieval": "aan.tar.gz", "image": "cifar-10-binary.tar.gz"}


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Text have one review of each class, and Image two images in a file."""
    monkeypatch.setattr(text, "PER_CLASS", 1)
    monkeypatch.setattr(image, "RECORDS", 2)
    monkeypatch.setattr(image, "TRAIN", 8)


def write(task: str, place: Path, number: int = 0) -> Path:
    """Write the files of a task below a place where they are looked for, and return their directory.

    Args:
      number: sets of different numbers have different contents
    """
    directory = place / FOLDERS[task]
    if task == "pathfinder":
        images, labels = pathfinder.generate(20, seed=number)
        cuts = dict(zip(SPLITS, (slice(0, 16), slice(16, 18), slice(18, 20)), strict=True))
        return pathfinder.write_official({n: Split.from_images(images[c], labels[c]) for n, c in cuts.items()}, place)
    if task == "listops":
        for size, split in enumerate(SPLITS, 1):
            examples = Split.from_documents([listops.encode(f"[SM {number} 1 ]")] * size, [number + 1] * size)
            listops.write_official({split: examples}, directory)
        return directory
    for name, content in _files(task, number).items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


def pack(task: str, place: Path, extra: dict[str, bytes], number: int = 0) -> Path:
    """Write the archive of a task with extra members, which come first, and return its path."""
    place.mkdir(parents=True, exist_ok=True)
    folder = FOLDERS[task] or "aan"
    members = extra | {f"{folder}/{name}": content for name, content in _files(task, number).items()}
    with tarfile.open(place / ARCHIVES[task], "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return place / ARCHIVES[task]


def _files(task: str, number: int) -> dict[str, bytes]:
    if task == "retrieval":
        names = [f"new_aan_pairs.{part}" for part in ("train", "eval", "test")]
        ids = {f"{name}.only_ids.tsv": f"1.0\tA{i}\tB\n".encode() for i, name in enumerate(names)}
        return ids | {f"papers_text/{paper}.txt": f"{paper} {number}".encode() for paper in ("A0", "A1", "A2", "B")}
    if task == "text":
        reviews = [(split, *kind) for split in ("train", "test") for kind in (("neg", 2), ("pos", 9))]
        return {f"{s}/{label}/0_{stars}.txt": f"{s} {stars} {number}".encode() for s, label, stars in reviews}
    draw = np.random.RandomState(number)
    return {name: b"".join(bytes([i]) + draw.bytes(3072) for i in range(2)) for name in image.FILES}
