"""Generated scenes have the statistics of 4,000 images of the reference generator, and true labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage, stats

from tasks.core import chunk_rng
from tasks.pathfinder.generator import Scenes, scenes
from tasks.pathfinder.settings import setting

EIGHT = np.ones((3, 3))


@pytest.fixture(scope="module")
def hard() -> Scenes:
    """Return 4,000 scenes of Pathfinder32 hard."""
    parts = [scenes(setting(32, "hard"), 1000, chunk_rng(20, chunk)) for chunk in range(4)]
    return Scenes(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])})


def near(values: np.ndarray, mean: float, sd: float) -> None:
    """Check a mean to 4 standard errors of these values and of the 2,000 or more values of the reference."""
    assert abs(values.mean() - mean) < 4 * sd * math.sqrt(1 / len(values) + 1 / 2000)


@pytest.mark.parametrize("label", [0, 1])
def test_statistics_of_a_class(hard: Scenes, label: int) -> None:
    of = hard.labels == label
    images = hard.images[of]
    near(images.mean((1, 2)), (20.164, 20.151)[label], 2.0)
    near((images > 0).mean((1, 2)), 0.341, 0.039)
    for level, share, sd in ((8, 0.160, 0.017), (64, 0.126, 0.013), (128, 0.085, 0.009)):
        near((images > level).mean((1, 2)), share, sd)
    near(np.array([len(np.unique(image)) for image in images]), 64.15, 7.6)
    sample = images[:800]
    for level, structure, mean, sd in (
        (0, EIGHT, 8.30, 3.3),
        (0, None, 23.15, 6.0),
        (64, EIGHT, 13.72, 3.2),
        (64, None, 21.5, 3.5),
    ):
        near(np.array([ndimage.label(image > level, structure)[1] for image in sample]), mean, sd)

    distance = np.hypot(*(hard.markers[of, 0] - hard.markers[of, 1]).T.astype(float))
    near(distance, (12.81, 13.37)[label], 5.1)
    assert 4.8 < distance.std() < 5.4
    quantiles = ((2.2, 4.2, 9.2, 12.8, 15.9, 21.9, 24.8), (2.2, 5.0, 9.9, 13.6, 17.0, 21.6, 24.1))[label]
    values = np.quantile(distance, (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99))
    assert np.abs(values - quantiles).max() < 0.95
    near(hard.distractors[of], 1.143, 0.907)


def test_statistics_of_both(hard: Scenes) -> None:
    images = hard.images
    assert (images.min((1, 2)) == 0).all()
    assert (images.max((1, 2)) == 255).all()
    shares = np.histogram(images, (0, 1, 9, 64, 128, 192, 255, 256))[0] / images.size
    assert np.abs(shares - (0.659, 0.181, 0.035, 0.041, 0.066, 0.017, 0.0022)).sum() / 2 < 0.004
    counts = np.bincount(np.minimum(hard.distractors, 4), minlength=5)
    assert stats.chi2_contingency([counts, (1042, 1676, 983, 265, 34)]).pvalue > 1e-3
    assert abs(hard.labels.mean() - 0.5) < 4 * 0.5 / math.sqrt(len(images))

    discs = np.lib.stride_tricks.sliding_window_view(images >= 180, (2, 2), axis=(1, 2)).all((3, 4))
    assert abs(discs.sum((1, 2)).mean() - 1.99) < 0.06
    rows = np.arange(len(images))[:, None]
    assert discs[rows, hard.markers[..., 0] - 1, hard.markers[..., 1] - 1].mean() == 1  # recall
    # 255 / the brightest value of each image: that depends on the brightest distractor
    brightest = images[rows, hard.markers[..., 0], hard.markers[..., 1]].max(1)
    expected = dict(zip((255, 244, 241, 239, 221), (1386, 190, 569, 687, 1168), strict=True))
    assert np.isin(brightest, list(expected)).mean() > 0.998
    for level, count in expected.items():
        near(brightest == level, count / 4000, 0.5)

    joints = hard.joints
    assert joints[:, 0, 0].min() == 14
    assert joints[:, 0, 0].max() == 16
    tips = joints[:, :, -1]
    assert tips.min() >= 2
    assert tips.max() <= 29
    second = np.hypot(*(joints[:, 1, 0] - joints[:, 0, 0]).T.astype(float))
    assert 6.3 < second.min() < second.max() < 7.65


def test_no_shortcut_but_the_weak_one(hard: Scenes) -> None:
    """Brightness does not predict the label; the distance of the markers does slightly."""
    of = hard.labels == 1
    for image in (hard.images.mean((1, 2)), (hard.images > 0).mean((1, 2)), hard.distractors):
        auc = stats.mannwhitneyu(image[of], image[~of]).statistic / (of.sum() * (~of).sum())
        assert abs(auc - 0.5) < 0.04
    distance = np.hypot(*(hard.markers[:, 0] - hard.markers[:, 1]).T.astype(float))
    auc = stats.mannwhitneyu(distance[of], distance[~of]).statistic / (of.sum() * (~of).sum())
    assert 0.50 < auc < 0.575


@pytest.mark.parametrize(("resolution", "n"), [(12, 300), (32, 300), (64, 12), (128, 12)])
def test_the_label_says_whether_both_markers_lie_on_one_snake(resolution: int, n: int) -> None:
    s = scenes(setting(resolution, "hard"), n, chunk_rng(5, 1))
    assert s.images.shape == (n, resolution, resolution)
    assert s.images.dtype == s.labels.dtype == np.uint8
    marked = []  # the snakes on which each marker lies: a set for every scene
    for markers, joints in zip(s.markers, s.joints, strict=True):
        tails, heads = joints[:, 0], joints[:, -1]
        one = {i for i in range(2) if (tails[i] == markers[0]).all()}
        other = {i for i in range(2) if (heads[i] == markers[1]).all()}
        marked.append((one, other))
    clear = [(len(a) == len(b) == 1, a == b) for a, b in marked]
    assert all(a and b for a, b in marked)
    assert sum(c for c, _ in clear) > 0.95 * n
    assert [same for c, same in clear if c] == [label == 1 for (c, _), label in zip(clear, s.labels, strict=True) if c]
    assert {0, 1} == set(s.labels.tolist())

    # Markers are the brightest; every joint is lit; joints of a snake follow each other.
    for image, markers, joints in zip(s.images, s.markers, s.joints, strict=True):
        centres = [image[max(y - 1, 0) : y + 1, max(x - 1, 0) : x + 1] for y, x in markers]
        assert all(c.min() >= 180 if resolution > 12 else c.max() == 255 for c in centres)
        lit = ndimage.maximum_filter(image, 3)
        assert (lit[joints[..., 0], joints[..., 1]] > 50).all()
    steps = np.hypot(*np.moveaxis(np.diff(s.joints.astype(float), axis=2), -1, 0))
    length = setting(resolution, "hard").paddle_length
    assert length - 1 < steps[:, :, 1:].min()
    assert steps.max() < 3.5 * (length + 2)


def test_snakes_at_12_are_inside_and_keep_a_clearance() -> None:
    s = scenes(setting(12, "hard"), 500, chunk_rng(5, 2))
    assert s.joints.min() >= 0
    assert s.joints.max() < 12
    gaps = np.linalg.norm((s.joints[:, 0, :, None] - s.joints[:, 1, None]).astype(float), axis=-1)
    assert gaps.min() >= 3


def test_contours_are_longer_at_higher_difficulty() -> None:
    levels = ("easy", "intermediate", "hard")
    lengths = {d: scenes(setting(32, d), 20, chunk_rng(1, 1)).joints.shape[2] for d in levels}
    assert lengths == {"easy": 6, "intermediate": 9, "hard": 14}
    slots = [setting(r, d).distractors for r in (32, 64, 128, 256) for d in levels]
    assert slots == [10, 6, 5, 11, 7, 5, 17, 11, 8, 15, 10, 7]


def test_margins_are_drawn_for_each_image() -> None:
    """At 128, snakes with the wider margin have longer steps."""
    s = scenes(setting(128, "hard"), 40, chunk_rng(2, 0))
    steps = np.hypot(*np.moveaxis(np.diff(s.joints.astype(float), axis=2), -1, 0)).mean((1, 2))
    assert (steps < 9.9).any()
    assert (steps > 10.1).any()


def test_the_distance_of_the_markers_at_12_predicts_little() -> None:
    s = scenes(setting(12, "hard"), 4_000, chunk_rng(5, 4))
    distance = np.hypot(*(s.markers[:, 0] - s.markers[:, 1]).T.astype(float))
    assert max(((distance < limit) == s.labels).mean() for limit in range(1, 18)) < 0.55
