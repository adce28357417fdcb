"""The variants of Pathfinder and their settings: LRA's, and the defaults of the reference generator.

Source: the `snakes2` generator (github.com/drewlinsley/pathfinder) with the arguments of LRA's wrapper. Where LRA's
text and its wrapper disagree, the number of distractors is that of LRA's text for `hard`.

Resolutions 12 and 16 are this suite's own, for short runs, and have no counterpart in LRA: two snakes of 3 paddles,
smaller markers, no distractors, whatever the difficulty. A pair of snakes that touch or cross is not used, because the
label could not be recognised in so few pixels. The distance of the markers alone gives 51 % at 12 (52 % at 32 hard).
Pictures of 12 x 12 repeat: 42,000 different ones take 56,000 draws, so the last split has more of the rare ones.
"""

from __future__ import annotations

import dataclasses

from tasks.errors import DataError

FINE = 2  # paddles and markers are drawn on a grid that is finer by this factor
TRIES = 3  # for the end of a paddle, and for the place of a first paddle
SNAKE_TRIES = 5  # for a distractor

# Variant: resolution, difficulty, description.
VARIANTS = {
    "full": (32, "hard", "LRA's own, Pathfinder32 hard: contours of 14 paddles in 32 x 32 pixels"),
    "12": (12, "hard", "this suite's own, for quick runs: contours of 3 paddles in 12 x 12 pixels, no distractors"),
    "16-short": (16, "hard", "this suite's own: contours of 3 paddles in 16 x 16 pixels, no distractors"),
    "32-easy": (32, "easy", "LRA's Pathfinder32 baseline: contours of 6 paddles"),
    "32-intermediate": (32, "intermediate", "LRA's Pathfinder32 with contours of 9 paddles"),
    "64": (64, "hard", "LRA's Pathfinder64 hard: contours of 14 paddles in 64 x 64 pixels"),
    "128": (128, "hard", "LRA's Path-X: contours of 14 paddles in 128 x 128 pixels"),
    "256": (256, "hard", "LRA's Pathfinder256 hard: contours of 14 paddles in 256 x 256 pixels"),
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """The settings of one data set. Lengths are in pixels of the image, unless they count paddles."""

    resolution: int
    contour_length: int  # paddles of each of the two long snakes
    distractor_length: int  # paddles of a distractor
    distractors: int  # largest number; one that finds no room in SNAKE_TRIES attempts is left out
    padding: int  # width of the frame that no paddle enters
    border: int  # width of the frame inside which the first snake starts
    seed_distance: int  # between the tails of the two snakes
    clearance: float  # least distance between ends of paddles of the two; 0 in LRA, where snakes may touch and cross
    paddle_length: int
    paddle_thickness: float
    margins: tuple[int, ...]  # widths of the free space around a paddle, one of them drawn for each image
    marker_radius: float
    continuity: float  # the larger, the smaller the turns between successive paddles
    snake_contrast: float  # of distractors
    paddle_contrast: float  # of the long snakes, relative to distractors
    chunk: int  # images of one random stream

    @property
    def attempts(self) -> int:
        """Pairs of snakes that grow at the same time: as many as fit into a processor's cache."""
        return max(64, min(2048, 2**21 // self.resolution**2))


_SMALL = Setting(
    resolution=12, contour_length=3, distractor_length=2, distractors=0, padding=1, border=4, seed_distance=4,
    clearance=3.0, paddle_length=2, paddle_thickness=0.5, margins=(1,), marker_radius=1.0, continuity=0.8,
    snake_contrast=2.0, paddle_contrast=0.75, chunk=1000,
)  # fmt: skip
_HARD = {
    12: _SMALL,
    16: dataclasses.replace(_SMALL, resolution=16, border=5, seed_distance=5),
    32: Setting(
        resolution=32, contour_length=14, distractor_length=4, distractors=5, padding=1, border=14, seed_distance=7,
        clearance=0.0, paddle_length=2, paddle_thickness=0.5, margins=(1,), marker_radius=1.5, continuity=1.0,
        snake_contrast=2.0, paddle_contrast=0.75, chunk=1000,
    ),
    64: Setting(
        resolution=64, contour_length=14, distractor_length=4, distractors=5, padding=1, border=24, seed_distance=12,
        clearance=0.0, paddle_length=5, paddle_thickness=1.0, margins=(1,), marker_radius=2.5, continuity=1.8,
        snake_contrast=0.8, paddle_contrast=1.0, chunk=100,
    ),
    128: Setting(
        resolution=128, contour_length=14, distractor_length=4, distractors=8, padding=1, border=40, seed_distance=20,
        clearance=0.0, paddle_length=5, paddle_thickness=1.5, margins=(2, 3), marker_radius=3.0, continuity=1.8,
        snake_contrast=0.9, paddle_contrast=1.0, chunk=100,
    ),
    256: Setting(
        resolution=256, contour_length=14, distractor_length=4, distractors=7, padding=22, border=54, seed_distance=27,
        clearance=0.0, paddle_length=5, paddle_thickness=2.0, margins=(3,), marker_radius=5.0, continuity=1.8,
        snake_contrast=1.0, paddle_contrast=1.0, chunk=50,
    ),
}  # fmt: skip
_BUDGET = {12: 0, 16: 0, 32: 20, 64: 22, 128: 35, 256: 30}  # paddles of all distractors together
_CONTOUR_LENGTH = {"easy": 6, "intermediate": 9, "hard": 14}


def setting(resolution: int, difficulty: str) -> Setting:
    """Return the settings of one data set.

    Raises:
      DataError: there is no such resolution or difficulty; the message lists the valid ones.
    """
    if resolution not in _HARD or difficulty not in _CONTOUR_LENGTH:
        raise DataError(
            f"pathfinder has no resolution {resolution!r} with difficulty {difficulty!r}; "
            f"resolutions: {', '.join(map(str, _HARD))}; difficulties: {', '.join(_CONTOUR_LENGTH)}"
        )
    length = _CONTOUR_LENGTH[difficulty] if resolution >= 32 else _HARD[resolution].contour_length
    short = max(2, length // 3)
    slots = _BUDGET[resolution] // short
    return dataclasses.replace(_HARD[resolution], contour_length=length, distractor_length=short, distractors=slots)
