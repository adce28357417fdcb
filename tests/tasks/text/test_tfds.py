"""The reviews as tensorflow-datasets prepares them give the same data as the archive, in both of its file formats."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tensorboardX.record_writer import RecordWriter

from tasks import archives, text
from tasks.core import TFDS
from tasks.errors import DataError
from tests import source_files

FORMATS = ("array_record", "tfrecord")


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an archive of four reviews, which is outside of the places where one is looked for."""
    source_files.shrink(monkeypatch)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    return source_files.pack("text", tmp_path / "elsewhere", {})


def write_imdb_reviews(root: Path, reviews: dict[str, text.Reviews], form: str, shards: int = 1) -> Path:
    """Write what tensorflow-datasets writes when it prepares imdb_reviews, and return its directory."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter

    target = root / "imdb_reviews/plain_text/1.0.0"
    target.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=text.CARD.classes)}
    )
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="imdb_reviews", config_name="plain_text", version="1.0.0", data_dir=str(target), module_name="test"
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    info.set_file_format(form)
    serializer = tfds.core.example_serializer.ExampleSerializer(features.get_serialized_info())
    names = tfds.core.ShardedFileTemplate(data_dir=target, dataset_name="imdb_reviews", filetype_suffix=form)
    splits = []
    for split, split_reviews in reviews.items():
        template = names.replace(split=split)
        for shard in range(shards):
            path = str(template.sharded_filepath(shard_index=shard, num_shards=shards))
            writer = ArrayRecordWriter(path, "group_size:1") if form == "array_record" else RecordWriter(path)
            for content, label in reversed(split_reviews[shard::shards]):
                example = features.encode_example({"text": content, "label": label})
                writer.write(serializer.serialize_example(example))
            writer.close()
        lengths = [len(split_reviews[shard::shards]) for shard in range(shards)]
        splits.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=1, filename_template=template))
    info.set_splits(tfds.core.splits.SplitDict(splits))
    info.write_to_directory(target)
    return target


def built(place: Path) -> list[tuple[str, str, str]]:
    return [(part.split, part.examples.sha256, part.source) for part in text.build("full", TFDS, place)]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("shards", "place"), [(1, "tfds"), (2, "")])
def test_prepared_reviews_give_the_data_of_the_archive(
    form: str, shards: int, place: str, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in the directory of tensorflow-datasets or in the data directory; else the archive is fetched."""
    monkeypatch.setattr(archives.Archive, "fetch", lambda *_: packed)
    fetched = built(tmp_path)
    target = write_imdb_reviews(tmp_path / place, text.read(packed), form, shards)
    monkeypatch.setattr(archives.Archive, "fetch", lambda *_: pytest.fail("fetched although prepared"))
    assert built(tmp_path) == fetched

    (tmp_path / "trap.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    features = target / "features.json"
    features.write_text(features.read_text().replace("tensorflow_datasets.core.features", "trap"))
    assert built(tmp_path) == fetched
    assert "trap" not in sys.modules


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_files_are_refused(form: str, packed: Path, tmp_path: Path) -> None:
    target = write_imdb_reviews(tmp_path, text.read(packed), form)
    (shard,) = target.glob(f"*-test.{form}*")
    content = shard.read_bytes()
    for damaged in (content[:-100], content[:5]):
        shard.write_bytes(damaged)
        with pytest.raises(DataError, match=r"plain_text/1\.0\.0: not readable"):
            built(tmp_path)


@pytest.mark.parametrize("at", range(16))
def test_the_checksums_of_tfrecord_are_compared(at: int, packed: Path, tmp_path: Path) -> None:
    """A wrong bit is found in the length, its checksum, the text, and (from the end) the checksum of the text."""
    target = write_imdb_reviews(tmp_path, text.read(packed), "tfrecord")
    (shard,) = target.glob("*-test.tfrecord*")
    content = bytearray(shard.read_bytes())
    content[at if at < 12 else -(at - 11)] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"not readable \(the (length|checksum) of a record"):
        built(tmp_path)


def test_array_record_is_preferred(packed: Path, tmp_path: Path) -> None:
    first = write_imdb_reviews(tmp_path, text.read(packed), "array_record")
    second = write_imdb_reviews(tmp_path / "tfds", text.read(packed), "tfrecord")
    (second / "imdb_reviews-test.array_record-00000-of-00001").touch()
    found = text.locate(tmp_path, "full", TFDS)
    assert [(origin.path, origin.patterns[0].partition(".")[2]) for origin in found] == [
        (first, "array_record*"),
        (second, "array_record*"),
        (second, "tfrecord*"),
    ]
