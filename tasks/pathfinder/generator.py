"""The Pathfinder generator: two long snakes of paddles, short distractors, and two markers.

A reimplementation, from its description, of `snakes2` (github.com/drewlinsley/pathfinder; Linsley et al. 2018,
arXiv:1805.08315) as LRA calls it. Many pairs of snakes grow at the same time, one paddle per step. A pair that collides
is dropped (4 % are completed at 32 x 32); the reference does the same with one pair after another. Images are drawn
from the completed paths.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tasks.pathfinder.settings import Setting
from tasks.pathfinder.snakes import add_distractors, grow_targets
from tasks.pathfinder.tables import GeneratorTables, generator_tables


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Images and the positions of their parts.

    images:      uint8 [n, R, R]
    labels:      uint8 [n], 1: both markers are on one snake
    joints:      int16 [n, 2, C, 2], (y, x) of the tail and of the head of each later paddle, for both snakes
    markers:     int16 [n, 2, 2], (y, x) of the marker at a tail and of the marker at a head
    origin:      uint8 [n], the snake whose tail is marked
    distractors: uint8 [n], the number of distractors
    """

    images: np.ndarray
    labels: np.ndarray
    joints: np.ndarray
    markers: np.ndarray
    origin: np.ndarray
    distractors: np.ndarray


def scenes(setting: Setting, n: int, rng: np.random.RandomState) -> Scenes:
    """Generate n scenes from one random stream. Each draws a margin; scenes of one margin are generated together."""
    margin = rng.choice(setting.margins, n)
    out: dict[str, np.ndarray] = {}
    for m in sorted(set(setting.margins)):
        rows = np.flatnonzero(margin == m)
        if not len(rows):
            continue
        for name, values in vars(_scenes(generator_tables(setting, m), len(rows), rng)).items():
            out.setdefault(name, np.zeros((n, *values.shape[1:]), values.dtype))[rows] = values
    return Scenes(**out)


def _scenes(t: GeneratorTables, n: int, rng: np.random.RandomState) -> Scenes:
    """Generate n scenes of one margin."""
    paths = grow_targets(t, n, rng)
    targets = np.zeros(n * t.area, np.uint8)
    frames = np.arange(n) * t.area
    for snake in range(2):
        for k in range(t.setting.contour_length):
            t.line.max_into(targets, frames + paths.cell[:, snake, k], paths.state[:, snake, k])
    others, distractors = add_distractors(t, paths.occupied, rng)

    joints = (np.stack(np.divmod(paths.cell, t.frame), -1) - t.pad).astype(np.int16)
    labels, origin = rng.randint(0, 2, (2, n)).astype(np.uint8)
    end = np.where(labels == 1, origin, 1 - origin)
    rows = np.arange(n)
    markers = np.stack([joints[rows, origin, 0], joints[rows, end, -1]], 1)
    images = _merge_layers(t, targets, others, _discs(t, markers))
    return Scenes(images, labels, joints, markers, origin, distractors)


def _discs(t: GeneratorTables, markers: np.ndarray) -> np.ndarray:
    """Draw the markers, uint8 [n, frame, frame]."""
    canvas = np.zeros((len(markers), t.frame, t.frame), np.uint8)
    reach = np.arange(-t.markers.half, t.markers.half + 1) + t.pad
    rows = np.arange(len(markers))[:, None, None]
    for y, x in np.moveaxis(markers, 0, -1).astype(np.int64):
        window = rows, (y[:, None] + reach)[:, :, None], (x[:, None] + reach)[:, None, :]
        canvas[window] = np.maximum(canvas[window], t.markers.at(y, x))
    return canvas


def _merge_layers(t: GeneratorTables, targets: np.ndarray, others: np.ndarray, discs: np.ndarray) -> np.ndarray:
    """Return the maximum of the three layers, each image scaled to the range 0 to 255, as uint8 [n, R, R].

    The reference pastes each paddle into a float32 image and computes everything else in float64. This decides the
    grey level of a scaled value that is halfway between two levels.
    """
    inside = slice(t.pad, t.pad + t.setting.resolution)
    target_contrast = t.setting.snake_contrast * t.setting.paddle_contrast
    layers = (targets, target_contrast, np.float32), (others, t.setting.snake_contrast, np.float32), (discs, 1.0, float)
    bright = np.zeros((len(discs), t.setting.resolution, t.setting.resolution))
    for layer, contrast, dtype in layers:
        levels = (np.arange(256) / 255.0 * contrast).astype(dtype)
        np.maximum(bright, levels[layer.reshape(discs.shape)[:, inside, inside]], out=bright)
    low, high = bright.min((1, 2), keepdims=True), bright.max((1, 2), keepdims=True)
    return ((bright - low) * (255.0 / (high - low)) + 0.5).astype(np.uint8)
