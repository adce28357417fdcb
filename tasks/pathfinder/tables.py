"""Everything about a paddle's next step that can be known beforehand, as tables.

A paddle is in one of K + 360 *states*. State k < K: it ends at the k-th cell of the circle around its pivot.
State K + d: it is the first of its snake and points to d - 180 degrees. The state fixes the paddle's picture, and how
likely each cell of the next circle is.

Images lie in frames with a margin, so that nothing needs clipping: `frame` wide, and a cell's number is
`y * frame + x`, with y and x counted in the frame.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from tasks.pathfinder.settings import Setting
from tasks.pathfinder.stamps import Markers, dilate, paddle_stamps

DEGREES = np.arange(-180, 180)


@dataclasses.dataclass(frozen=True)
class Stamp:
    """Pictures as lists of their cells. Short lists repeat their first cell, which changes no maximum."""

    offset: np.ndarray  # int64 [states, cells], from the anchor's cell
    value: np.ndarray  # uint8 [states, cells]

    @classmethod
    def of(cls, pictures: np.ndarray, frame: int, least: int = 1) -> Stamp:
        """uint8 [states, S, S]: the cells with `least` or more."""
        half = pictures.shape[-1] // 2
        width = int(np.max(np.sum(pictures >= least, (1, 2))))
        offset = np.zeros((len(pictures), width), np.int64)
        value = np.zeros((len(pictures), width), np.uint8)
        for i, picture in enumerate(pictures):
            y, x = np.nonzero(picture >= least)
            offset[i] = (y[0] - half) * frame + x[0] - half
            value[i] = picture[y[0], x[0]]
            offset[i, : len(y)] = (y - half) * frame + x - half
            value[i, : len(y)] = picture[y, x]
        return cls(offset, value)

    def press(self, canvas: np.ndarray, cell: np.ndarray, state: np.ndarray) -> None:
        """Maximum of `canvas` (flat) and one picture for each anchor in `cell`, which lie in different frames."""
        cells = cell[:, None] + self.offset[state]
        canvas[cells] = np.maximum(canvas[cells], self.value[state])


@dataclasses.dataclass(frozen=True)
class Tables:
    """See the module. Masks are in units of 255: 0 is free, 255 is taken."""

    setting: Setting
    margin: int
    pad: int
    frame: int
    steps: int  # K, the cells of the circle
    jump: np.ndarray  # int64 [K], from the pivot to the cells of the circle
    weight: np.ndarray  # float32 [states, K], smoothness of going on from a state to a cell
    next_pivot: np.ndarray  # int64 [2, states, frame], y and x of the pivot after that at y or x
    seed_head: np.ndarray  # int64 [2, 360, frame], the end of a first paddle with this tail
    seed_pivot: np.ndarray  # int64 [2, 360, frame]
    seed_distance: np.ndarray  # float64 [2, 360], from the first snake's tail to the second's, in whole degrees
    kernels: tuple[np.ndarray, ...]  # int64 [cells, 2], what must be free around the tail of a first paddle
    kernel: np.ndarray  # int64 [360], which of them; -1: the reference finds no place for this angle, ever
    line: Stamp
    mask: Stamp  # with its margin; without what is too faint to matter
    core: Stamp  # what of the mask can collide
    wide: Stamp  # mask dilated by the margin
    empty_mask: np.ndarray  # uint8 [frame * frame], before the first paddle
    empty_wide: np.ndarray
    markers: Markers

    @property
    def area(self) -> int:
        return self.frame * self.frame


OCCUPIED = 77  # of 255: more than 0.3 keeps first paddles away
COLLISION = 459  # of 255: mask and mask add up to 1.8
FAINTEST = COLLISION - 255  # what is less collides with nothing


@functools.lru_cache(maxsize=8)
def tables(setting: Setting, margin: int) -> Tables:
    """The tables of one data set and margin; a second or less, kept for the next call."""
    resolution, length = setting.resolution, setting.paddle_length
    radius = length + margin
    half = length + math.ceil(setting.paddle_thickness) + margin
    markers = Markers(resolution, setting.marker_radius)
    pad = max(2 * radius + 1, half + margin, markers.half)
    frame = resolution + 2 * pad

    circle = _circle(radius)
    heading = [math.atan2(dy, dx) for dy, dx in circle]
    seed = [radians(int(d)) for d in DEGREES]
    # A later paddle is drawn from its head backwards, a first one from its tail forwards.
    line, mask, wide = paddle_stamps([_opposite(a) for a in heading] + seed, length, setting.paddle_thickness, margin)
    steps = len(circle)
    kernels, kernel = _kernels(mask[steps:], radius, resolution)

    # Beyond `radius` outside the image a pivot reaches no cell of it: it may stay there.
    coordinate = np.arange(frame) - pad
    low, high = -radius - 1, resolution + radius
    seed_head = _moved(seed, length, coordinate)
    seed_pivot = _moved([_opposite(a) for a in seed], radius, seed_head)

    empty = np.full((resolution, resolution), 255, np.uint8)
    empty[setting.padding : -setting.padding, setting.padding : -setting.padding] = 0
    return Tables(
        setting=setting,
        margin=margin,
        pad=pad,
        frame=frame,
        steps=steps,
        jump=np.array([dy * frame + dx for dy, dx in circle]),
        weight=_smoothness(heading + seed, heading, setting.continuity),
        next_pivot=np.clip(_moved(heading + seed, length + 2 * margin, coordinate), low, high) + pad,
        seed_head=seed_head + pad,
        seed_pivot=seed_pivot + pad,
        seed_distance=np.array(
            [[setting.seed_distance * f(radians(d)) for d in range(360)] for f in (math.sin, math.cos)]
        ),
        kernels=kernels,
        kernel=kernel,
        line=Stamp.of(line, frame),
        mask=Stamp.of(mask, frame, OCCUPIED),
        core=Stamp.of(mask[:steps], frame, FAINTEST),
        wide=Stamp.of(wide, frame),
        empty_mask=np.pad(empty, pad).reshape(-1),
        empty_wide=np.pad(dilate(empty, margin), pad, constant_values=255).reshape(-1),
        markers=markers,
    )


def radians(degrees: float) -> float:
    """In the order of operations of the reference: what is rounded up later depends on the last bit."""
    return degrees * math.pi / 180


def _opposite(angle: float) -> float:
    return angle + math.pi if angle < 0 else angle - math.pi


def _circle(radius: int) -> list[tuple[int, int]]:
    """Cells (dy, dx) of a circle, sampled once a pixel of arc and rounded down."""
    step = 360 / (2 * radius * math.pi)
    samples = [radians(i * step) for i in range(math.ceil(360 / step))]
    return sorted({(math.floor(radius * math.sin(a)), math.floor(radius * math.cos(a))) for a in samples})


def _smoothness(before: list[float], after: list[float], continuity: float) -> np.ndarray:
    def weight(a: float, b: float) -> float:
        turn = min(abs(b - a), 2 * math.pi - abs(b - a))
        return math.cos(min(continuity * turn, math.pi / 2)) ** 2

    return np.array([[weight(a, b) for b in after] for a in before], np.float32)


def _moved(angles: list[float], distance: int, coordinate: np.ndarray) -> np.ndarray:
    """int64 [2, angles, n]: where y and x coordinates, [n] or [2, angles, n], come to lie.

    The sum is rounded up as the reference rounds it, noise of float64 included: 4 sin(pi) is a little more than 0, so
    a paddle that points to 180 degrees moves down by one where y is small. Along the edges it shows in the images.
    """
    move = np.array([[distance * f(a) for a in angles] for f in (math.sin, math.cos)])
    return np.ceil(coordinate + move[:, :, None]).astype(np.int64)


def _kernels(masks: np.ndarray, radius: int, resolution: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """What must be free around a first paddle's tail, for every degree: cells (dy, dx).

    The reference has two faults here, and LRA's images were made with them. Its kernel lies one cell off centre. And
    where all of a kernel falls outside the image for some pixel, the dilation returns the least float64 there, which
    the search for free places takes as `there is none`. So an angle works only if around each corner of the image
    some cell of its kernel lies inside: 30 of 360 degrees at resolution 32.
    """
    half = masks.shape[-1] // 2
    found: dict[bytes, int] = {}
    kernels: list[np.ndarray] = []
    which = np.full(len(masks), -1)
    for i, mask in enumerate(masks):
        cells = np.argwhere(mask == 255) - half
        cells = cells[(cells < radius).all(1)] + 1
        y, x = cells.T
        if not all((((sy * y) >= 0) & ((sx * x) >= 0)).any() for sy in (-1, 1) for sx in (-1, 1)):
            continue
        if cells.tobytes() not in found:
            found[cells.tobytes()] = len(kernels)
            kernels.append(cells)
        which[i] = found[cells.tobytes()]
    return tuple(kernels), which
