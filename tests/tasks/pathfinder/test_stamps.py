"""Paddles and markers have exactly the pixels that Pillow draws."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tasks.pathfinder.settings import FINE, setting
from tasks.pathfinder.stamps import Markers
from tasks.pathfinder.tables import generator_tables
from tests.tasks.pathfinder.reference import angles, pillow_paddle, unfold


@pytest.mark.parametrize(("resolution", "margin"), [(32, 1), (64, 1), (128, 2), (128, 3), (256, 3)])
def test_paddles_have_the_pixels_of_pillow(resolution: int, margin: int) -> None:
    s = setting(resolution, "hard")
    t = generator_tables(s, margin)
    for state, (_, drawn) in list(enumerate(angles(t)))[:: 1 if resolution == 32 else 7]:
        line, mask = pillow_paddle(s, margin, drawn)
        reach = slice(t.frame // 2 - len(line) // 2, t.frame // 2 + len(line) // 2 + 1)
        np.testing.assert_array_equal(unfold(t.line, state, t.frame)[reach, reach] / 255, line)
        np.testing.assert_array_equal(unfold(t.mask, state, t.frame)[reach, reach] / 255, np.where(mask > 0.3, mask, 0))


@pytest.mark.parametrize(("resolution", "radius"), [(32, 1.5), (64, 2.5), (128, 3.0)])
def test_markers_have_the_pixels_of_pillow(resolution: int, radius: float) -> None:
    markers = Markers(resolution, radius)
    for y, x in [(0, 0), (1, 5), (2, 29), (3, resolution - 1), (9, 12), (resolution - 2, 4), (resolution // 2, 7)]:
        fine = np.arange(FINE * resolution)
        disc = (fine[:, None] - FINE * y) ** 2 + (fine - FINE * x) ** 2 <= (FINE * radius) ** 2
        image = Image.fromarray(disc.astype(np.uint8) * 255)
        expected = np.pad(image.resize((resolution, resolution), Image.Resampling.LANCZOS), markers.half)
        window = slice(y, y + 2 * markers.half + 1), slice(x, x + 2 * markers.half + 1)
        np.testing.assert_array_equal(markers.at(np.array([y]), np.array([x]))[0], expected[window])
        assert expected.astype(int).sum() == expected[window].astype(int).sum()
