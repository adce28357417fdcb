"""Image: gray levels are the nearest, splits are by index, damaged files are named, the sample is frozen."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tasks import archives, image
from tasks.core import OFFICIAL, SAMPLE, TFDS, Progress, Split
from tasks.errors import DataError
from tasks.image import sample


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """Return six files of random colours; all pixels of a channel are equal, so that they compress."""
    rng = np.random.RandomState(0)
    out = {}
    for name in image.FILES:
        records = np.empty((image.RECORDS, image.RECORD_BYTES), np.uint8)
        records[:, 0] = rng.randint(10, size=image.RECORDS)
        records[:, 1:] = rng.randint(256, size=(image.RECORDS, 3)).repeat(1024, axis=1)
        out[name] = records.tobytes()
    return out


def pack(path: Path, contents: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in {"batches.meta.txt": b"airplane\n", **contents}.items():
            member = tarfile.TarInfo(f"{image.ARCHIVE.folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def packed(contents: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an archive with the six files in reverse order."""
    return pack(tmp_path_factory.mktemp("packed") / image.ARCHIVE.name, dict(reversed(contents.items())))


def unpack(root: Path, contents: dict[str, bytes]) -> Path:
    (root / image.ARCHIVE.folder).mkdir()
    for name, content in contents.items():
        (root / image.ARCHIVE.folder / name).write_bytes(content)
    return root / image.ARCHIVE.folder


def test_gray_is_the_nearest_level() -> None:
    """Compared with the weights in floating point on a grid of all colours; R = G = B keeps its level."""
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    red, green, blue = (c.ravel() for c in np.meshgrid(levels, levels, levels))
    exact = 0.2989 * red + 0.5870 * green + 0.1140 * blue
    assert np.abs(image.gray(red, green, blue) - exact).max() <= 0.5 + 1e-9
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(image.gray(every, every, every), every)
    assert image.gray(*(np.array([v], np.uint8) for v in (255, 0, 0))) == 76
    assert image.gray(*(np.array([v], np.uint8) for v in (0, 255, 0))) == 150
    assert image.gray(*(np.array([v], np.uint8) for v in (0, 0, 255))) == 29


def test_decode_reads_rows_of_planes() -> None:
    red = np.arange(1024).reshape(32, 32) % 256
    record = bytes([7]) + red.astype(np.uint8).tobytes() + bytes(2048)
    images, labels = image.decode(record)
    assert labels.tolist() == [7]
    np.testing.assert_array_equal(images[0], np.floor(0.2989 * red + 0.5).astype(np.uint8))


def test_halve_is_the_nearest_mean() -> None:
    cells = np.random.RandomState(0).randint(256, size=(3, 4, 6)).astype(np.uint8)
    got = image.halve(cells)
    for n, i, j in np.ndindex(3, 2, 3):
        total = int(cells[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].astype(int).sum())
        assert got[n, i, j] == int(total / 4 + 0.5)


@pytest.mark.slow
def test_archive_and_directory_and_split(
    tmp_path: Path, contents: dict[str, bytes], packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [origin.path for origin in image.locate(packed.parent)] == [packed]
    from_archive = list(image.build("full", OFFICIAL, packed.parent))
    monkeypatch.setattr(image, "ARCHIVE", dataclasses.replace(image.ARCHIVE, sha256=archives.file_sha256(packed)))
    assert next(image.build("16", OFFICIAL, packed.parent)).source == "official archive"
    folder = unpack(tmp_path, contents)
    assert [origin.path for origin in image.locate(tmp_path)] == [folder]
    from_folder = list(image.build("full", OFFICIAL, tmp_path))
    assert [(p.split, p.source, p.examples.sha256) for p in from_archive] == [
        (p.split, p.source, p.examples.sha256) for p in from_folder
    ]
    assert from_folder[0].source.startswith("unrecognised copy ")

    records = {name: np.frombuffer(c, np.uint8).reshape(image.RECORDS, -1) for name, c in contents.items()}
    train = np.concatenate([records[f"data_batch_{i}.bin"] for i in (1, 2, 3, 4, 5)])
    want = {"train": train[:45_000], "validation": train[45_000:], "test": records["test_batch.bin"]}
    for part in from_folder:
        rows = want[part.split]
        np.testing.assert_array_equal(part.examples.labels, rows[:, 0])
        assert (part.examples.lengths == 1024).all()
        exact = rows[:, [1, 1025, 2049]] @ [0.2989, 0.5870, 0.1140]
        assert np.abs(part.examples.data[::1024] - exact).max() <= 0.5 + 1e-9

    short = {p.split: p.examples for p in image.build("16", OFFICIAL, tmp_path)}
    assert {s: len(e) for s, e in short.items()} == image.CARD.variants["16"].sizes
    for part in from_folder:
        n = len(short[part.split])
        np.testing.assert_array_equal(short[part.split].labels, part.examples.labels[:n])
        np.testing.assert_array_equal(short[part.split].data[::256], part.examples.data[::1024][:n])


def edit(content: bytes, record: int, value: int) -> bytes:
    at = record * image.RECORD_BYTES
    return content[:at] + bytes([value]) + content[at + 1 :]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("data_batch_3.bin", lambda c: c[:-5], r"data_batch_3.bin: record 9999 .* has 3068 of 3073 bytes"),
        ("data_batch_3.bin", lambda c: c[: 12 * 3073 + 100], r"data_batch_3.bin: record 12 .* has 100 of 3073"),
        ("test_batch.bin", lambda c: c[:-3073], r"test_batch.bin: record 9999 .* is missing"),
        ("test_batch.bin", lambda c: c + bytes(3073), r"test_batch.bin: record 10000 .* one too many"),
        ("data_batch_1.bin", lambda c: edit(c, 41, 10), r"data_batch_1.bin: record 41 .* has label 10"),
    ],
)
def test_bad_records_are_named(tmp_path: Path, contents: dict[str, bytes], name, change, message: str) -> None:
    folder = unpack(tmp_path, contents | {name: change(contents[name])})
    with pytest.raises(DataError, match=message) as caught:
        image.build("full", OFFICIAL, tmp_path)
    assert str(folder) in str(caught.value)
    assert "Download http" in str(caught.value)


def test_missing_and_broken_files(tmp_path: Path, contents: dict[str, bytes]) -> None:
    missing = r"neither cifar-10-binary.tar.gz nor cifar-10-batches-bin/ nor cifar-10-python.* in .*data directory"
    with pytest.raises(DataError, match=missing):
        image.build("full", OFFICIAL, tmp_path)
    folder = unpack(tmp_path, contents)
    (folder / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"no file data_batch_4.bin"):
        image.build("full", OFFICIAL, tmp_path)
    packed = pack(tmp_path / image.ARCHIVE.name, {"data_batch_1.bin": contents["data_batch_1.bin"]})
    with pytest.raises(DataError, match=r"no file data_batch_2.bin"):
        image.read(packed)
    packed.write_bytes(packed.read_bytes()[:-2_000])
    with pytest.raises(DataError, match=r"broken after cifar-10-batches-bin/batches.meta.txt"):
        image.read(packed)


def test_unknown_names_list_the_valid_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="full, 16"):
        image.build("8", SAMPLE, tmp_path)
    with pytest.raises(DataError, match="official, tfds, sample"):
        image.build("full", "cifar", tmp_path)


def test_tfds_fetches_the_release(tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(archive: archives.Archive, data_dir: Path, progress: Progress) -> Path:
        asked.append(archive)
        return packed

    monkeypatch.setattr(archives.Archive, "fetch", fetch)
    parts = list(image.build("16", TFDS, tmp_path / "nothing here"))
    assert {p.split: len(p.examples) for p in parts} == image.CARD.variants["16"].sizes
    assert asked == [image.ARCHIVE]


def test_checksums_are_those_of_tensorflow_datasets() -> None:
    """The package lists the checksums of both official archives."""
    import tensorflow_datasets as tfds

    from tasks import text

    package = Path(tfds.__file__).parent
    listed = {
        fields[3]: (int(fields[1]), fields[2])
        for path in (package / "url_checksums/cifar10.txt", package / "datasets/imdb_reviews/checksums.tsv")
        for fields in [path.read_text().split("\n")[0].split("\t")]
    }
    for task in (image, text):
        assert listed[task.ARCHIVE.name] == (task.ARCHIVE.size, task.ARCHIVE.sha256)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["full", "16"])
def test_sample_is_more_than_gray_levels(variant: str, tmp_path: Path) -> None:
    parts = {part.split: part.examples for part in image.build(variant, SAMPLE, tmp_path)}
    assert {s: len(e) for s, e in parts.items()} == sample.SIZES
    assert np.bincount(parts["test"].labels).tolist() == [100] * 10
    pixels = {s: e.data.reshape(len(e), -1) for s, e in parts.items()}
    assert {p.shape[1] for p in pixels.values()} == {image.CARD.variants[variant].max_bytes}
    bags = {s: np.stack([np.bincount(row, minlength=256) for row in p]) / p.shape[1] for s, p in pixels.items()}
    assert linear_accuracy(bags, parts) < 0.5, "gray levels without their places"
    if variant == "16":
        assert linear_accuracy(pixels, parts) < 0.5, "every pixel for itself"


def linear_accuracy(features: dict[str, np.ndarray], parts: dict[str, Split]) -> float:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=100, tol=1e-3))
    model.fit(features["train"][:5_000], parts["train"].labels[:5_000])
    return model.score(features["test"], parts["test"].labels)


def test_sample_is_fixed() -> None:
    digest = hashlib.sha256()
    for images, labels in sample.images().values():
        digest.update(images.tobytes() + labels.tobytes())
    assert digest.hexdigest()[:16] == "272cab8d9525a7f6"


def test_card() -> None:
    assert image.CARD.selection == "validation"
    assert len(image.CARD.classes) == len(sample.CLASSES) == 10
    assert image.CARD.variants["full"].sizes == {"train": 45_000, "validation": 5_000, "test": 10_000}


def test_real_images(data_dir: Path) -> None:
    """Counts and balance are those of CIFAR-10, and pixels with equal colours keep their level."""
    found = image.locate(data_dir)
    if not found:
        pytest.skip(f"no {image.ARCHIVE.name} in the data directory")
    contents = image.read(found[0].path)
    parts = image.split(contents)
    assert {s: len(labels) for s, (_, labels) in parts.items()} == image.CARD.variants["full"].sizes
    labels = np.concatenate([parts["train"][1], parts["validation"][1]])
    assert np.bincount(labels).tolist() == [5_000] * 10
    assert np.bincount(parts["test"][1]).tolist() == [1_000] * 10
    rows = np.frombuffer(contents["test_batch.bin"], np.uint8).reshape(image.RECORDS, image.RECORD_BYTES)
    records = rows[:, 1:].reshape(-1, 3, 32, 32)
    same = (records == records[:, :1]).all(1)
    np.testing.assert_array_equal(parts["test"][0][same], records[:, 0][same])
