"""Snakes follow the rules of the reference: a replay, one paddle at a time, on images in floating point."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from tasks.core import chunk_rng
from tasks.pathfinder.settings import setting
from tasks.pathfinder.snakes import grow_targets
from tasks.pathfinder.tables import generator_tables
from tests.tasks.pathfinder.reference import angles, pillow_paddle


@pytest.mark.parametrize(("resolution", "count"), [(32, 40), (64, 3), (128, 4)])
def test_snakes_follow_the_rules_of_the_reference(resolution: int, count: int) -> None:
    s = setting(resolution, "hard")
    margin = s.margins[0]
    t = generator_tables(s, margin)
    paths = grow_targets(t, count, chunk_rng(7, 0))
    length, radius, reach = s.paddle_length, s.paddle_length + margin, np.arange(-margin, margin + 1)
    disc = reach[:, None] ** 2 + reach**2 <= margin**2
    size, pad = resolution, t.pad
    heading = angles(t)

    def move(place: tuple[int, int], angle: float, distance: float) -> tuple[int, int]:
        return math.ceil(place[0] + distance * math.sin(angle)), math.ceil(place[1] + distance * math.cos(angle))

    def paste(place: tuple[int, int], angle: float) -> np.ndarray:
        mask = pillow_paddle(s, margin, angle)[1]
        half = len(mask) // 2
        canvas = np.zeros((size + 2 * half,) * 2)
        canvas[place[0] : place[0] + len(mask), place[1] : place[1] + len(mask)] = mask
        return canvas[half:-half, half:-half]

    for i in range(count):
        taken = np.ones((size, size))
        taken[s.padding : -s.padding, s.padding : -s.padding] = 0
        places = [[(c // t.frame - pad, c % t.frame - pad) for c in paths.cell[i, j].tolist()] for j in range(2)]
        angle = [heading[paths.state[i, j, 0]][0] for j in range(2)]
        last, pivot = [], []
        for j in range(2):
            back = angle[j] + math.pi if angle[j] < 0 else angle[j] - math.pi
            pivot.append(move(move(places[j][0], angle[j], length), back, radius))
            last.append(paste(places[j][0], angle[j]))
        for k in range(1, s.contour_length):
            for j in range(2):
                pivot[j] = move(pivot[j], angle[j], length + 2 * margin)
                head = places[j][k]
                dy, dx = head[0] - pivot[j][0], head[1] - pivot[j][1]
                new = math.atan2(dy, dx)
                turn = min(abs(new - angle[j]), 2 * math.pi - abs(new - angle[j]))
                assert radius - 1.5 < math.hypot(dy, dx) < radius + 1.5
                assert s.continuity * turn < math.pi / 2
                assert ndimage.grey_dilation(taken, footprint=disc, mode="constant")[head] < 1
                mask = paste(head, new + math.pi if new < 0 else new - math.pi)
                assert (taken + mask).max() < 1.8
                taken = np.maximum(taken, last[j])
                angle[j], last[j] = new, mask
        taken = np.maximum(taken, last[1])
        inside = slice(pad, pad + size)
        ours = paths.occupied.mask.reshape(-1, t.frame, t.frame)[i, inside, inside] / 255
        np.testing.assert_array_equal(ours, np.where(taken > 0.3, taken, 0))
        wide = paths.occupied.dilated.reshape(-1, t.frame, t.frame)[i, inside, inside] / 255
        np.testing.assert_array_equal(wide, ndimage.grey_dilation(taken, footprint=disc, mode="constant"))
