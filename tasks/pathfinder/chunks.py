"""Pathfinder's images in chunks, each from a random stream of its own, drawn by several processes."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from tasks.arrays import read_npz
from tasks.core import chunk_seed, process_pool
from tasks.errors import DataError
from tasks.pathfinder.generator import scenes
from tasks.pathfinder.settings import Setting


def distinct_images(
    numbers: Setting, n: int, seed: int, workers: int, folder: Path | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draw n images or a few more, each only once: at 16 x 16 about 1 in 2,000 is drawn again.

    Args:
      workers: processes that draw chunks side by side
      folder: for files of the chunks, so that a build that was stopped can be resumed; None: no files

    Yields:
      images uint8 [k, R, R] and labels uint8 [k]; they depend on `numbers` and `seed` alone
    """
    first = -(-n // numbers.chunk)
    more = (_loaded(_chunk(numbers, seed, chunk, folder)) for chunk in itertools.count(first))
    chunks = itertools.chain(_chunks(numbers, n, seed, workers, folder), more)
    seen: set[bytes] = set()
    while len(seen) < n:
        images, labels = next(chunks)
        new = []
        for i, image in enumerate(images):
            digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                new.append(i)
        yield images[new], labels[new]


def _chunks(
    numbers: Setting, n: int, seed: int, workers: int, folder: Path | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """n images or a few more, in chunks; by way of files in `folder`, if there is one: what lies there is not drawn
    again."""
    count = -(-n // numbers.chunk)
    if workers == 1 or count <= 1:
        for chunk in range(count):
            yield _loaded(_chunk(numbers, seed, chunk, folder))
        return
    with process_pool(workers) as pool:
        pending: deque[Future] = deque()
        for chunk in range(count):
            pending.append(pool.submit(_chunk, numbers, seed, chunk, folder))
            if len(pending) > 2 * workers:
                yield _loaded(pending.popleft().result())
        while pending:
            yield _loaded(pending.popleft().result())


_Chunk = tuple[np.ndarray, np.ndarray] | Path


def _chunk(numbers: Setting, seed: int, chunk: int, folder: Path | None) -> _Chunk:
    """Images and labels of one random stream, or the file that has them."""
    path = None if folder is None else folder / f"{chunk:05d}.npz"
    if path is not None and path.exists():
        return path
    drawn = scenes(numbers, numbers.chunk, chunk_seed(seed, chunk))
    if path is None:
        return drawn.images, drawn.labels
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.stem}.", delete=False) as file:
        np.savez_compressed(file, images=drawn.images, labels=drawn.labels)
    Path(file.name).replace(path)
    return path


def _loaded(chunk: _Chunk) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(chunk, Path):
        return chunk
    try:
        names = ("images", "labels")
        arrays = read_npz(chunk, dict.fromkeys(names, np.uint8), dict.fromkeys(names, 1 << 30))
        return arrays["images"], arrays["labels"]
    except (OSError, ValueError) as error:
        raise DataError(f"{chunk}: not readable as a chunk of images ({error}); delete it and start again") from error
