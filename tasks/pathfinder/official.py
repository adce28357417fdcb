"""LRA's files of Pathfinder: `imgs/<batch>/sample_<i>.png` and `metadata/<batch>.npy`.

The metadata is plain text in spite of its name: a row an image, columns parted by a space, each row ended by a newline.
Columns: folder (`imgs/<batch>`), file name, index, label, continuity, contour length, distractor length, paddle length,
paddle thickness, margin, number of paddle contrasts. The generator itself writes a binary array, LRA's release text.
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks import archives
from tasks.core import SPLITS, Split, source_label
from tasks.errors import DataError
from tasks.pathfinder.settings import setting

_FOLDERS = ("", "lra_release", "lra_release/lra_release")
_NAMES = {"easy": "curv_baseline", "intermediate": "curv_contour_length_9", "hard": "curv_contour_length_14"}
_COLUMNS = 11
_BATCH = 1000  # images a folder
_MAX_METADATA = 1 << 28  # bytes of one file of rows
_IMAGE = re.compile(r"imgs/[^./\\\0][^/\\\0]* [^./\\\0][^/\\\0]*")  # folder and file: none that leads out of the root


class Row(NamedTuple):
    image: Path
    label: int
    origin: str  # the file and row that name it


def places(data_dir: Path, resolution: int, difficulty: str) -> list[Path]:
    """Where LRA's folder of one data set may lie."""
    return [data_dir / folder / f"pathfinder{resolution}" / _NAMES[difficulty] for folder in _FOLDERS]


def read_rows(root: Path) -> tuple[list[Row], str]:
    """Every image in stored order, batches by number, and what the source is called, by the hash of its metadata.

    Empty images are left out and counted, as LRA's reader leaves them out (its release has one, in curv_baseline).

    Raises:
      DataError: no metadata, a broken row, or an image that is missing.
    """
    files = sorted((root / "metadata").glob("*.npy"), key=lambda path: (len(path.stem), path.stem))
    if not files:
        raise DataError(f"{root / 'metadata'} has no .npy files; is the archive unpacked as a whole?")
    digest, rows, empty = hashlib.sha256(), [], 0
    for file in files:
        content = archives.content(file, _MAX_METADATA, "unpack the archive again")
        digest.update(content)
        for row in _parsed(file, content, root):
            try:
                size = row.image.stat().st_size
            except OSError as error:
                raise DataError(f"{row.origin}: {row.image} cannot be read ({error.strerror})") from error
            if size:
                rows.append(row)
            else:
                empty += 1
    label = source_label(digest.hexdigest(), {})  # no hash of the release has been published
    return rows, label + (f", {empty} empty images left out" if empty else "")


def _parsed(file: Path, content: bytes, root: Path) -> Iterator[Row]:
    try:
        *lines, rest = content.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not text ({error.reason} at byte {error.start}); LRA's metadata is, a row an image. "
            "The reference generator's own binary arrays have to be written as text first"
        ) from error
    for number, line in enumerate(lines, 1):
        columns = line.split(" ")
        if len(columns) != _COLUMNS or columns[3] not in ("0", "1"):
            raise DataError(f"{file}, row {number}: {line[:60]!r} is not {_COLUMNS} columns with a label of 0 or 1")
        if not _IMAGE.fullmatch(" ".join(columns[:2])):
            raise DataError(f"{file}, row {number}: {line[:60]!r} names no file in a folder of imgs/")
        yield Row(root / columns[0] / columns[1], int(columns[3]), f"{file}, row {number}")
    if rest:
        raise DataError(f"{file}, row {len(lines) + 1}: no newline after {rest[:60]!r}; the file is cut off")


def read_images(rows: list[Row], resolution: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images uint8 [k, R, R] and labels uint8 [k], some at a time.

    Raises:
      DataError: an image that is broken, or has another size or mode; the message names it and its row.
    """
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        yield np.stack([_image(row, resolution) for row in batch]), np.array([r.label for r in batch], np.uint8)


def _image(row: Row, resolution: int) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(row.image, formats=["PNG"]) as image:  # others may start programs, as EPS does
            (width, height), mode = image.size, image.mode
            pixels = np.asarray(image) if (width, height, mode) == (resolution, resolution, "L") else None
    except Exception as error:  # Pillow lets out whatever its readers of chunks stumble over
        raise DataError(f"{row.image} ({row.origin}): not readable as a PNG ({error})") from error
    if pixels is None:
        raise DataError(
            f"{row.image} ({row.origin}): {width} x {height} pixels of mode {mode}, "
            f"not {resolution} x {resolution} of 8-bit grey"
        )
    return pixels


def write_official(splits: Mapping[str, Split], directory: Path, *, difficulty: str = "hard") -> Path:
    """Writes LRA's layout, `pathfinder<R>/<difficulty>/`, as a whole or not at all; returns that folder.

    The splits follow each other in stored order; LRA's 80/10/10 cut gives them back if they have those sizes.
    Where the margin is drawn for each image (resolution 128), its column says nan: prepared data does not keep it.

    Raises:
      DataError: the folder exists, or the examples are not square images of a known resolution.
    """
    from PIL import Image

    parts = [splits[name] for name in SPLITS if name in splits]
    lengths = {int(length) for part in parts for length in np.unique(part.lengths)}
    resolution = math.isqrt(max(lengths, default=0))
    if lengths != {resolution**2}:
        raise DataError(f"examples of {sorted(lengths)} bytes are not square images of one size")
    s = setting(resolution, difficulty)
    target = directory / f"pathfinder{resolution}" / _NAMES[difficulty]
    if target.exists():
        raise DataError(f"{target} exists; nothing is written over it: delete it or choose another directory")
    margin = str(s.margins[0]) if len(s.margins) == 1 else "nan"
    shape = (s.continuity, s.contour_length, s.distractor_length, s.paddle_length, s.paddle_thickness, margin, 1)
    tail = " ".join(map(str, shape))
    examples = [(part.document(d), label) for part in parts for d, label in zip(part.items, part.labels, strict=True)]

    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        (scratch / "metadata").mkdir()
        for batch in range(-(-len(examples) // _BATCH)):
            folder = f"imgs/{batch}"
            (scratch / folder).mkdir(parents=True)
            rows = []
            for i, (pixels, label) in enumerate(examples[batch * _BATCH : (batch + 1) * _BATCH]):
                image = np.frombuffer(pixels, np.uint8).reshape(resolution, resolution)
                Image.fromarray(image).save(scratch / folder / f"sample_{i}.png")
                rows.append(f"{folder} sample_{i}.png {i} {label} {tail}\n")
            (scratch / "metadata" / f"{batch}.npy").write_text("".join(rows), encoding="ascii")
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target
