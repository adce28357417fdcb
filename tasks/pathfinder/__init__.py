"""Pathfinder: are two marked points on the same dashed curve? (Linsley et al. 2018, with the settings of LRA.)

`tasks.pathfinder.settings` has the variants, `tasks.pathfinder.generator` draws images, `tasks.pathfinder.chunks`
distributes that to processes, and `tasks.pathfinder.official` reads and writes LRA's files.

Scores to exceed: the label is a fair coin. At 32 hard, logistic regression on raw pixels reaches 50 %, and the distance
between the markers gives 52 %; shorter contours give more.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tasks.core import (
    GENERATED,
    OFFICIAL,
    SAMPLE,
    SPLITS,
    Built,
    Card,
    Progress,
    Split,
    Variant,
    check_request,
    no_progress,
)
from tasks.errors import DataError
from tasks.pathfinder.chunks import Images, distinct_images
from tasks.pathfinder.official import candidate_dirs, copy_notes, locate, read_images, read_rows, write_official
from tasks.pathfinder.settings import VARIANTS, setting

__all__ = ["CARD", "build", "generate", "locate", "write_official"]

_SIZES = {"12": (40_000, 1_000, 1_000), "16-short": (100_000, 5_000, 5_000)}
_SAMPLE_SIZES = (1_000, 200, 200)
_SEEDS = {GENERATED: 1805, SAMPLE: 1806}
_RESUMABLE = 64  # pixels of a side; larger images take so long to generate that a build can be resumed
_IN_MEMORY = 2**30  # bytes; larger splits are built in a file

CARD = Card(
    name="pathfinder",
    title="Pathfinder",
    about="do the two marked points lie on the same dashed curve? A picture, read pixel by pixel, row by row",
    version=2,  # 1: some pixels one grey level above the reference generator's; a few images in two splits at 16 x 16
    tokenizer="one byte a pixel, its grey level",
    vocab_size=257,
    classes=("not connected", "connected"),
    pairs=False,
    images=True,
    selection="validation",
    variants={
        name: Variant(
            about=about,
            sizes=dict(zip(SPLITS, _SIZES.get(name, (160_000, 20_000, 20_000)), strict=True)),
            max_bytes=resolution**2,
        )
        for name, (resolution, _, about) in VARIANTS.items()
    },
    sources=(GENERATED, OFFICIAL, SAMPLE),
    obtain=(
        "nothing is needed: the default is generated with the reference generator's distribution. LRA's own draw is in "
        "https://storage.googleapis.com/long-range-arena/lra_release.gz (8 GB; where it is refused, docs/data.md names "
        "others); put its folder pathfinder32/ (pathfinder64/, pathfinder128/, pathfinder256/) into the data directory "
        "or into its folder pathfinder/"
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
    write_official=write_official,
    copy_notes=copy_notes,
    baselines=("pixels",),
    former_variants=("16",),
)


def generate(
    n: int,
    *,
    resolution: int = 32,
    difficulty: str = "hard",
    seed: int,
    workers: int = 1,
    progress: Progress = no_progress,
) -> Images:
    """Generate n different images and their labels: 1 if both markers are on one snake, which a fair coin decides.

    Resolutions 32, 64, 128 (Path-X) and 256 follow LRA's reference generator; 12 and 16 are this suite's own. The
    result depends only on `seed`, resolution and difficulty, not on `workers`. That of a smaller n is a prefix of that
    of a larger n.

    Args:
      difficulty: "easy", "intermediate" or "hard"

    Returns:
      images uint8 [n, R, R], and labels uint8 [n]

    Raises:
      DataError: there is no such resolution or difficulty.
    """
    chunks = distinct_images(setting(resolution, difficulty), n, seed, workers, None)
    return next(_collect(chunks, (n,), resolution, None, "drawing images", progress))


def build(
    variant: str,
    source: str,
    data_dir: Path,
    *,
    workers: int = 1,
    progress: Progress = no_progress,
    work_dir: Path | None = None,
) -> Iterator[Built]:
    """Yield the three splits: generated as one list and cut in the order of `SPLITS`, or LRA's images, cut 80/10/10.

    Args:
      work_dir: for splits of more than 1 GiB and, from 64 x 64 pixels on, for the generated chunks, with which an
        interrupted build is resumed; this build alone uses it. None: chunks are not stored

    Raises:
      DataError: there is no such variant or source, or an official file is missing or damaged.
    """
    check_request(CARD, variant, source)
    resolution, difficulty, _ = VARIANTS[variant]
    chunk_dir = None
    if source == OFFICIAL:
        root = _official_dir(variant, data_dir)
        rows, label = read_rows(root)
        if not (tenth := len(rows) // 10):
            raise DataError(f"{root}: {len(rows)} images; at least 10 are needed, as the splits have 80, 10 and 10 %")
        sizes: Sequence[int] = (len(rows) - 2 * tenth, tenth, tenth)
        chunks, action = read_images(rows, resolution), "reading images"
    else:
        sizes = tuple(CARD.variants[variant].sizes.values()) if source == GENERATED else _SAMPLE_SIZES
        seed = _SEEDS[source]
        if source == GENERATED and resolution >= _RESUMABLE and work_dir is not None:
            chunk_dir = work_dir / f"chunks-seed{seed}"
            chunk_dir.mkdir(parents=True, exist_ok=True)
        chunks = distinct_images(setting(resolution, difficulty), sum(sizes), seed, workers, chunk_dir)
        label, action = f"{source}, seed {seed}", "drawing images"
    for split, images in zip(SPLITS, _collect(chunks, sizes, resolution, work_dir, action, progress), strict=True):
        yield Built(split, Split.from_images(*images), label)
    if chunk_dir is not None:
        shutil.rmtree(chunk_dir, ignore_errors=True)


def _official_dir(variant: str, data_dir: Path) -> Path:
    if not (candidates := candidate_dirs(data_dir, variant)):
        raise DataError(f"LRA has no images of the variant {variant}; it is generated: use the source {GENERATED}")
    if not (found := locate(data_dir, variant)):
        raise DataError(f"pathfinder {variant}: no metadata/ in {', '.join(map(str, candidates))}; {CARD.obtain}")
    return found[0].path


def _collect(
    chunks: Iterator[Images],
    sizes: Sequence[int],
    resolution: int,
    work_dir: Path | None,
    action: str,
    progress: Progress,
) -> Iterator[Images]:
    """Yield images and labels in parts of the given sizes, from chunks of any sizes, one part at a time."""
    images, labels = np.zeros((0, resolution, resolution), np.uint8), np.zeros(0, np.uint8)
    done = 0
    for size in sizes:
        part_images, part_labels = _allocate_images((size, resolution, resolution), work_dir), np.zeros(size, np.uint8)
        filled = 0
        while filled < size:
            if not len(images):
                images, labels = next(chunks)
            count = min(size - filled, len(images))
            part_images[filled : filled + count], part_labels[filled : filled + count] = images[:count], labels[:count]
            images, labels = images[count:], labels[count:]
            filled, done = filled + count, done + count
            progress(action, done, sum(sizes))
        yield part_images, part_labels


def _allocate_images(shape: tuple[int, ...], work_dir: Path | None) -> np.ndarray:
    """Return zeros of uint8: in memory, or in a file without a name, which is deleted with the array."""
    if int(np.prod(shape)) <= _IN_MEMORY:
        return np.zeros(shape, np.uint8)
    if work_dir is not None:
        work_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=work_dir) as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)
