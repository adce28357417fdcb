"""Pathfinder: do two marked points lie on one dashed curve? (Linsley et al. 2018, as LRA set it.)

Here are the card, the data sets, and `generate`; `tasks.pathfinder.generator` draws, `tasks.pathfinder.chunks` shares
that out to processes, `tasks.pathfinder.settings` has the numbers, `tasks.pathfinder.official` reads and writes LRA's
files.

What a model must beat: the label is a fair coin. At 32 hard, logistic regression on raw pixels stays at 50 %, the
distance between the markers gives 52 %; at shorter contours it gives more.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tasks.core import GENERATED, OFFICIAL, SAMPLE, SPLITS, Built, Card, Progress, Split, Variant, check_request, quiet
from tasks.errors import DataError
from tasks.pathfinder.chunks import distinct_images
from tasks.pathfinder.official import places, read_images, read_rows, write_official
from tasks.pathfinder.settings import setting

__all__ = ["CARD", "build", "generate", "locate", "write_official"]

_SETTINGS = {
    "full": (32, "hard"),
    "16": (16, "hard"),
    "32-easy": (32, "easy"),
    "32-intermediate": (32, "intermediate"),
    "64": (64, "hard"),
    "128": (128, "hard"),
    "256": (256, "hard"),
}
_ABOUT = {
    "full": "LRA's own, Pathfinder32 hard: contours of 14 paddles in 32 x 32 pixels",
    "16": "this suite's own, for quick runs: contours of 5 paddles in 16 x 16 pixels",
    "32-easy": "LRA's Pathfinder32 baseline: contours of 6 paddles",
    "32-intermediate": "LRA's Pathfinder32 with contours of 9 paddles",
    "64": "LRA's Pathfinder64 hard: contours of 14 paddles in 64 x 64 pixels",
    "128": "LRA's Path-X: contours of 14 paddles in 128 x 128 pixels",
    "256": "LRA's Pathfinder256 hard: contours of 14 paddles in 256 x 256 pixels",
}
_SIZES = {"16": (40_000, 1_000, 1_000)}
_SAMPLE_SIZES = (1_000, 200, 200)
_SEEDS = {GENERATED: 1805, SAMPLE: 1806}
_LONG = 64  # from this resolution on, generating takes long enough to be resumed
_IN_MEMORY = 2**30  # bytes; larger splits are built in a file


def _variant(name: str) -> Variant:
    sizes = dict(zip(SPLITS, _SIZES.get(name, (160_000, 20_000, 20_000)), strict=True))
    return Variant(about=_ABOUT[name], sizes=sizes, max_bytes=_SETTINGS[name][0] ** 2)


CARD = Card(
    name="pathfinder",
    title="Pathfinder",
    about="do the two marked points lie on the same dashed curve? A picture, read pixel by pixel, row by row",
    version=2,  # 1: some pixels one grey level above the reference generator's; a few images in two splits at 16 x 16
    tokenizer="one byte a pixel, its grey level",
    vocab_size=257,
    classes=("not connected", "connected"),
    pairs=False,
    pictures=True,
    selection="validation",
    variants={name: _variant(name) for name in _SETTINGS},
    sources=(GENERATED, OFFICIAL, SAMPLE),
    obtain=(
        "nothing is needed: the default is generated with the reference generator's distribution. LRA's own draw is in "
        "https://storage.googleapis.com/long-range-arena/lra_release.gz (8 GB); put its folder "
        "pathfinder32/ (pathfinder64/, pathfinder128/, pathfinder256/) into the data directory"
    ),
    licence=(
        "generated here by a new implementation; the reference generator (github.com/drewlinsley/pathfinder) is under "
        "the MIT licence, LRA's code under Apache-2.0"
    ),
    citation=(
        "Linsley et al., Learning long-range spatial dependencies with horizontal gated recurrent units, NeurIPS 2018, "
        "arXiv:1805.08315; Kim et al., Disentangling neural mechanisms for perceptual grouping, ICLR 2020, "
        "arXiv:1906.01558; Tay et al., Long Range Arena, ICLR 2021, arXiv:2011.04006"
    ),
)


def generate(
    n: int,
    *,
    resolution: int = 32,
    difficulty: str = "hard",
    seed: int,
    workers: int = 1,
    progress: Progress = quiet,
) -> tuple[np.ndarray, np.ndarray]:
    """n images uint8 [n, R, R] and their labels uint8 [n]: 1 where both markers lie on one snake.

    Resolutions 32, 64, 128 (Path-X) and 256 follow LRA's reference generator; 16 is this suite's own. The label is a
    fair coin. No image occurs twice. Depends on `seed`, the resolution and the difficulty alone, not on `workers`; what
    a smaller n gives is a prefix of what a larger one gives.

    Raises:
      DataError: no such resolution or difficulty ("easy", "intermediate", "hard").
    """
    numbers = setting(resolution, difficulty)
    images = np.zeros((n, resolution, resolution), np.uint8)
    labels = np.zeros(n, np.uint8)
    done = 0
    for part, marks in distinct_images(numbers, n, seed, workers, None):
        here = slice(done, done := min(n, done + len(part)))
        images[here], labels[here] = part[: n - here.start], marks[: n - here.start]
        progress("draw images", done, n)
    return images, labels


# ---- the task


def locate(data_dir: Path, variant: str = "full") -> Path | None:
    """LRA's folder of this variant, the one with imgs/ and metadata/, if the data directory has it."""
    return next((path for path in _places(data_dir, variant) if (path / "metadata").is_dir()), None)


def _places(data_dir: Path, variant: str) -> list[Path]:
    return [] if variant == "16" else places(data_dir, *_SETTINGS[variant])


def build(
    variant: str,
    source: str,
    data_dir: Path,
    *,
    workers: int = 1,
    progress: Progress = quiet,
    work_dir: Path | None = None,
) -> Iterator[Built]:
    """The three splits: generated as one list and cut in the order of `SPLITS`, or LRA's images, cut 80/10/10.

    Generating 64 x 64 and more keeps its chunks in `work_dir` until the last split is taken, so that a build that was
    stopped goes on where it was. Splits of more than 1 GiB lie in a file there, not in memory. The default is a folder
    of its own among the prepared data: LRA_PREPARED, else .cache/prepared.

    Raises:
      DataError: no such variant or source; an official file is missing or broken; the work directory cannot be used.
    """
    check_request(CARD, variant, source)
    if source == OFFICIAL:
        yield from _build_official(variant, data_dir, progress, work_dir)
        return
    numbers, seed = setting(*_SETTINGS[variant]), _SEEDS[source]
    sizes = tuple(CARD.variants[variant].sizes.values()) if source == GENERATED else _SAMPLE_SIZES
    folder = None
    if source == GENERATED and numbers.resolution >= _LONG:
        folder = _work_folder(work_dir, f"{variant}-v{CARD.version}-seed{seed}")
    chunks = distinct_images(numbers, sum(sizes), seed, workers, folder)
    for split, examples in _cut(chunks, sizes, numbers.resolution, work_dir, "draw images", progress):
        yield Built(split, examples, f"{source}, seed {seed}")
    if folder is not None:
        shutil.rmtree(folder)


def _build_official(variant: str, data_dir: Path, progress: Progress, work_dir: Path | None) -> Iterator[Built]:
    if variant == "16":
        raise DataError(f"LRA has no 16 x 16 images; the variant 16 is generated: use the source {GENERATED}")
    root = locate(data_dir, variant)
    if root is None:
        looked = ", ".join(map(str, _places(data_dir, variant)))
        raise DataError(f"pathfinder {variant}: no metadata/ in {looked}; {CARD.obtain}")
    rows, label = read_rows(root)
    tenth = len(rows) // 10
    sizes = (len(rows) - 2 * tenth, tenth, tenth)
    resolution = _SETTINGS[variant][0]
    for split, examples in _cut(read_images(rows, resolution), sizes, resolution, work_dir, "read images", progress):
        yield Built(split, examples, label)


def _cut(
    chunks: Iterator[tuple[np.ndarray, np.ndarray]],
    sizes: tuple[int, ...],
    resolution: int,
    work_dir: Path | None,
    what: str,
    progress: Progress,
) -> Iterator[tuple[str, Split]]:
    """Chunks of any sizes to splits of the given ones, one in memory (or in a file) at a time."""
    part, marks = np.zeros((0, resolution, resolution), np.uint8), np.zeros(0, np.uint8)
    done = 0
    for split, size in zip(SPLITS, sizes, strict=True):
        images = _room((size, resolution, resolution), work_dir)
        labels = np.zeros(size, np.uint8)
        filled = 0
        while filled < size:
            if not len(part):
                part, marks = next(chunks)
            here = slice(filled, filled := min(size, filled + len(part)))
            taken = here.stop - here.start
            images[here], labels[here] = part[:taken], marks[:taken]
            part, marks = part[taken:], marks[taken:]
            progress(what, done := done + taken, sum(sizes))
        yield split, Split.from_images(images, labels)


def _room(shape: tuple[int, ...], work_dir: Path | None) -> np.ndarray:
    """Space for images: in memory, or in a file without a name, which vanishes with the array."""
    if int(np.prod(shape)) <= _IN_MEMORY:
        return np.zeros(shape, np.uint8)
    with tempfile.TemporaryFile(dir=_work_folder(work_dir, "")) as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)


def _work_folder(work_dir: Path | None, name: str) -> Path:
    prepared = os.environ.get("LRA_PREPARED") or Path(__file__).resolve().parents[2] / ".cache" / "prepared"
    folder = (work_dir or Path(prepared).expanduser() / ".pathfinder-chunks") / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"pathfinder: {folder} cannot be made ({error}); set LRA_PREPARED to a directory with room to write"
        ) from error
    return folder
