"""Batches of any data: every example once an epoch, none cut, each weighing the same."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lra.training.batching import (
    MAX_BUCKETS,
    batch_indices,
    best_edges,
    choose_buckets,
    micro_batch_size,
    split_into_micro_batches,
)

SEEDS = st.integers(0, 2**32 - 1)
LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=60).map(np.array)


@settings(max_examples=60)
@given(SEEDS, st.integers(1, 40), st.integers(1, 50))
@example(0, 1, 1)
@example(3, 40, 7)
def test_every_example_is_seen_once_an_epoch(seed: int, n: int, batch_size: int) -> None:
    """Read on end, the batches are one permutation after another, wherever a batch begins."""
    steps = -(-3 * n // batch_size)
    rows = np.concatenate([batch_indices(seed, step, batch_size, n) for step in range(steps)])
    assert len(rows) == steps * batch_size
    for epoch in range(3):
        assert sorted(rows[epoch * n : (epoch + 1) * n]) == list(range(n))
    np.testing.assert_array_equal(rows[-batch_size:], batch_indices(seed, steps - 1, batch_size, n))  # in any order


@settings(max_examples=60)
@given(LENGTHS, st.integers(1, 500))
def test_buckets_hold_every_length_at_a_bearable_price(lengths: np.ndarray, max_len: int) -> None:
    lengths = np.minimum(lengths, max_len)
    buckets = choose_buckets(lengths, max_len)
    assert list(buckets) == sorted(set(buckets))
    assert len(buckets) <= MAX_BUCKETS
    assert lengths.max() <= buckets[-1] <= max_len
    padded = [
        sum(min(e for e in edges if e >= n) for n in lengths)
        for edges in (buckets, best_edges(lengths, max_len, MAX_BUCKETS))
    ]
    assert padded[0] <= 1.05 * padded[1]


@settings(max_examples=60)
@given(LENGTHS, st.integers(1, 20))
def test_a_cut_loses_nothing_and_weighs_all_alike(lengths: np.ndarray, micro: int) -> None:
    """Sums over micro-batches, as the trainer makes them, are those over the batch; nothing longer than its bucket."""
    size, buckets = len(lengths), choose_buckets(lengths, 500)
    rows = np.random.RandomState(int(lengths.sum())).permutation(10 * size)[:size].astype(np.int32)
    of_row = np.zeros(10 * size, np.int64)
    of_row[rows] = lengths
    losses = np.arange(10 * size) ** 2 % 97
    plan = split_into_micro_batches(rows, lengths, micro, buckets)
    assert len(plan) == -(-size // micro)
    places = np.concatenate([part.batch_positions[part.weights > 0] for part in plan])
    assert sorted(places) == list(range(size))
    assert sum((losses[part.indices] * part.weights).sum() for part in plan) == losses[rows].sum()
    for part in plan:
        assert len(part.indices) == len(part.batch_positions) == len(part.weights) == micro
        assert set(part.weights) <= {0, 1}
        np.testing.assert_array_equal(part.indices, rows[part.batch_positions])
        longest = of_row[part.indices].max()
        assert longest <= part.bucket
        assert part.bucket == min(b for b in buckets if b >= longest)


@given(st.integers(1, 300), st.integers(1, 20_000), st.booleans(), st.booleans())
def test_a_micro_batch_divides_the_batch(batch_size: int, max_len: int, accelerator: bool, equal: bool) -> None:
    micro = micro_batch_size(batch_size, max_len, accelerator=accelerator, equal_lengths=equal)
    assert 1 <= micro <= batch_size
    assert batch_size % micro == 0
