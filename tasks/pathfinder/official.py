"""LRA's files of Pathfinder: `imgs/<batch>/sample_<i>.png` and `metadata/<batch>.npy`.

The metadata of LRA's release are plain text in spite of their name: one row per image, with columns that are separated
by a space. The reference generator writes a numpy array of strings.
Columns: folder (`imgs/<batch>`), file name, index, label, continuity, contour length, distractor length, paddle length,
paddle thickness, margin, number of paddle contrasts.
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
from tasks.arrays import read_strings
from tasks.core import OFFICIAL, SPLITS, Split, source_label
from tasks.errors import DataError
from tasks.origins import Origin, folders
from tasks.pathfinder.chunks import Images
from tasks.pathfinder.settings import VARIANTS, setting

_FILES = ("metadata/*.npy", "imgs/*/*")
_NAMES = {"easy": "curv_baseline", "intermediate": "curv_contour_length_9", "hard": "curv_contour_length_14"}
_COLUMNS = 11
_COPY_IMAGES = 199_999
_LEFT_OUT = "empty images left out"
_BATCH = 1000  # images in a folder
_MAX_METADATA = 1 << 28  # bytes of one file of rows
_IMAGE = re.compile(r"imgs/[^./\\\0][^/\\\0]* [^./\\\0][^/\\\0]*")  # folder and file: none that leads out of the root


class Row(NamedTuple):
    """A row of the metadata: the image's path below the root and its label; `origin` is the row's file and number."""

    root: Path
    name: str
    label: int
    origin: str


def candidate_dirs(data_dir: Path, variant: str) -> list[Path]:
    """Return the directories where LRA's images of a variant may be: none for sizes that LRA lacks."""
    resolution, difficulty, _ = VARIANTS[variant]
    places = folders(data_dir, "pathfinder") if resolution >= 32 else []
    return [place / f"pathfinder{resolution}" / _NAMES[difficulty] for place in places]


def locate(data_dir: Path, variant: str = "full", source: str = OFFICIAL) -> list[Origin]:
    """Return LRA's directories of a variant, with imgs/ and metadata/, that a data directory has."""
    places = candidate_dirs(data_dir, variant) if source == OFFICIAL else []
    return [Origin(path, _FILES) for path in places if (path / "metadata").is_dir()]


def read_rows(root: Path) -> tuple[list[Row], str]:
    """Return the rows of all images in stored order, batches by number, and the name of the source.

    Empty images are left out and counted, as in LRA's reader (its release has one, in curv_baseline).

    Raises:
      DataError: there are no metadata, a row is invalid, or an image is missing.
    """
    files = Origin(root, _FILES).files()
    metadata = [root / name for name in files if name.startswith("metadata/")]
    if not metadata:
        raise DataError(f"{root / 'metadata'} has no .npy files; unpack the whole archive")
    digest, rows, empty = hashlib.sha256(), [], 0
    for file in sorted(metadata, key=lambda path: (len(path.stem), path.stem)):
        content = archives.read_file(file, _MAX_METADATA, "unpack the archive again")
        digest.update(content)
        for row in _parsed(file, content, root):
            if (image := files.get(row.name)) is None:
                raise DataError(f"{row.origin}: there is no image {root / row.name}; unpack the whole archive")
            if image.size:
                rows.append(row)
            else:
                empty += 1
    label = source_label(digest.hexdigest())
    return rows, label + (f", {empty} {_LEFT_OUT}" if empty else "")


def _parsed(file: Path, content: bytes, root: Path) -> Iterator[Row]:
    try:
        if content.startswith(b"\x93NUMPY"):
            lines, rest = [" ".join(row) for row in read_strings(content)], ""
        else:
            *lines, rest = content.decode("ascii").split("\n")
    except ValueError as error:
        raise DataError(
            f"{file}: neither text, as LRA's metadata are, nor an array of strings, as the generator writes ({error}). "
            f"Convert it to text, one row of {_COLUMNS} columns per image"
        ) from error
    for number, line in enumerate(lines, 1):
        columns = line.split(" ")
        if len(columns) != _COLUMNS or columns[3] not in ("0", "1"):
            raise DataError(f"{file}, row {number}: {line[:60]!r} is not {_COLUMNS} columns with a label of 0 or 1")
        if not _IMAGE.fullmatch(" ".join(columns[:2])):
            raise DataError(f"{file}, row {number}: {line[:60]!r} does not name a file in a folder of imgs/")
        yield Row(root, "/".join(columns[:2]), int(columns[3]), f"{file}, row {number}")
    if rest:
        raise DataError(f"{file}, row {len(lines) + 1}: no newline after {rest[:60]!r}; the file is truncated")


def read_images(rows: list[Row], resolution: int) -> Iterator[Images]:
    """Yield images and labels, one batch at a time.

    Raises:
      DataError: an image is damaged, or has another size or mode; the message names it and its row.
    """
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        yield np.stack([_image(row, resolution) for row in batch]), np.array([r.label for r in batch], np.uint8)


def _image(row: Row, resolution: int) -> np.ndarray:
    from PIL import Image

    path = row.root / row.name
    try:
        with Image.open(path, formats=["PNG"]) as image:  # other formats may start programs, as EPS does
            (width, height), mode = image.size, image.mode
            pixels = np.asarray(image) if (width, height, mode) == (resolution, resolution, "L") else None
    except Exception as error:  # Pillow's readers of chunks raise errors of any type
        raise DataError(f"{path} ({row.origin}): not readable as a PNG ({error})") from error
    if pixels is None:
        raise DataError(
            f"{path} ({row.origin}): {width} x {height} pixels of mode {mode}, "
            f"not {resolution} x {resolution} of 8-bit grey"
        )
    return pixels


def copy_notes(splits: Mapping[str, Split], source: str) -> list[str]:
    """Return a note if the number of images is that of a copy of unknown origin, and not that of LRA's release.

    The easy set of the release has as many images, because one of its files is empty.
    """
    if sum(map(len, splits.values())) != _COPY_IMAGES or source.endswith(_LEFT_OUT):
        return []
    return [f"{_COPY_IMAGES:,} images, as many as a copy of unknown origin has; LRA's sets have 200,000"]


def write_official(splits: Mapping[str, Split], directory: Path, variant: str = "full") -> Path:
    """Write LRA's layout, `pathfinder<R>/<difficulty>/`, completely or not at all, and return that folder.

    The splits are stored one after the other; LRA's 80/10/10 cut restores them if they have those sizes. Where the
    margin is drawn for each image (resolution 128), its column is nan, because prepared data do not contain it.

    Raises:
      DataError: the folder exists, or the examples are not square images of a known resolution.
    """
    from PIL import Image

    parts = [splits[name] for name in SPLITS if name in splits]
    lengths = {int(length) for part in parts for length in np.unique(part.lengths)}
    resolution = math.isqrt(max(lengths, default=0))
    if lengths != {resolution**2}:
        raise DataError(f"examples of {sorted(lengths)} bytes are not square images of one size")
    difficulty = VARIANTS[variant][1]
    s = setting(resolution, difficulty)
    target = directory / f"pathfinder{resolution}" / _NAMES[difficulty]
    if target.exists():
        raise DataError(f"{target} exists; delete it or choose another directory")
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
