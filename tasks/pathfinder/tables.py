"""Precomputed tables for the growth of snakes.

A paddle is in one of K + 360 *states*. In state k < K it ends at the k-th cell of the circle around its pivot. In state
K + d it is the first of its snake and points to d - 180 degrees. The state determines the image of the paddle, and the
probability of each cell of the next circle.

An image is stored in a frame of `frame` x `frame` cells that extends beyond it on all sides, so nothing is clipped.
The index of a cell is `y * frame + x`, with y and x counted in the frame.
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
class StampSet:
    """A small image for each state, as a list of cells. Short lists repeat their first cell, which changes no maximum.

    offset: int64 [states, cells], index of a cell relative to that of the anchor
    value:  uint8 [states, cells]
    """

    offset: np.ndarray
    value: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray, frame: int, least: int = 1) -> StampSet:
        """Return the cells with a value of at least `least` of images, uint8 [states, S, S]."""
        half = images.shape[-1] // 2
        width = int(np.max(np.sum(images >= least, (1, 2))))
        offset = np.zeros((len(images), width), np.int64)
        value = np.zeros((len(images), width), np.uint8)
        for i, image in enumerate(images):
            y, x = np.nonzero(image >= least)
            offset[i] = (y[0] - half) * frame + x[0] - half
            value[i] = image[y[0], x[0]]
            offset[i, : len(y)] = (y - half) * frame + x - half
            value[i, : len(y)] = image[y, x]
        return cls(offset, value)

    def max_into(self, canvas: np.ndarray, cell: np.ndarray, state: np.ndarray) -> None:
        """Set a flat canvas to its maximum with one image per anchor; the anchors `cell` are in different frames."""
        cells = cell[:, None] + self.offset[state]
        canvas[cells] = np.maximum(canvas[cells], self.value[state])


@dataclasses.dataclass(frozen=True)
class GeneratorTables:
    """The tables of one data set and margin (see the module). Values of masks are from 0, free, to 255, occupied."""

    setting: Setting
    margin: int
    pad: int  # cells between the edges of the frame and the image
    frame: int  # cells of a side
    steps: int  # K, the number of cells of the circle
    jump: np.ndarray  # int64 [K], from the pivot to the cells of the circle
    weight: np.ndarray  # float32 [states, K], smoothness of the turn from a state to a cell of the circle
    next_pivot: np.ndarray  # int64 [2, states, frame], y and x of the pivot that follows one at y and x
    seed_head: np.ndarray  # int64 [2, 360, frame], y and x of the end of a first paddle with its tail at y and x
    seed_pivot: np.ndarray  # int64 [2, 360, frame], y and x of the pivot of this paddle
    seed_distance: np.ndarray  # float64 [2, 360], from the first snake's tail to the second's, for each degree
    kernels: tuple[np.ndarray, ...]  # int64 [cells, 2], cells (dy, dx) around a first tail that must be free
    kernel: np.ndarray  # int64 [360], index into `kernels`; -1: the reference never finds a place for this angle
    line: StampSet  # the paddle
    mask: StampSet  # the paddle with its margin, without cells that are too faint to have an effect
    core: StampSet  # the cells of the mask that can collide
    dilated: StampSet  # the mask dilated by the margin
    empty_mask: np.ndarray  # uint8 [frame * frame], before the first paddle
    empty_dilated: np.ndarray  # uint8 [frame * frame], the same, dilated
    markers: Markers

    @property
    def area(self) -> int:
        """Cells of a frame."""
        return self.frame * self.frame


OCCUPIED = 77  # of 255: a cell above 0.3 is not free for first paddles
COLLISION = 459  # of 255: two masks that add up to 1.8 collide
FAINTEST = COLLISION - 255  # a lower value cannot collide


@functools.lru_cache(maxsize=8)
def generator_tables(setting: Setting, margin: int) -> GeneratorTables:
    """Return the tables of one data set and margin. They take up to a second to compute and are cached."""
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
    angles = [_opposite(a) for a in heading] + seed
    line, mask, dilated = paddle_stamps(angles, length, setting.paddle_thickness, margin)
    steps = len(circle)
    kernels, kernel = _kernels(mask[steps:], radius, resolution)

    # Further than `radius` outside the image a pivot reaches no cell of it, so it may be clipped.
    coordinate = np.arange(frame) - pad
    low, high = -radius - 1, resolution + radius
    seed_head = _moved(seed, length, coordinate)
    seed_pivot = _moved([_opposite(a) for a in seed], radius, seed_head)

    empty = np.full((resolution, resolution), 255, np.uint8)
    empty[setting.padding : -setting.padding, setting.padding : -setting.padding] = 0
    return GeneratorTables(
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
        line=StampSet.of(line, frame),
        mask=StampSet.of(mask, frame, OCCUPIED),
        core=StampSet.of(mask[:steps], frame, FAINTEST),
        dilated=StampSet.of(dilated, frame),
        empty_mask=np.pad(empty, pad).reshape(-1),
        empty_dilated=np.pad(dilate(empty, margin), pad, constant_values=255).reshape(-1),
        markers=markers,
    )


def radians(degrees: float) -> float:
    """Return an angle in radians, with the reference's order of operations: later rounding depends on the last bit."""
    return degrees * math.pi / 180


def _opposite(angle: float) -> float:
    """Return the opposite of an angle in radians."""
    return angle + math.pi if angle < 0 else angle - math.pi


def _circle(radius: int) -> list[tuple[int, int]]:
    """Return the cells (dy, dx) of a circle, sampled once per pixel of arc and rounded down."""
    step = 360 / (2 * radius * math.pi)
    samples = [radians(i * step) for i in range(math.ceil(360 / step))]
    return sorted({(math.floor(radius * math.sin(a)), math.floor(radius * math.cos(a))) for a in samples})


def _smoothness(before: list[float], after: list[float], continuity: float) -> np.ndarray:
    """Return the weight of a turn from each angle of `before` to each of `after`, float32 [before, after]."""

    def weight(a: float, b: float) -> float:
        turn = min(abs(b - a), 2 * math.pi - abs(b - a))
        return math.cos(min(continuity * turn, math.pi / 2)) ** 2

    return np.array([[weight(a, b) for b in after] for a in before], np.float32)


def _moved(angles: list[float], distance: int, coordinate: np.ndarray) -> np.ndarray:
    """Return y and x coordinates, [n] or [2, angles, n], after a move along each angle: int64 [2, angles, n].

    The sum is rounded up as in the reference, including the rounding error of float64. 4 sin(pi) is slightly more than
    0, so a paddle at 180 degrees moves down by one where y is small. This is visible at the edges of the images.
    """
    move = np.array([[distance * f(a) for a in angles] for f in (math.sin, math.cos)])
    return np.ceil(coordinate + move[:, :, None]).astype(np.int64)


def _kernels(masks: np.ndarray, radius: int, resolution: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Return `GeneratorTables.kernels` and `GeneratorTables.kernel`.

    The reference has two errors here that shaped LRA's images, so both are reproduced. Its kernel is one cell off
    centre. And if for some pixel all of a kernel is outside the image, the dilation returns the lowest float64 there,
    and the search for free places then finds none. So an angle can be used only if, at each corner of the image, some
    cell of its kernel is inside: 30 of 360 degrees at resolution 32.
    """
    half = masks.shape[-1] // 2
    indices: dict[bytes, int] = {}
    kernels: list[np.ndarray] = []
    kernel_of = np.full(len(masks), -1)
    for i, mask in enumerate(masks):
        cells = np.argwhere(mask == 255) - half
        cells = cells[(cells < radius).all(1)] + 1
        y, x = cells.T
        if not all((((sy * y) >= 0) & ((sx * x) >= 0)).any() for sy in (-1, 1) for sx in (-1, 1)):
            continue
        if cells.tobytes() not in indices:
            indices[cells.tobytes()] = len(kernels)
            kernels.append(cells)
        kernel_of[i] = indices[cells.tobytes()]
    return tuple(kernels), kernel_of
