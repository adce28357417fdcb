"""Grey levels of generated images are those of the reference generator.

`grey_levels.json` was made without this project's code: the reference generator (drewlinsley/pathfinder,
commit ab9c130, unchanged) ran with LRA's settings under Python 3.7 with SciPy 1.1.0, NumPy 1.16.6, Pillow 6.2.2 and
OpenCV 4.1.2, releases of the time at which LRA's data were made. It drew 3,420 pictures of 32 x 32 (hard, intermediate
and easy), 12 of 64 x 64, 10 of 128 x 128 and 20 of 256 x 256. For every pixel the table has the 8-bit level that the
resized paddle or marker had there, and the level in the PNG that the generator saved. At 32 x 32 its function for
markers was called for every pixel of the picture as well, so that rare places at the edge are in the table.

    resolution -> level of the brightest distractor, 0 where none is brighter than a marker
               -> target, distractor or marker -> pairs of (level when drawn, level in the PNG)
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tasks.core import chunk_rng
from tasks.pathfinder.generator import _merge_layers, scenes
from tasks.pathfinder.settings import setting
from tasks.pathfinder.tables import generator_tables

LAYERS = ("target", "distractor", "marker")
TABLE = json.loads(Path(__file__).with_name("grey_levels.json").read_text())
CASES = [(resolution, brightest) for resolution, part in TABLE.items() for brightest in part]


@pytest.mark.parametrize(("resolution", "brightest"), CASES)
def test_every_level_becomes_that_of_the_reference(resolution: str, brightest: str) -> None:
    s = setting(int(resolution), "hard")
    t = generator_tables(s, s.margins[0])
    side = s.resolution
    layers = {name: np.zeros((1, t.frame, t.frame), np.uint8) for name in LAYERS}
    wanted = np.zeros((side, side), int)
    rows, columns = np.divmod(np.arange(side * side), side)
    place = iter(zip(rows.tolist(), columns.tolist(), strict=True))
    for name in LAYERS:
        for drawn, saved in TABLE[resolution][brightest][name]:
            y, x = next(place)
            layers[name][0, t.pad + y, t.pad + x] = drawn
            wanted[y, x] = saved
    for name, drawn in (("distractor", int(brightest)), ("marker", 255)):  # what the picture is scaled by
        assert not drawn or drawn in dict(TABLE[resolution][brightest][name])
    assert wanted.max() == 255
    flat = (layers["target"].reshape(-1), layers["distractor"].reshape(-1), layers["marker"])
    np.testing.assert_array_equal(_merge_layers(t, *flat)[0], wanted)


def test_the_rounding_that_float64_gets_wrong() -> None:
    """Levels where v / 255 * 1.5 is halfway between two others, and float32 decides between them."""
    of_targets = dict(TABLE["32"]["0"]["target"])
    assert {v: of_targets[v] for v in (111, 135, 107, 19)} == {111: 166, 135: 202, 107: 160, 19: 29}
    assert dict(TABLE["32"]["135"]["target"])[102] == 144
    for v, saved in ((111, 166), (135, 202), (107, 160), (19, 29)):
        assert v * 3 == 2 * saved + (1 if saved != 29 else -1)  # 1.5 v is saved + 1/2, or saved - 1/2
        assert int(np.float32(v / 255 * 1.5).astype(float) * 255 + 0.5) == saved


def test_all_grey_levels_are_levels_of_the_reference() -> None:
    known = {0} | {saved for part in TABLE["32"].values() for pairs in part.values() for _, saved in pairs}
    assert len(known) == 237
    levels = set(np.unique(scenes(setting(32, "hard"), 2_000, chunk_rng(20, 0)).images).tolist())
    assert levels <= known
    assert len(levels) > 200
