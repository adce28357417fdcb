"""Tables of the generator: angles of first paddles, the circle, places of seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from tasks.pathfinder.settings import setting
from tasks.pathfinder.tables import DEGREES, generator_tables
from tests.tasks.pathfinder.reference import pillow_paddle, unfold


def test_usable_angles_are_those_of_the_reference() -> None:
    """Compared with the reference's method: a kernel off centre, and a dilation with a border below all values."""
    s = setting(32, "hard")
    side = 2 * (s.paddle_length + 1) + 1
    works = []
    for degree in DEGREES.tolist():
        mask = pillow_paddle(s, 1, degree * math.pi / 180)[1]
        kernel = mask[:side, :side] == 1  # the tail, (4, 4) of 9 x 9, comes to (4, 4) of 7 x 7
        dilated = ndimage.maximum_filter(np.zeros((32, 32)), footprint=kernel, mode="constant", cval=-1)
        works.append(dilated.min() >= 0)
    usable = generator_tables(s, 1).kernel >= 0
    np.testing.assert_array_equal(usable, works)
    np.testing.assert_array_equal(DEGREES[usable], np.arange(-150, -120))


@pytest.mark.parametrize(("resolution", "margin", "count"), [(32, 1, 30), (64, 1, 95), (128, 2, 354), (256, 3, 360)])
def test_number_of_usable_angles(resolution: int, margin: int, count: int) -> None:
    works = DEGREES[generator_tables(setting(resolution, "hard"), margin).kernel >= 0]
    assert len(works) == count
    if resolution == 64:
        assert set(range(-180, -84)) - set(works.tolist()) == {-135}


def test_circle_at_32() -> None:
    t = generator_tables(setting(32, "hard"), 1)
    jumps = [divmod(int(j) + t.frame // 2, t.frame) for j in t.jump]
    distances = [math.hypot(dy, dx - t.frame // 2) for dy, dx in jumps]
    assert t.steps == 18
    assert 2 <= min(distances) <= max(distances) < 3.7
    assert len({unfold(t.line, i, t.frame).tobytes() for i in range(t.steps + 360)}) == 30


@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
def test_first_paddles_of_a_pair_stay_inside(resolution: int) -> None:
    """So the reference never tries a pair of seeds again."""
    s = setting(resolution, "hard")
    for margin in s.margins:
        t = generator_tables(s, margin)
        low = s.border - s.seed_distance  # a first tail lies inside the border: each kernel has offsets on both sides
        tails = np.arange(low, resolution - low) + t.pad
        for table in (t.seed_head, t.seed_pivot):
            places = table[:, :, tails] - t.pad
            assert places.min() >= 0
            assert places.max() < resolution
