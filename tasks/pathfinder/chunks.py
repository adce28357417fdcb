"""Images of Pathfinder in chunks, each from its own random stream, drawn by several processes."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from tasks.arrays import read_npz
from tasks.core import chunk_rng
from tasks.errors import DataError
from tasks.pathfinder.generator import scenes
from tasks.pathfinder.settings import Setting
from tasks.processes import map_in_order

Images = tuple[np.ndarray, np.ndarray]  # grey levels uint8 [k, R, R], labels uint8 [k]


def distinct_images(setting: Setting, n: int, seed: int, workers: int, directory: Path | None) -> Iterator[Images]:
    """Draw n or a few more images, all of them different: at 12 x 12 a quarter is drawn again.

    The images depend only on `setting` and `seed`.

    Args:
      workers: processes that draw chunks at the same time
      directory: for a file of each chunk, so that an interrupted build can be resumed; None: no files
    """
    count = -(-n // setting.chunk)  # enough if no image is drawn twice
    draw = partial(_chunk, setting, seed, directory)
    first = map_in_order(draw, range(count), workers if count > 1 else 1)
    chunks = itertools.chain(first, map(draw, itertools.count(count)))
    seen: set[bytes] = set()
    while len(seen) < n:
        images, labels = _load(next(chunks))
        new = []
        for i, image in enumerate(images):
            digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                new.append(i)
        yield images[new], labels[new]


def _chunk(setting: Setting, seed: int, directory: Path | None, chunk: int) -> Images | Path:
    """Draw the images of one random stream; return them, or the file in which they are or already were stored."""
    path = None if directory is None else directory / f"{chunk:05d}.npz"
    if path is not None and path.exists():
        return path
    drawn = scenes(setting, setting.chunk, chunk_rng(seed, chunk))
    if path is None:
        return drawn.images, drawn.labels
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.stem}.", delete=False) as file:
        np.savez_compressed(file, images=drawn.images, labels=drawn.labels)
    Path(file.name).replace(path)
    return path


def _load(chunk: Images | Path) -> Images:
    if not isinstance(chunk, Path):
        return chunk
    try:
        names = ("images", "labels")
        arrays = read_npz(chunk, dict.fromkeys(names, np.uint8), dict.fromkeys(names, 1 << 30))
        return arrays["images"], arrays["labels"]
    except (OSError, ValueError) as error:
        raise DataError(f"{chunk}: not readable as a chunk of images ({error}); delete it and start again") from error
