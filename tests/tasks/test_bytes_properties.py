"""Any bytes go from a source to a prepared split and back unchanged, except for the part that is cut."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks import text
from tasks.core import Built, Split
from tasks.errors import DataError
from tasks.prepared import read_prepared, write_prepared
from tasks.retrieval import pair_split
from tasks.retrieval.official import locate, read_pairs

DOCUMENTS = st.lists(st.binary(max_size=30), max_size=8)


@st.composite
def splits(draw: st.DrawFn) -> Split:
    """Draw a split of documents or of pairs."""
    documents = draw(st.lists(st.binary(max_size=30), min_size=1, max_size=8))
    label, item = st.integers(0, 1), st.integers(0, len(documents) - 1)
    items: Any = draw(st.lists(st.tuples(item, item) if draw(st.booleans()) else item, min_size=1, max_size=6))
    return Split.from_documents(documents, draw(st.lists(label, min_size=len(items), max_size=len(items))), items)


@given(DOCUMENTS)
def test_documents_are_kept_byte_by_byte(documents: list[bytes]) -> None:
    split = Split.from_documents(documents, np.zeros(len(documents)))
    assert [split.document(d) for d in range(len(documents))] == documents
    assert split.lengths.tolist() == [len(d) for d in documents]
    assert len(split.data) == sum(map(len, documents))


@settings(max_examples=40)
@given(splits(), splits(), st.text(st.characters(categories=["L", "P", "S"]), min_size=1, max_size=20))
def test_prepared_data_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, train: Split, test: Split, source: str
) -> None:
    place = tmp_path_factory.getbasetemp() / "prepared"
    shutil.rmtree(place, ignore_errors=True)
    given_splits = {"train": train, "test": test}
    write_prepared(place, text.CARD, "full", (Built(name, split, source) for name, split in given_splits.items()))
    read = read_prepared(place, text.CARD)
    assert (read.task, read.variant, read.version, read.source) == ("text", "full", text.CARD.version, source)
    for name, split in given_splits.items():
        assert read.splits[name].sha256 == split.sha256
        for field, array in vars(split).items():
            np.testing.assert_array_equal(getattr(read.splits[name], field), array)


@given(splits(), st.data())
def test_an_inconsistent_split_is_refused(split: Split, data: st.DataObject) -> None:
    """After any number is replaced, the split is refused, or its documents still cover the data end to end."""
    name = data.draw(st.sampled_from(["offsets", "items"]))
    array = getattr(split, name).copy()
    low, high = np.iinfo(array.dtype).min, np.iinfo(array.dtype).max
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, array.size - 1))
        array.reshape(-1)[place] = data.draw(st.sampled_from([low, -1, 0, 1, 7, high]) | st.integers(low, high))
    try:
        changed = Split(**{**vars(split), name: array})
    except DataError:
        return
    documents = [changed.document(d) for d in range(len(changed.offsets) - 1)]
    assert b"".join(documents) == split.data.tobytes()
    for row, lengths in zip(
        changed.items.reshape(len(changed), -1), changed.lengths.reshape(len(changed), -1), strict=True
    ):
        assert [len(documents[d]) for d in row] == lengths.tolist()


@given(st.data(), DOCUMENTS.filter(len), st.integers(1, 20))
def test_each_distinct_text_of_pairs_is_cut_and_stored_once(
    data: st.DataObject, texts: list[bytes], max_bytes: int
) -> None:
    item = st.integers(0, len(texts) - 1)
    rows = data.draw(st.lists(st.tuples(item, item), min_size=1, max_size=8))
    split = pair_split(texts, np.zeros(len(rows), np.uint8), np.array(rows, np.int32), max_bytes)
    got = [tuple(split.document(d) for d in pair) for pair in split.items]
    assert got == [(texts[a][:max_bytes], texts[b][:max_bytes]) for a, b in rows]
    documents = [split.document(d) for d in range(len(split.offsets) - 1)]
    assert len(documents) == len(set(documents))


def folder(place: Path, reviews: dict[str, bytes]) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    for part in ("train/neg", "train/pos", "test/neg", "test/pos"):
        (place / part).mkdir(parents=True)
    for name, content in reviews.items():
        (place / name).write_bytes(content)
    return place


@settings(max_examples=40)
@given(st.lists(st.binary(max_size=40), max_size=5))
@example([b"\xff\xfe\x00", b"\xc3\x28", b"\xed\xa0\x80"])
def test_a_review_is_its_bytes_whatever_they_are(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]
) -> None:
    """Reviews are not decoded; only white space at both ends is removed."""
    named = {f"train/pos/{i}_9.txt": content for i, content in enumerate(contents)}
    place = folder(tmp_path_factory.getbasetemp() / "aclImdb", named)
    if all(content.strip() for content in contents):
        reviews = text.read(place)
        assert sorted(reviews["train"]) == sorted((content.strip(), 1) for content in contents)
    else:
        with pytest.raises(DataError, match="is empty"):
            text.read(place)


def rows(texts: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
    for first, second in texts:
        yield b"\t".join([b"1.0", b"A", b"B", repr(first).encode(), repr(second).encode()]) + b"\n"


@settings(max_examples=40)
@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=40)), min_size=1, max_size=4))
def test_a_paper_is_the_bytes_of_its_literal(
    tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[bytes, bytes]]
) -> None:
    place = tmp_path_factory.getbasetemp()
    for name in ("train", "eval", "test"):
        (place / f"new_aan_pairs.{name}.tsv").write_bytes(b"".join(rows(texts)))
    texts_read, pairs = read_pairs(locate(place)[0], lambda *_: None)
    for split in ("train", "validation", "test"):
        labels, items = pairs[split]
        assert labels.tolist() == [1] * len(texts)
        assert [(texts_read[a], texts_read[b]) for a, b in items] == texts
