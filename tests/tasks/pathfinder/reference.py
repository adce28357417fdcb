"""Paddles as the reference generator draws them, with Pillow, and the stamps of this suite as images."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from tasks.pathfinder.settings import FINE, Setting
from tasks.pathfinder.tables import DEGREES, GeneratorTables, StampSet


def pillow_paddle(s: Setting, margin: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Line and mask, 0 to 1, drawn as the reference draws them."""
    half = s.paddle_length + math.ceil(s.paddle_thickness) + margin
    fine, middle = 2 * half * FINE + 1, half * FINE
    end = [math.ceil(middle + s.paddle_length * FINE * f(angle)) for f in (math.cos, math.sin)]
    image = Image.new("L", (fine, fine))
    ImageDraw.Draw(image).line([(middle, middle), tuple(end)], fill=255, width=round(s.paddle_thickness * FINE))
    reach = np.arange(-margin * FINE, margin * FINE + 1)
    disc = reach[:, None] ** 2 + reach**2 <= (margin * FINE) ** 2
    thick = ndimage.grey_dilation(np.array(image), footprint=disc, mode="constant")
    size = (2 * half + 1,) * 2
    resized = [i.resize(size, Image.Resampling.LANCZOS) for i in (image, Image.fromarray(thick))]
    return np.array(resized[0]) / 255, np.array(resized[1]) / 255


def unfold(stamp: StampSet, state: int, frame: int) -> np.ndarray:
    canvas = np.zeros((frame, frame), np.uint8)
    stamp.max_into(canvas.reshape(-1), np.array([frame // 2 * (frame + 1)]), np.array([state]))
    return canvas


def angles(t: GeneratorTables) -> list[tuple[float, float]]:
    """Heading of every state, and the angle along which its paddle is drawn."""
    out = []
    for jump in t.jump:
        dy = round(jump / t.frame)
        heading = math.atan2(dy, jump - dy * t.frame)
        out.append((heading, heading + math.pi if heading < 0 else heading - math.pi))
    return out + [(d * math.pi / 180,) * 2 for d in DEGREES.tolist()]
