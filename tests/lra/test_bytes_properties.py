"""Token ids: the bytes of a document, cut and padded, and nothing else."""

from __future__ import annotations

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lra.data.preview import _COLUMNS, _GAP, _LINES, _lines
from lra.training.device_dataset import example_lengths, gather, put_split
from tasks.core import Split
from tasks.text import CARD

BYTES = 24  # of all documents together: other sizes would only be compiled anew
ONE = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])


@st.composite
def ragged(draw: st.DrawFn) -> list[bytes]:
    """Four documents, none of them empty, of any bytes."""
    content = draw(st.binary(min_size=BYTES, max_size=BYTES))
    cuts = sorted(draw(st.sets(st.integers(1, BYTES - 1), min_size=3, max_size=3)))
    return [content[a:b] for a, b in zip([0, *cuts], [*cuts, BYTES], strict=True)]


@settings(max_examples=40)
@given(ragged(), st.sampled_from([(5, 5), (5, BYTES), (BYTES, BYTES)]), st.permutations(range(4)))
def test_ids_are_the_bytes_plus_one_and_then_zeros(
    documents: list[bytes], sizes: tuple[int, int], order: list[int]
) -> None:
    max_len, bucket = sizes
    for items in (np.arange(4), np.stack([np.arange(4), np.array(order)], 1)):
        split = Split.from_documents(documents, [0, 1, 0, 1], items)
        lengths = example_lengths(split, max_len)
        ids, labels = gather(put_split(split, max_len, ONE), np.array(order, np.int32), bucket)
        assert np.asarray(labels).tolist() == [order[i] % 2 for i in range(4)]
        for row, example in zip(np.asarray(ids).reshape(4, -1, bucket), order, strict=True):
            wanted = [documents[d][:max_len] for d in np.atleast_1d(split.items[example])]
            assert [bytes((x[x > 0] - 1).tolist()) for x in row] == wanted
            assert all(not x[len(w) :].any() and x[: len(w)].all() for x, w in zip(row, wanted, strict=True))
            assert lengths[example] == max(map(len, wanted))


@settings(max_examples=40)
@given(st.binary(min_size=12, max_size=12), st.sampled_from([2, 3, 5]))
def test_rows_of_one_length_are_the_same(content: bytes, max_len: int) -> None:
    """Where all documents are equally long they lie as rows, and black pixels are no padding."""
    documents = [content[i : i + 3] for i in range(0, 12, 3)]
    split = Split.from_documents(documents, [0, 1, 0, 1])
    ids, _ = gather(put_split(split, max_len, ONE), np.arange(4, dtype=np.int32), max_len)
    for row, document in zip(np.asarray(ids), documents, strict=True):
        assert row.tolist() == [*(byte + 1 for byte in document[:max_len]), *[0] * (max_len - 3)]


@given(st.binary(max_size=2_000), st.sampled_from([_COLUMNS, (_COLUMNS - _GAP) // 2]))
def test_an_excerpt_of_any_bytes_fits(document: bytes, columns: int) -> None:
    lines = _lines(CARD, document, columns)
    assert 1 <= len(lines) <= _LINES
    assert all(len(line) <= columns and line.isprintable() for line in lines)
