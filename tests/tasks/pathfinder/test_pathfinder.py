"""Pathfinder: against Pillow, a replay of the rules one paddle at a time, and the reference's measured statistics."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage, stats

from tasks import pathfinder
from tasks.core import GENERATED, OFFICIAL, SAMPLE, SPLITS, Split, chunk_seed
from tasks.errors import DataError
from tasks.pathfinder import chunks
from tasks.pathfinder.generator import Scenes, scenes
from tasks.pathfinder.settings import FINE, Setting, setting
from tasks.pathfinder.snakes import grow_targets
from tasks.pathfinder.stamps import Markers
from tasks.pathfinder.tables import DEGREES, Stamp, Tables, tables

EIGHT = np.ones((3, 3))


@pytest.fixture(scope="module")
def hard() -> Scenes:
    """4,000 scenes of Pathfinder32 hard."""
    parts = [scenes(setting(32, "hard"), 1000, chunk_seed(20, chunk)) for chunk in range(4)]
    return Scenes(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])})


# ---- stamps


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


def unfold(stamp: Stamp, state: int, frame: int) -> np.ndarray:
    canvas = np.zeros((frame, frame), np.uint8)
    stamp.press(canvas.reshape(-1), np.array([frame // 2 * (frame + 1)]), np.array([state]))
    return canvas


def angles(t: Tables) -> list[tuple[float, float]]:
    """Heading of every state, and the angle along which its paddle is drawn."""
    out = []
    for jump in t.jump:
        dy = round(jump / t.frame)
        heading = math.atan2(dy, jump - dy * t.frame)
        out.append((heading, heading + math.pi if heading < 0 else heading - math.pi))
    return out + [(d * math.pi / 180,) * 2 for d in DEGREES.tolist()]


@pytest.mark.parametrize(("resolution", "margin"), [(32, 1), (64, 1), (128, 2), (128, 3), (256, 3)])
def test_paddles_are_pillows(resolution: int, margin: int) -> None:
    s = setting(resolution, "hard")
    t = tables(s, margin)
    for state, (_, drawn) in list(enumerate(angles(t)))[:: 1 if resolution == 32 else 7]:
        line, mask = pillow_paddle(s, margin, drawn)
        reach = slice(t.frame // 2 - len(line) // 2, t.frame // 2 + len(line) // 2 + 1)
        np.testing.assert_array_equal(unfold(t.line, state, t.frame)[reach, reach] / 255, line)
        np.testing.assert_array_equal(unfold(t.mask, state, t.frame)[reach, reach] / 255, np.where(mask > 0.3, mask, 0))


@pytest.mark.parametrize(("resolution", "radius"), [(32, 1.5), (64, 2.5), (128, 3.0)])
def test_markers_are_pillows(resolution: int, radius: float) -> None:
    markers = Markers(resolution, radius)
    for y, x in [(0, 0), (1, 5), (2, 29), (3, resolution - 1), (9, 12), (resolution - 2, 4), (resolution // 2, 7)]:
        fine = np.arange(FINE * resolution)
        disc = (fine[:, None] - FINE * y) ** 2 + (fine - FINE * x) ** 2 <= (FINE * radius) ** 2
        image = Image.fromarray(disc.astype(np.uint8) * 255)
        expected = np.pad(image.resize((resolution, resolution), Image.Resampling.LANCZOS), markers.half)
        window = slice(y, y + 2 * markers.half + 1), slice(x, x + 2 * markers.half + 1)
        np.testing.assert_array_equal(markers.at(np.array([y]), np.array([x]))[0], expected[window])
        assert expected.astype(int).sum() == expected[window].astype(int).sum()


def test_the_angles_at_which_the_reference_finds_a_place() -> None:
    """By its own means: the kernel off centre, a dilation whose border is less than anything."""
    s = setting(32, "hard")
    side = 2 * (s.paddle_length + 1) + 1
    works = []
    for degree in DEGREES.tolist():
        mask = pillow_paddle(s, 1, degree * math.pi / 180)[1]
        kernel = mask[:side, :side] == 1  # the tail, (4, 4) of 9 x 9, comes to (4, 4) of 7 x 7
        dilated = ndimage.maximum_filter(np.zeros((32, 32)), footprint=kernel, mode="constant", cval=-1)
        works.append(dilated.min() >= 0)
    found = tables(s, 1).kernel >= 0
    np.testing.assert_array_equal(found, works)
    np.testing.assert_array_equal(DEGREES[found], np.arange(-150, -120))


@pytest.mark.parametrize(("resolution", "margin", "count"), [(32, 1, 30), (64, 1, 95), (128, 2, 354), (256, 3, 360)])
def test_working_degrees(resolution: int, margin: int, count: int) -> None:
    works = DEGREES[tables(setting(resolution, "hard"), margin).kernel >= 0]
    assert len(works) == count
    if resolution == 64:
        assert set(range(-180, -84)) - set(works.tolist()) == {-135}


def test_circle_at_32() -> None:
    t = tables(setting(32, "hard"), 1)
    jumps = [divmod(int(j) + t.frame // 2, t.frame) for j in t.jump]
    distances = [math.hypot(dy, dx - t.frame // 2) for dy, dx in jumps]
    assert t.steps == 18
    assert 2 <= min(distances) <= max(distances) < 3.7
    assert len({unfold(t.line, i, t.frame).tobytes() for i in range(t.steps + 360)}) == 30


@pytest.mark.parametrize("resolution", [16, 32, 64, 128, 256])
def test_first_paddles_of_a_pair_stay_inside(resolution: int) -> None:
    """So that the reference's second and third try for a pair of seeds never happens."""
    s = setting(resolution, "hard")
    for margin in s.margins:
        t = tables(s, margin)
        low = s.border - s.seed_distance  # a first tail lies inside the border: each kernel has offsets on both sides
        tails = np.arange(low, resolution - low) + t.pad
        for table in (t.seed_head, t.seed_pivot):
            places = table[:, :, tails] - t.pad
            assert places.min() >= 0
            assert places.max() < resolution


# ---- growing: the rules, one paddle at a time, on whole images in floating point


@pytest.mark.parametrize(("resolution", "count"), [(32, 40), (64, 3), (128, 4)])
def test_replay(resolution: int, count: int) -> None:
    s = setting(resolution, "hard")
    margin = s.margins[0]
    t = tables(s, margin)
    paths = grow_targets(t, count, chunk_seed(7, 0))
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
        ours = paths.ground.mask.reshape(-1, t.frame, t.frame)[i, inside, inside] / 255
        np.testing.assert_array_equal(ours, np.where(taken > 0.3, taken, 0))
        wide = paths.ground.wide.reshape(-1, t.frame, t.frame)[i, inside, inside] / 255
        np.testing.assert_array_equal(wide, ndimage.grey_dilation(taken, footprint=disc, mode="constant"))


# ---- what the reference measures (4,000 images of its own)


def near(values: np.ndarray, mean: float, sd: float) -> None:
    """Within 4 standard errors, of these values and of the 2,000 or more that the reference's mean is from."""
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
    found = np.quantile(distance, (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99))
    assert np.abs(found - quantiles).max() < 0.95
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
    """Neither brightness nor where light is tells the label; the markers' distance does, a little."""
    of = hard.labels == 1
    for image in (hard.images.mean((1, 2)), (hard.images > 0).mean((1, 2)), hard.distractors):
        auc = stats.mannwhitneyu(image[of], image[~of]).statistic / (of.sum() * (~of).sum())
        assert abs(auc - 0.5) < 0.04
    distance = np.hypot(*(hard.markers[:, 0] - hard.markers[:, 1]).T.astype(float))
    auc = stats.mannwhitneyu(distance[of], distance[~of]).statistic / (of.sum() * (~of).sum())
    assert 0.50 < auc < 0.575


# ---- the truth of the label


@pytest.mark.parametrize(("resolution", "n"), [(16, 300), (32, 300), (64, 12), (128, 12)])
def test_the_label_says_whether_both_markers_lie_on_one_snake(resolution: int, n: int) -> None:
    s = scenes(setting(resolution, "hard"), n, chunk_seed(5, 1))
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

    # The markers are what shines brightest; every joint is lit; joints of a snake follow each other.
    for image, markers, joints in zip(s.images, s.markers, s.joints, strict=True):
        assert all(image[y - 1 : y + 1, x - 1 : x + 1].min() >= 180 for y, x in markers)
        lit = ndimage.maximum_filter(image, 3)
        assert (lit[joints[..., 0], joints[..., 1]] > 50).all()
    steps = np.hypot(*np.moveaxis(np.diff(s.joints.astype(float), axis=2), -1, 0))
    length = setting(resolution, "hard").paddle_length
    assert length - 1 < steps[:, :, 1:].min()
    assert steps.max() < 3.5 * (length + 2)


def test_quick_snakes_keep_apart() -> None:
    s = scenes(setting(16, "hard"), 500, chunk_seed(5, 2))
    gaps = np.linalg.norm((s.joints[:, 0, :, None] - s.joints[:, 1, None]).astype(float), axis=-1)
    assert gaps.min() >= 3


# ---- generate


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()[:16]


def test_frozen_stream() -> None:
    """What these print is data that users have: another number means another version of the card."""
    assert pathfinder.CARD.version == 2
    assert digest(*pathfinder.generate(50, seed=1)) == "59006a24b9084cd0"
    assert digest(*pathfinder.generate(50, resolution=16, seed=1)) == "81c7e6b1ba386278"


def test_depends_on_the_seed_alone() -> None:
    one = pathfinder.generate(2_300, resolution=16, seed=3)
    two = pathfinder.generate(2_300, resolution=16, seed=3, workers=2)
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])
    few = pathfinder.generate(1_200, resolution=16, seed=3)
    np.testing.assert_array_equal(few[0], one[0][:1_200])
    assert (pathfinder.generate(50, resolution=16, seed=4)[0] != one[0][:50]).any()
    assert len({image.tobytes() for image in one[0]}) == len(one[0])


def numbered(numbers: Setting, n: int, rng: np.random.RandomState) -> Scenes:
    """Images that are numbers: of chunk c, those from 300 c on, so that chunks of 1,000 share most of theirs."""
    first = 300 * numbered.calls
    numbered.calls += 1
    values = np.arange(first, first + n, dtype=np.uint16)
    images = np.zeros((n, numbers.resolution, numbers.resolution), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = values % 256, values // 256
    nothing = np.zeros(0)
    return Scenes(images, (values % 2).astype(np.uint8), nothing, nothing, nothing, nothing)


numbered.calls = 0  # type: ignore[attr-defined]


def test_an_image_that_was_drawn_before_is_not_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """More chunks are drawn instead: 2,500 images are in three chunks, 2,500 distinct ones in six."""
    monkeypatch.setattr(chunks, "scenes", numbered)
    monkeypatch.setattr(numbered, "calls", 0)
    images, labels = pathfinder.generate(2_500, resolution=16, seed=0)
    assert (images[:, 0, 0] + 256 * images[:, 0, 1].astype(int)).tolist() == list(range(2_500))
    assert labels.tolist() == [i % 2 for i in range(2_500)]
    assert numbered.calls == 6  # type: ignore[attr-defined]
    assert pathfinder.generate(0, resolution=16, seed=0)[0].shape == (0, 16, 16)
    assert numbered.calls == 6  # type: ignore[attr-defined]


def test_harder_means_longer() -> None:
    levels = ("easy", "intermediate", "hard")
    lengths = {d: scenes(setting(32, d), 20, chunk_seed(1, 1)).joints.shape[2] for d in levels}
    assert lengths == {"easy": 6, "intermediate": 9, "hard": 14}
    slots = [setting(r, d).distractors for r in (32, 64, 128, 256) for d in levels]
    assert slots == [10, 6, 5, 11, 7, 5, 17, 11, 8, 15, 10, 7]


def test_margins_are_drawn_for_each_image() -> None:
    """At 128 snakes with the wider margin take longer steps."""
    s = scenes(setting(128, "hard"), 40, chunk_seed(2, 0))
    steps = np.hypot(*np.moveaxis(np.diff(s.joints.astype(float), axis=2), -1, 0)).mean((1, 2))
    assert (steps < 9.9).any()
    assert (steps > 10.1).any()


def test_unknown_names() -> None:
    with pytest.raises(DataError, match=r"resolution 48.*16, 32, 64, 128, 256.*easy, intermediate, hard"):
        pathfinder.generate(1, resolution=48, seed=0)
    with pytest.raises(DataError, match=r"variants: full, 16,.*sources: generated"):
        next(pathfinder.build("17", GENERATED, Path()))


# ---- build


def small(monkeypatch: pytest.MonkeyPatch, variant: str, sizes: tuple[int, int, int]) -> None:
    card = pathfinder.CARD
    cut = dataclasses.replace(card.variants[variant], sizes=dict(zip(SPLITS, sizes, strict=True)))
    monkeypatch.setattr(pathfinder, "CARD", dataclasses.replace(card, variants={**card.variants, variant: cut}))


def test_card() -> None:
    card = pathfinder.CARD
    assert card.name == "pathfinder"
    assert sum(card.variants["full"].sizes.values()) == 200_000
    assert {name: v.max_bytes for name, v in card.variants.items()} == {
        "full": 1024,
        "16": 256,
        "32-easy": 1024,
        "32-intermediate": 1024,
        "64": 4096,
        "128": 16384,
        "256": 65536,
    }


def test_sample(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    built = list(pathfinder.build("16", SAMPLE, tmp_path, progress=lambda _, done, total: seen.append((done, total))))
    assert [(b.split, len(b.examples)) for b in built] == [("train", 1_000), ("validation", 200), ("test", 200)]
    assert seen[-1] == (1_400, 1_400)
    images, labels = pathfinder.generate(1_400, resolution=16, seed=1806)
    np.testing.assert_array_equal(np.concatenate([b.examples.data for b in built]), images.reshape(-1))
    np.testing.assert_array_equal(np.concatenate([b.examples.labels for b in built]), labels)
    assert set(built[0].examples.lengths.tolist()) == {256}
    assert not list(tmp_path.iterdir())


def test_a_stopped_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, "16", (1_500, 700, 300))
    straight = list(pathfinder.build("16", GENERATED, tmp_path))
    monkeypatch.setattr(pathfinder, "_LONG", 16)
    monkeypatch.setattr(pathfinder, "_IN_MEMORY", 1_000)  # so that the splits lie in files
    drawn: list[int] = []

    def stopped(numbers: Setting, n: int, rng: np.random.RandomState) -> Scenes:
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(n)
        return scenes(numbers, n, rng)

    monkeypatch.setattr(chunks, "scenes", stopped)
    with pytest.raises(KeyboardInterrupt):
        list(pathfinder.build("16", GENERATED, tmp_path, work_dir=tmp_path))
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["00000.npz", "00001.npz"]
    torn = folder / ".00002.npz.torn"
    torn.write_bytes(b"half a chunk")  # what a kill leaves behind

    drawn.clear()
    again = list(pathfinder.build("16", GENERATED, tmp_path, work_dir=tmp_path))
    assert drawn == [1_000]
    for one, two in zip(straight, again, strict=True):
        assert one.examples.sha256 == two.examples.sha256
        assert one.source == two.source
    assert not list(tmp_path.iterdir())


def test_a_broken_chunk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, "16", (1_500, 700, 300))
    monkeypatch.setattr(pathfinder, "_LONG", 16)
    folder = tmp_path / f"16-v{pathfinder.CARD.version}-seed1805"
    folder.mkdir()
    (folder / "00000.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"00000\.npz: not readable"):
        list(pathfinder.build("16", GENERATED, tmp_path, work_dir=tmp_path))


# ---- LRA's layout


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """60 images of 32 hard in LRA's layout."""
    images, labels = pathfinder.generate(60, seed=9)
    cuts = dict(zip(SPLITS, (slice(0, 48), slice(48, 54), slice(54, 60)), strict=True))
    splits = {name: Split.from_images(images[cut], labels[cut]) for name, cut in cuts.items()}
    root = pathfinder.write_official(splits, tmp_path)
    assert root == pathfinder.locate(tmp_path) == tmp_path / "pathfinder32" / "curv_contour_length_14"
    return root


def read(tmp_path: Path) -> tuple[np.ndarray, np.ndarray, list[int], str]:
    built = list(pathfinder.build("full", OFFICIAL, tmp_path))
    data = np.concatenate([b.examples.data for b in built]).reshape(-1, 32, 32)
    return data, np.concatenate([b.examples.labels for b in built]), [len(b.examples) for b in built], built[-1].source


def test_official_round_trip(official: Path, tmp_path: Path) -> None:
    images, labels, sizes, source = read(tmp_path)
    expected = pathfinder.generate(60, seed=9)
    np.testing.assert_array_equal(images, expected[0])
    np.testing.assert_array_equal(labels, expected[1])
    assert sizes == [48, 6, 6]
    assert source.startswith("unrecognised copy ")
    first = (official / "metadata" / "0.npy").read_text().split("\n")[0]
    assert first == f"imgs/0 sample_0.png 0 {expected[1][0]} 1.0 14 4 2 0.5 1 1"
    assert Image.open(official / "imgs" / "0" / "sample_0.png").mode == "L"
    with pytest.raises(DataError, match="exists"):
        pathfinder.write_official({"train": Split.from_images(*expected)}, tmp_path)


def test_batches_go_by_number(official: Path, tmp_path: Path) -> None:
    rows = (official / "metadata" / "0.npy").read_text().splitlines(keepends=True)
    (official / "metadata" / "0.npy").unlink()
    for name, part in (("2", rows[:20]), ("10", rows[20:40]), ("100", rows[40:])):
        (official / "metadata" / f"{name}.npy").write_text("".join(part))
    np.testing.assert_array_equal(read(tmp_path)[0], pathfinder.generate(60, seed=9)[0])


def test_empty_images_are_left_out_and_counted(official: Path, tmp_path: Path) -> None:
    (official / "imgs" / "0" / "sample_5.png").write_bytes(b"")
    images, _, sizes, source = read(tmp_path)
    np.testing.assert_array_equal(images, np.delete(pathfinder.generate(60, seed=9)[0], 5, 0))
    assert sum(sizes) == 59
    assert source.endswith("1 empty images left out")


def test_broken_images_and_rows_are_named(official: Path, tmp_path: Path) -> None:
    image = official / "imgs" / "0" / "sample_7.png"
    whole = image.read_bytes()
    for content in (whole[:60], b"no picture", whole[:40] + bytes(20) + whole[60:]):
        image.write_bytes(content)
        with pytest.raises(DataError, match=r"sample_7\.png \(.*0\.npy, row 8\)"):
            read(tmp_path)
    Image.new("L", (31, 32)).save(image)
    with pytest.raises(DataError, match=r"sample_7\.png.*31 x 32"):
        read(tmp_path)
    image.unlink()
    with pytest.raises(DataError, match=r"0\.npy, row 8: .*sample_7\.png"):
        read(tmp_path)
    image.write_bytes(whole)

    metadata = official / "metadata" / "0.npy"
    text = metadata.read_text()
    for broken, row in (
        (text.replace("sample_3.png 3 ", "sample_3.png "), 4),
        (text.replace("sample_59.png 59 ", "sample_59.png 59 2"), 60),
        (text[:-30], 60),
        (text + "\n", 61),
    ):
        metadata.write_text(broken)
        with pytest.raises(DataError, match=rf"0\.npy, row {row}\b"):
            read(tmp_path)
    np.save(metadata, np.array([["imgs/0", "sample_0.png"]]))
    with pytest.raises(DataError, match="not text"):
        read(tmp_path)


def test_missing_official_files_say_where_they_were_looked_for(tmp_path: Path) -> None:
    assert pathfinder.locate(tmp_path) is None
    with pytest.raises(DataError, match=r"pathfinder128/curv_contour_length_14.*lra_release\.gz"):
        next(pathfinder.build("128", OFFICIAL, tmp_path))
    with pytest.raises(DataError, match="LRA has no 16 x 16"):
        next(pathfinder.build("16", OFFICIAL, tmp_path))
