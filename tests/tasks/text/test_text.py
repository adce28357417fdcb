"""Text: all sources give the same reviews, damaged sources are named, the sample is frozen."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tasks import archives, text
from tasks.core import OFFICIAL, SAMPLE
from tasks.errors import DataError
from tasks.text import sample

FILES = {
    "aclImdb/train/neg/0_3.txt": b"dull, dull, dull",
    "aclImdb/train/neg/1_1.txt": b" worse\x97 still\n",  # not UTF-8; white space at the ends
    "aclImdb/train/pos/0_9.txt": b"caf\xc3\xa9 scenes, a delight",
    "aclImdb/train/pos/1_10.txt": b"wonderful",
    "aclImdb/test/neg/0_2.txt": b"no",
    "aclImdb/test/neg/1_4.txt": b"no, no",
    "aclImdb/test/pos/0_7.txt": b"yes",
    "aclImdb/test/pos/1_8.txt": b"yes, yes",
}
EXTRA = {
    "aclImdb/README": b"about",
    "aclImdb/train/unsup/0_0.txt": b"nobody knows",
    "aclImdb/train/urls_pos.txt": b"http://example.org",
    "aclImdb/train/pos/.DS_Store": b"\0",
}


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def unpack(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root / text.ARCHIVE.folder


def test_archive_and_directory_read_the_same(tmp_path: Path) -> None:
    packed = pack(tmp_path / text.ARCHIVE.name, dict(reversed((FILES | EXTRA).items())))
    dotted = pack(tmp_path / "dotted.tar.gz", {f"./{name}": content for name, content in FILES.items()})
    folder = unpack(tmp_path, FILES | EXTRA)
    want = {
        split: {(c.strip(), int("/pos/" in n)) for n, c in FILES.items() if f"/{split}/" in n} for split in text.SPLITS
    }
    reviews = text.read(packed)
    assert {split: set(r) for split, r in reviews.items()} == want
    assert text.read(folder) == reviews == text.read(dotted)
    assert text.content_sha256(text.read(folder)) == text.content_sha256(reviews)


def test_content_hash_sees_text_label_and_split() -> None:
    base = {"train": [(b"a", 0)], "test": [(b"b", 1)]}
    others = [
        {"train": [(b"x", 0)], "test": [(b"b", 1)]},
        {"train": [(b"a", 1)], "test": [(b"b", 1)]},
        {"train": [(b"b", 1)], "test": [(b"a", 0)]},
    ]
    assert text.content_sha256(base) not in {text.content_sha256(other) for other in others}


def test_build_cuts_and_labels_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "PER_CLASS", 2)
    monkeypatch.setattr(text, "SHORT_TEST_PER_CLASS", 1)
    long = FILES | {"aclImdb/train/neg/0_3.txt": b"\x80" + b"long " * 4_000}
    pack(tmp_path / text.ARCHIVE.name, long)
    full = list(text.build("full", OFFICIAL, tmp_path))
    assert [part.split for part in full] == ["train", "test"]
    assert {part.source for part in full} == {
        f"unrecognised copy {text.content_sha256(text.read(tmp_path / text.ARCHIVE.name))[:8]}"
    }
    assert full[0].examples.lengths.max() == 16_384
    assert full[0].examples.labels.tolist().count(1) == 2
    cut = list(text.build("cut", OFFICIAL, tmp_path))
    assert cut[0].source == full[0].source, "the name of a source does not depend on the variant"
    assert cut[0].examples.lengths.max() == 256
    assert sorted(cut[1].examples.labels.tolist()) == [0, 1]
    official = dataclasses.replace(text.ARCHIVE, sha256=archives.file_sha256(tmp_path / text.ARCHIVE.name))
    monkeypatch.setattr(text, "ARCHIVE", official)
    assert next(text.build("full", OFFICIAL, tmp_path)).source == "official archive"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"aclImdb/test/pos/2_3.txt": b"liked it?"}, r"test/pos/2_3.txt: 3 of 10 stars"),
        ({"aclImdb/test/pos/2_9.txt": b" \n"}, r"test/pos/2_9.txt is empty"),
        ({"./aclImdb/test/pos/1_8.txt": b"again"}, r"test/pos/1_8.txt is there twice"),
        ({"../aclImdb/test/pos/2_8.txt": b"out"}, r"'../aclImdb/test/pos/2_8.txt' leads out"),
        ({"/etc/motd": b"out"}, r"'/etc/motd' leads out"),
    ],
)
def test_bad_reviews_are_named(tmp_path: Path, change: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        text.read(pack(tmp_path / text.ARCHIVE.name, FILES | change))


def test_a_link_is_not_read_as_a_review(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / text.ARCHIVE.name, "w:gz") as tar:
        member = tarfile.TarInfo("aclImdb/test/pos/2_8.txt")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(DataError, match=r"2_8.txt' is not a regular file"):
        text.read(tmp_path / text.ARCHIVE.name)


def flip(content: bytes) -> bytes:
    """One wrong bit in the stored checksum, which no member shows."""
    return content[:-8] + bytes([content[-8] ^ 1]) + content[-7:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c[: len(c) // 2], "broken after"),
        (lambda c: c[:-4], "broken after its last member"),
        (flip, "CRC check failed"),
        (lambda c: b"<html>404</html>", "[Nn]ot a gzip"),
        (lambda c: b"", "broken after its start"),
    ],
)
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    rng = np.random.RandomState(0)
    noisy = {name: rng.bytes(20_000) for name in FILES}
    path = pack(tmp_path / text.ARCHIVE.name, noisy)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        text.read(path)
    assert str(path) in str(caught.value)
    assert "Download http" in str(caught.value)


def test_incomplete_sources(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither aclImdb_v1.tar.gz nor aclImdb/ in .*Download http.*data directory"):
        text.build("full", OFFICIAL, tmp_path)
    assert text.locate(tmp_path) == []
    folder = unpack(tmp_path, {n: c for n, c in FILES.items() if "test/pos" not in n})
    assert [origin.path for origin in text.locate(tmp_path)] == [folder]
    with pytest.raises(DataError, match="no folder test/pos"):
        text.read(folder)
    packed = pack(tmp_path / text.ARCHIVE.name, FILES)
    assert [origin.path for origin in text.locate(tmp_path)] == [packed, folder]
    with pytest.raises(DataError, match="2 reviews in train/neg, not 12500"):
        text.build("full", OFFICIAL, tmp_path)


def test_unknown_names_list_the_valid_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="full, cut"):
        text.build("short", SAMPLE, tmp_path)
    with pytest.raises(DataError, match="official, tfds, sample"):
        text.build("full", "imdb", tmp_path)


def test_card() -> None:
    assert text.CARD.selection == "last"
    assert text.CARD.vocab_size == 257
    assert text.CARD.classes == ("neg", "pos")
    assert all(set(variant.sizes) == {"train", "test"} for variant in text.CARD.variants.values())


def histograms(documents: list[bytes]) -> np.ndarray:
    return np.stack([np.bincount(np.frombuffer(d, np.uint8), minlength=256) / len(d) for d in documents])


@pytest.fixture(scope="module")
def sample_reviews() -> dict[str, list[tuple[bytes, int]]]:
    return sample.reviews()


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["full", "cut"])
def test_sample_is_more_than_a_bag_of_bytes(
    variant: str,
    tmp_path: Path,
    sample_reviews: dict[str, list[tuple[bytes, int]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sample, "reviews", lambda progress: sample_reviews)
    parts = {part.split: part.examples for part in text.build(variant, SAMPLE, tmp_path)}
    assert list(parts) == ["train", "test"]
    assert np.bincount(parts["test"].labels).tolist() == [500, 500]
    documents = {s: [e.document(d) for d in e.items[:6_000]] for s, e in parts.items()}
    assert not set(documents["train"]) & set(documents["test"])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    model.fit(histograms(documents["train"]), parts["train"].labels[:6_000])
    score = model.score(histograms(documents["test"]), parts["test"].labels)
    assert 0.6 < score < 0.85


def test_sample_is_fixed(sample_reviews: dict[str, list[tuple[bytes, int]]]) -> None:
    assert text.content_sha256(sample_reviews)[:16] == "9a506ffbf5a803f5"
    assert max(len(review) for review, _ in sample_reviews["train"]) < text.CARD.variants["full"].max_bytes


@pytest.mark.slow
def test_real_reviews(data_dir: Path) -> None:
    """Counts, balance and lengths of the labelled part of the release; documents are not cut."""
    if not text.locate(data_dir):
        pytest.skip(f"no {text.ARCHIVE.name} in the data directory")
    full = {part.split: part.examples for part in text.build("full", OFFICIAL, data_dir)}
    for split, examples in full.items():
        assert np.bincount(examples.labels).tolist() == [12_500, 12_500], split
        assert 400 < examples.labels[:1_000].sum() < 600, "any prefix is a fair sample"
    assert full["train"].lengths.max() == 13_704
    assert full["test"].lengths.min() == 32
