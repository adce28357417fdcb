"""The numbers behind each Pathfinder data set: what LRA set, and what its generator has by default.

Source: the `snakes2` generator (github.com/drewlinsley/pathfinder) with the arguments that LRA's wrapper gives it.
Where LRA's text and its wrapper disagree, the number of distractors is the one that LRA's text prints for `hard`.

Resolution 16 is this suite's own, for quick runs: it has no counterpart in LRA. Contours of 3 to 5 paddles fit there,
and only pairs that keep a clearance are taken, since every second pair touches or crosses and no one could tell its
label. The distance of the markers alone gives about 64 % (52 % at 32 hard): tight curves of few paddles hold their
ends apart, and bends sharper than LRA's (continuity 0.8) are what keeps that from being more.
"""

from __future__ import annotations

import dataclasses

from tasks.errors import DataError

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


_HARD = {
    16: Setting(
        resolution=16, contour_length=5, distractor_length=2, distractors=2, padding=1, border=6, seed_distance=4,
        clearance=3.0, paddle_length=2, paddle_thickness=0.5, margins=(1,), marker_radius=1.5, continuity=0.8,
        snake_contrast=2.0, paddle_contrast=0.75, chunk=1000,
    ),
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
_BUDGET = {16: 4, 32: 20, 64: 22, 128: 35, 256: 30}  # paddles of all distractors together
_CONTOUR_LENGTH = {"easy": 6, "intermediate": 9, "hard": 14}
_SHORT_CONTOUR_LENGTH = {"easy": 3, "intermediate": 4, "hard": 5}  # at resolution 16


def setting(resolution: int, difficulty: str) -> Setting:
    """The numbers of one data set.

    Raises:
      DataError: no such resolution or difficulty; the message lists the valid ones.
    """
    if resolution not in _HARD or difficulty not in _CONTOUR_LENGTH:
        raise DataError(
            f"pathfinder has no resolution {resolution!r} with difficulty {difficulty!r}; "
            f"resolutions: {', '.join(map(str, _HARD))}; difficulties: {', '.join(_CONTOUR_LENGTH)}"
        )
    length = (_SHORT_CONTOUR_LENGTH if resolution == 16 else _CONTOUR_LENGTH)[difficulty]
    short = max(2, length // 3)
    slots = _BUDGET[resolution] // short
    return dataclasses.replace(_HARD[resolution], contour_length=length, distractor_length=short, distractors=slots)
