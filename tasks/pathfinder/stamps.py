"""Small images of paddles and markers: drawn on a finer grid, and resized to pixels by a Lanczos filter.

The reference draws with Pillow and resizes with Pillow's 8-bit Lanczos filter. That filter is repeated here exactly
(coefficients in fixed point, two passes, each rounded), so all grey levels are equal to the reference's.
Coordinates are (y, x), y downwards.
"""

from __future__ import annotations

import math

import numpy as np

from tasks.pathfinder.settings import FINE

_BITS = 22  # fractional bits of the coefficients
_LOBES = 3


def lanczos_matrix(source: int, target: int) -> np.ndarray:
    """Return the coefficients of Pillow's Lanczos filter, times 2**22, rounded: float64 [target, source].

    They are whole numbers, so sums of their products with bytes are exact in any order.
    """
    scale = source / target  # >= 1: images are only made smaller
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
    """Return sums of products of bytes and coefficients as uint8, rounded half up and clipped."""
    return np.clip(np.floor(sums / 2**_BITS + 0.5), 0, 255).astype(np.uint8)


def shrink(images: np.ndarray, target: int) -> np.ndarray:
    """Resize images uint8 [..., S, S] to uint8 [..., target, target], as Pillow's `resize` with LANCZOS does."""
    matrix = lanczos_matrix(images.shape[-1], target)
    rows = to_bytes(images.astype(np.float64) @ matrix.T)
    return to_bytes(matrix @ rows.astype(np.float64))


def disc(radius: float) -> np.ndarray:
    """Return the cells within `radius` of the middle one, bool [2r + 1, 2r + 1]."""
    reach = np.arange(-int(radius), int(radius) + 1)
    return reach[:, None] ** 2 + reach**2 <= radius**2


def dilate(images: np.ndarray, radius: int) -> np.ndarray:
    """Return the largest value within `radius` of each pixel of images [..., S, S]; outside an image are zeros."""
    size = images.shape[-1]
    padding = [(0, 0)] * (images.ndim - 2) + [(radius, radius)] * 2
    padded = np.pad(images, padding)
    out = np.zeros_like(images)
    for y, x in np.argwhere(disc(radius)):
        np.maximum(out, padded[..., y : y + size, x : x + size], out=out)
    return out


def draw_line(size: int, dy: int, dx: int, width: int) -> np.ndarray:
    """Return a line of 255 from the middle pixel to (dy, dx) from it, both ends included, uint8 [size, size]."""
    canvas = np.zeros((size, size), np.uint8)
    middle = size // 2
    if width <= 1:
        steps = max(abs(dy), abs(dx), 1)
        along = np.arange(steps + 1)
        y, x = ((2 * along * abs(d) + steps) // (2 * steps) * (1 if d >= 0 else -1) for d in (dy, dx))
        canvas[middle + y, middle + x] = 255
        return canvas
    from PIL import Image, ImageDraw  # a wide line has the pixels that Pillow chooses

    image = Image.fromarray(canvas)
    ImageDraw.Draw(image).line([(middle, middle), (middle + dx, middle + dy)], fill=255, width=width)
    return np.array(image)


def paddle_stamps(
    angles: list[float], length: int, thickness: float, margin: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a paddle for each of N angles: from its anchor, the middle pixel, `length` pixels along the angle.

    Returns:
      line: uint8 [N, 2h + 1, 2h + 1], its grey levels
      mask: uint8 [N, 2h + 1, 2h + 1], the paddle with its margin
      dilated: uint8 [N, 2h + 2m + 1, 2h + 2m + 1], the mask dilated by the margin m once more
    """
    half = length + math.ceil(thickness) + margin
    fine_size, middle = 2 * half * FINE + 1, half * FINE
    lines: dict[tuple[int, int], np.ndarray] = {}  # by the cell of their end, which many angles share
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
    dilated = dilate(np.pad(mask, ((0, 0), (margin, margin), (margin, margin))), margin)
    index = {end: i for i, end in enumerate(lines)}
    selected = np.array([index[end] for end in ends])
    return line[selected], mask[selected], dilated[selected]


class Markers:
    """Images of a marker at each pixel of an image: near the edges the filter's weights differ."""

    def __init__(self, resolution: int, radius: float) -> None:
        self.half = math.ceil(radius) + _LOBES
        cells = disc(radius * FINE).astype(np.float64) * 255
        reach, side = len(cells) // 2, 2 * self.half + 1
        matrix = np.pad(lanczos_matrix(FINE * resolution, resolution), ((self.half,) * 2, (reach,) * 2))
        # [R, side, cells]: for each pixel, the weights of the fine cells around it in each of the pixels around it
        self._weights = np.stack([matrix[i : i + side, FINE * i : FINE * i + len(cells)] for i in range(resolution)])
        self._rows = to_bytes(cells @ self._weights.transpose(0, 2, 1)).astype(np.float64)  # after the first pass

    def at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the discs around the pixels (y, x), each int [N]; 0 outside the image.

        Returns:
          uint8 [N, 2 half + 1, 2 half + 1]
        """
        return to_bytes(self._weights[y] @ self._rows[x])
