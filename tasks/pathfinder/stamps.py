"""How Pathfinder's paddles and markers look: drawn on a finer grid, brought to pixels by a Lanczos filter.

The reference draws with Pillow and resizes with Pillow's 8-bit Lanczos filter. That filter is repeated here digit
for digit (coefficients in fixed point, two passes, each rounded), so the stamps are the reference's to the grey level.
Coordinates are (y, x), y down.
"""

from __future__ import annotations

import math

import numpy as np

from tasks.pathfinder.settings import FINE

_BITS = 22  # of the fixed-point coefficients
_LOBES = 3


def lanczos_matrix(source: int, target: int) -> np.ndarray:
    """Coefficients [target, source] of Pillow's Lanczos filter, times 2**22, rounded; float64 that holds integers,
    so that sums of products with bytes are exact in any order."""
    scale = source / target  # downwards only: >= 1
    matrix = np.zeros((target, source))
    for i in range(target):
        center = (i + 0.5) * scale
        low = max(0, int(center - _LOBES * scale + 0.5))
        high = min(source, int(center + _LOBES * scale + 0.5))
        weights = [_lanczos((j - center + 0.5) / scale) for j in range(low, high)]
        total = sum(weights)
        matrix[i, low:high] = [math.copysign(int(abs(w / total) * 2**_BITS + 0.5), w) for w in weights]
    return matrix


def _lanczos(t: float) -> float:
    return _sinc(t) * _sinc(t / _LOBES) if -_LOBES <= t < _LOBES else 0.0


def _sinc(t: float) -> float:
    return math.sin(math.pi * t) / (math.pi * t) if t else 1.0


def to_bytes(sums: np.ndarray) -> np.ndarray:
    """Sums of bytes times coefficients, rounded half up and clipped to uint8."""
    return np.clip(np.floor(sums / 2**_BITS + 0.5), 0, 255).astype(np.uint8)


def shrink(images: np.ndarray, target: int) -> np.ndarray:
    """uint8 [..., S, S] to uint8 [..., target, target], as Pillow's `resize` with LANCZOS does."""
    matrix = lanczos_matrix(images.shape[-1], target)
    rows = to_bytes(images.astype(np.float64) @ matrix.T)
    return to_bytes(matrix @ rows.astype(np.float64))


def disc(radius: float) -> np.ndarray:
    """bool [2r + 1, 2r + 1]: the cells within `radius` of the middle one."""
    reach = np.arange(-int(radius), int(radius) + 1)
    return reach[:, None] ** 2 + reach**2 <= radius**2


def dilate(images: np.ndarray, radius: int) -> np.ndarray:
    """[..., S, S]: the greatest value within `radius`; nothing lies outside the image."""
    size = images.shape[-1]
    padding = [(0, 0)] * (images.ndim - 2) + [(radius, radius)] * 2
    padded = np.pad(images, padding)
    out = np.zeros_like(images)
    for y, x in np.argwhere(disc(radius)):
        np.maximum(out, padded[..., y : y + size, x : x + size], out=out)
    return out


def draw_line(size: int, dy: int, dx: int, width: int) -> np.ndarray:
    """uint8 [size, size]: a line of 255 from the middle to (dy, dx) from it, both ends included."""
    canvas = np.zeros((size, size), np.uint8)
    middle = size // 2
    if width <= 1:
        steps = max(abs(dy), abs(dx), 1)
        along = np.arange(steps + 1)
        y, x = ((2 * along * abs(d) + steps) // (2 * steps) * (1 if d >= 0 else -1) for d in (dy, dx))
        canvas[middle + y, middle + x] = 255
        return canvas
    from PIL import Image, ImageDraw  # a wide line is the polygon that Pillow makes of it

    image = Image.fromarray(canvas)
    ImageDraw.Draw(image).line([(middle, middle), (middle + dx, middle + dy)], fill=255, width=width)
    return np.array(image)


def paddle_stamps(
    angles: list[float], length: int, thickness: float, margin: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures of a paddle for every angle: from its anchor, the middle pixel, `length` pixels along the angle.

    Returns:
      line [N, 2h + 1, 2h + 1], its grey levels; mask [N, 2h + 1, 2h + 1], the paddle with its margin;
      wide [N, 2h + 2m + 1, 2h + 2m + 1], the mask dilated by the margin m once more. All uint8.
    """
    half = length + math.ceil(thickness) + margin
    fine_size, middle = 2 * half * FINE + 1, half * FINE
    lines: dict[tuple[int, int], np.ndarray] = {}  # many angles end in the same cell
    ends = []
    for angle in angles:
        dy = math.ceil(middle + length * FINE * math.sin(angle)) - middle
        dx = math.ceil(middle + length * FINE * math.cos(angle)) - middle
        ends.append((dy, dx))
        if (dy, dx) not in lines:
            lines[dy, dx] = draw_line(fine_size, dy, dx, round(thickness * FINE))
    fine = np.stack(list(lines.values()))
    line = shrink(fine, 2 * half + 1)
    mask = shrink(dilate(fine, margin * FINE), 2 * half + 1)
    wide = dilate(np.pad(mask, ((0, 0), (margin, margin), (margin, margin))), margin)
    place = {end: i for i, end in enumerate(lines)}
    which = np.array([place[end] for end in ends])
    return line[which], mask[which], wide[which]


class Markers:
    """Pictures of a marker, for every pixel of an image: near the edges the filter's weights differ."""

    def __init__(self, resolution: int, radius: float) -> None:
        self.half = math.ceil(radius) + _LOBES
        cells = disc(radius * FINE).astype(np.float64) * 255
        reach, side = len(cells) // 2, 2 * self.half + 1
        matrix = np.pad(lanczos_matrix(FINE * resolution, resolution), ((self.half,) * 2, (reach,) * 2))
        # weights [R, side, cells]: of the fine cells around a pixel, for the pixels around it
        self._weights = np.stack([matrix[i : i + side, FINE * i : FINE * i + len(cells)] for i in range(resolution)])
        self._rows = to_bytes(cells @ self._weights.transpose(0, 2, 1)).astype(np.float64)  # after the first pass

    def at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """uint8 [N, 2 half + 1, 2 half + 1]: discs around the pixels (y, x); 0 outside the image."""
        return to_bytes(self._weights[y] @ self._rows[x])
