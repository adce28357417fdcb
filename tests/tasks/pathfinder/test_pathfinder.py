"""The task: its card, `generate`, `build`, and builds that are resumed."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

from tasks import pathfinder
from tasks.core import GENERATED, SAMPLE, SPLITS
from tasks.errors import DataError
from tasks.pathfinder import chunks
from tasks.pathfinder.generator import Scenes, scenes
from tasks.pathfinder.settings import Setting


def digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()[:16]


def test_the_random_stream_is_frozen() -> None:
    """If this fails, the data of users have changed: raise the version of the card."""
    assert pathfinder.CARD.version == 2
    assert digest(*pathfinder.generate(50, seed=1)) == "59006a24b9084cd0"
    assert digest(*pathfinder.generate(50, resolution=12, seed=1)) == "65f5b2d50b87fdc4"
    assert digest(*pathfinder.generate(50, resolution=16, seed=1)) == "4a5205c2e1e9b6f5"


def test_images_depend_only_on_the_seed() -> None:
    one = pathfinder.generate(2_300, resolution=12, seed=3)
    two = pathfinder.generate(2_300, resolution=12, seed=3, workers=2)
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])
    few = pathfinder.generate(1_200, resolution=12, seed=3)
    np.testing.assert_array_equal(few[0], one[0][:1_200])
    assert (pathfinder.generate(50, resolution=12, seed=4)[0] != one[0][:50]).any()
    assert len({image.tobytes() for image in one[0]}) == len(one[0])


def numbered(numbers: Setting, n: int, rng: np.random.RandomState) -> Scenes:
    """Return images that encode numbers, from 300 c on for chunk c, so that chunks of 1,000 overlap."""
    first = 300 * numbered.calls
    numbered.calls += 1
    values = np.arange(first, first + n, dtype=np.uint16)
    images = np.zeros((n, numbers.resolution, numbers.resolution), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = values % 256, values // 256
    nothing = np.zeros(0)
    return Scenes(images, (values % 2).astype(np.uint8), nothing, nothing, nothing, nothing)


numbered.calls = 0  # type: ignore[attr-defined]


def test_an_image_that_was_drawn_before_is_not_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """More chunks are drawn instead: six, not three, for 2,500 distinct images."""
    monkeypatch.setattr(chunks, "scenes", numbered)
    monkeypatch.setattr(numbered, "calls", 0)
    images, labels = pathfinder.generate(2_500, resolution=12, seed=0)
    assert (images[:, 0, 0] + 256 * images[:, 0, 1].astype(int)).tolist() == list(range(2_500))
    assert labels.tolist() == [i % 2 for i in range(2_500)]
    assert numbered.calls == 6  # type: ignore[attr-defined]
    assert pathfinder.generate(0, resolution=12, seed=0)[0].shape == (0, 12, 12)
    assert numbered.calls == 6  # type: ignore[attr-defined]


def test_unknown_names() -> None:
    with pytest.raises(DataError, match=r"resolution 48.*12, 16, 32, 64, 128, 256.*easy, intermediate, hard"):
        pathfinder.generate(1, resolution=48, seed=0)
    with pytest.raises(DataError, match=r"variants: full, 12,.*sources: generated"):
        next(pathfinder.build("17", GENERATED, Path()))


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
        "12": 144,
        "16-short": 256,
        "32-easy": 1024,
        "32-intermediate": 1024,
        "64": 4096,
        "128": 16384,
        "256": 65536,
    }


def test_sample(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    built = list(pathfinder.build("12", SAMPLE, tmp_path, progress=lambda _, done, total: seen.append((done, total))))
    assert [(b.split, len(b.examples)) for b in built] == [("train", 1_000), ("validation", 200), ("test", 200)]
    assert seen[-1] == (1_400, 1_400)
    images, labels = pathfinder.generate(1_400, resolution=12, seed=1806)
    np.testing.assert_array_equal(np.concatenate([b.examples.data for b in built]), images.reshape(-1))
    np.testing.assert_array_equal(np.concatenate([b.examples.labels for b in built]), labels)
    assert set(built[0].examples.lengths.tolist()) == {144}
    assert not list(tmp_path.iterdir())


def test_an_interrupted_build_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, "12", (1_500, 700, 300))
    straight = list(pathfinder.build("12", GENERATED, tmp_path))
    monkeypatch.setattr(pathfinder, "_RESUMABLE", 12)
    monkeypatch.setattr(pathfinder, "_IN_MEMORY", 1_000)  # so that the splits lie in files
    drawn: list[int] = []

    def stopped(numbers: Setting, n: int, rng: np.random.RandomState) -> Scenes:
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(n)
        return scenes(numbers, n, rng)

    monkeypatch.setattr(chunks, "scenes", stopped)
    with pytest.raises(KeyboardInterrupt):
        list(pathfinder.build("12", GENERATED, tmp_path, work_dir=tmp_path))
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["00000.npz", "00001.npz"]
    torn = folder / ".00002.npz.torn"
    torn.write_bytes(b"half a chunk")  # what a kill leaves behind

    drawn.clear()
    again = list(pathfinder.build("12", GENERATED, tmp_path, work_dir=tmp_path))
    assert drawn == [1_000]
    for one, two in zip(straight, again, strict=True):
        assert one.examples.sha256 == two.examples.sha256
        assert one.source == two.source
    assert not list(tmp_path.iterdir())


def test_a_damaged_chunk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, "12", (1_500, 700, 300))
    monkeypatch.setattr(pathfinder, "_RESUMABLE", 12)
    folder = tmp_path / "chunks-seed1805"
    folder.mkdir()
    (folder / "00000.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"00000\.npz: not readable"):
        list(pathfinder.build("12", GENERATED, tmp_path, work_dir=tmp_path))
