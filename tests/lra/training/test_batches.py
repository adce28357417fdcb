"""Batches: pure functions of (seed, step), and cuts that lose nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lra.training.batching import (
    MAX_BUCKETS,
    batch_indices,
    best_edges,
    choose_buckets,
    micro_batch_size,
    split_into_micro_batches,
    stack_micro_batches,
)


def test_epochs_follow_each_other_without_a_gap():
    rows = np.concatenate([batch_indices(3, step, 7, 20) for step in range(20)])
    for epoch in range(7):
        assert sorted(rows[20 * epoch : 20 * (epoch + 1)]) == list(range(20))
    assert (rows[:20] != rows[20:40]).any()


def test_a_batch_larger_than_the_data():
    counts = np.bincount(batch_indices(0, 0, 50, 20))
    assert sorted(counts) == [2] * 10 + [3] * 10


def test_batches_depend_on_seed_and_step_alone():
    first = batch_indices(1, 1000, 32, 96_000)
    batch_indices(2, 5, 32, 10)
    np.testing.assert_array_equal(first, batch_indices(1, 1000, 32, 96_000))
    assert (first != batch_indices(2, 1000, 32, 96_000)).any()


def test_the_stream_of_batches_is_frozen():
    """A change here changes every published run."""
    np.testing.assert_array_equal(batch_indices(0, 0, 5, 1_000), [388, 242, 3, 690, 229])


def padded(lengths: np.ndarray, edges: tuple[int, ...]) -> int:
    return int(sum(edges[np.searchsorted(edges, length)] for length in lengths))


def test_buckets_are_the_best_there_are():
    lengths = np.random.RandomState(0).randint(1, 65, 300)
    top = int(lengths.max())
    best = min(padded(lengths, (*edges, top)) for edges in itertools.combinations(range(1, top), 2))
    assert padded(lengths, best_edges(lengths, 64, 3)) == best


def test_a_bucket_that_saves_little_is_not_worth_its_program():
    assert choose_buckets(np.full(10, 200), 256) == (200,)
    nearly = np.random.RandomState(0).randint(240, 257, 1000)
    assert choose_buckets(nearly, 256) == (int(nearly.max()),)
    wide = np.random.RandomState(0).randint(500, 2000, 1000)
    assert 1 < len(choose_buckets(wide, 2000)) <= MAX_BUCKETS
    assert padded(wide, choose_buckets(wide, 2000)) < 1.15 * wide.sum()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 4000), min_size=1, max_size=60))
def test_every_length_has_a_bucket(lengths):
    edges = choose_buckets(np.array(lengths), 4000)
    assert len(edges) <= MAX_BUCKETS
    assert list(edges) == sorted(set(edges))
    assert max(lengths) <= edges[-1] <= 4000


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=40), st.integers(1, 9))
def test_a_cut_holds_every_example_once(lengths, micro):
    lengths = np.array(lengths)
    indices = np.arange(len(lengths), dtype=np.int32) + 1000
    parts = split_into_micro_batches(indices, lengths, micro, choose_buckets(lengths, 100))
    places = np.concatenate([p.batch_positions[p.weights > 0] for p in parts])
    assert sorted(places) == list(range(len(lengths)))
    for part in parts:
        assert len(part.indices) == len(part.batch_positions) == len(part.weights) == micro
        np.testing.assert_array_equal(part.indices, indices[part.batch_positions])
        assert lengths[part.batch_positions].max() <= part.bucket


@pytest.mark.parametrize(("batch", "length", "size"), [(32, 2000, 1), (32, 256, 4), (16, 4000, 1), (256, 512, 2)])
def test_micro_batches_divide_the_batch(batch, length, size):
    assert micro_batch_size(batch, length, accelerator=False, equal_lengths=False) == size
    assert micro_batch_size(batch, length, accelerator=True, equal_lengths=False) == batch // 4
    assert micro_batch_size(batch, length, accelerator=True, equal_lengths=True) == batch


def test_stacked_micro_batches_are_followed_by_nothing():
    parts = split_into_micro_batches(np.arange(10, 15, dtype=np.int32), np.array([3, 9, 5, 4, 8]), 2, (4, 9))
    count, indices, positions, weights = stack_micro_batches(parts, 4)
    assert (count, count.dtype) == (3, np.int32)
    np.testing.assert_array_equal(indices, [[11, 14], [12, 13], [10, 10], [0, 0]])
    np.testing.assert_array_equal(positions, [[1, 4], [2, 3], [0, 0], [0, 0]])
    np.testing.assert_array_equal(weights, [[1, 1], [1, 1], [1, 0], [0, 0]])
