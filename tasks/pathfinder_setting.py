"""The numbers behind each Pathfinder data set: what LRA set, and what its generator has by default.

Source: the `snakes2` generator (github.com/drewlinsley/pathfinder) with the arguments that LRA's wrapper gives it.
Where LRA's text and its wrapper disagree, the number of distractors is the one that LRA's text prints for `hard`.

Resolution 16 is this suite's own, for quick runs: it has no counterpart in LRA. Contours of 3 to 5 paddles fit there,
and only pairs that keep a clearance are taken, since every second pair touches or crosses and no one could tell its
label. The distance of the markers alone gives about 62 % (52 % at 32 hard): tight curves of few paddles hold their
ends apart, and bends sharper than LRA's (continuity 0.8) are what keeps that from being more.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from tasks.core import DataError

Difficulty = Literal["easy", "intermediate", "hard"]

FINE = 2  # paddles and markers are drawn on a grid this many times finer
TRIES = 3  # of one paddle's end, and of one seed's place
SNAKE_TRIES = 5  # of one distractor


@dataclasses.dataclass(frozen=True)
class Setting:
    """One data set. Lengths are in pixels of the image, unless they count paddles."""

    resolution: int
    contour_length: int  # paddles of each of the two long snakes
    distractor_length: int  # paddles of a distractor
    distractors: int  # slots; one that stays without room after SNAKE_TRIES attempts is left out
    padding: int  # frame that no paddle enters
    border: int  # the first snake starts inside this frame
    seed_distance: int  # between the tails of the two snakes
    clearance: float  # between any tails and heads of the two; 0 in LRA, where they may touch and cross
    paddle_length: int
    paddle_thickness: float
    margins: tuple[int, ...]  # free space around a paddle, drawn for each image
    marker_radius: float
    continuity: float
    snake_contrast: float  # distractors have this contrast
    paddle_contrast: float  # the long snakes have the product of both
    chunk: int  # images of one random stream

    @property
    def attempts(self) -> int:
        """Pairs of snakes that grow side by side: as many as stay in a processor's cache."""
        return max(64, min(2048, 2**21 // self.resolution**2))


_CONTOUR_LENGTH = {"easy": 6, "intermediate": 9, "hard": 14}
_SHORT_CONTOUR_LENGTH = {"easy": 3, "intermediate": 4, "hard": 5}  # at resolution 16

_PADDLES = {16: 4, 32: 20, 64: 22, 128: 35, 256: 30}  # of all distractors together

_COMMON = {
    16: dict(padding=1, seed_distance=4, paddle_length=2, paddle_thickness=0.5, margins=(1,), marker_radius=1.5)
    | dict(border=6, clearance=3.0, continuity=0.8, snake_contrast=2.0, paddle_contrast=0.75, chunk=1000),
    32: dict(padding=1, seed_distance=7, paddle_length=2, paddle_thickness=0.5, margins=(1,), marker_radius=1.5)
    | dict(border=14, clearance=0.0, continuity=1.0, snake_contrast=2.0, paddle_contrast=0.75, chunk=1000),
    64: dict(padding=1, seed_distance=12, paddle_length=5, paddle_thickness=1.0, margins=(1,), marker_radius=2.5)
    | dict(border=24, clearance=0.0, continuity=1.8, snake_contrast=0.8, paddle_contrast=1.0, chunk=100),
    128: dict(padding=1, seed_distance=20, paddle_length=5, paddle_thickness=1.5, margins=(2, 3), marker_radius=3.0)
    | dict(border=40, clearance=0.0, continuity=1.8, snake_contrast=0.9, paddle_contrast=1.0, chunk=100),
    256: dict(padding=22, seed_distance=27, paddle_length=5, paddle_thickness=2.0, margins=(3,), marker_radius=5.0)
    | dict(border=54, clearance=0.0, continuity=1.8, snake_contrast=1.0, paddle_contrast=1.0, chunk=50),
}

RESOLUTIONS = tuple(_COMMON)
DIFFICULTIES = tuple(_CONTOUR_LENGTH)


def setting(resolution: int, difficulty: str) -> Setting:
    """The numbers of one data set.

    Raises:
      DataError: no such resolution or difficulty; the message lists the valid ones.
    """
    if resolution not in _COMMON or difficulty not in _CONTOUR_LENGTH:
        raise DataError(
            f"pathfinder has no resolution {resolution!r} with difficulty {difficulty!r}; "
            f"resolutions: {', '.join(map(str, RESOLUTIONS))}; difficulties: {', '.join(DIFFICULTIES)}"
        )
    length = (_SHORT_CONTOUR_LENGTH if resolution == 16 else _CONTOUR_LENGTH)[difficulty]
    short = max(2, length // 3)
    return Setting(
        resolution=resolution,
        contour_length=length,
        distractor_length=short,
        distractors=_PADDLES[resolution] // short,
        **_COMMON[resolution],
    )
