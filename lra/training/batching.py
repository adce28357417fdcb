"""Which examples a step sees, and how a batch is split into micro-batches. Numpy only.

The batch of step n is a pure function of (seed, n), so resuming needs no iterator state and is bit-exact.

Length-adaptive micro-batches: a batch is sorted by length and split into micro-batches, each padded only to its
bucket. With padding-invariant mixers, and dropout keyed by the position in the batch, the sum of their gradients is
the gradient of the batch padded to the full length, for less arithmetic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

MAX_BUCKETS = 6  # each is compiled separately


@dataclasses.dataclass(frozen=True)
class MicroBatch:
    """Examples that are computed together.

    Attributes:
      indices: int32 [m], rows of the split
      batch_positions: int32 [m], positions in the batch, from which dropout keys are derived
      weights: float32 [m], 1, or 0 for an example that only fills the shape
      bucket: length to which the examples are padded
    """

    indices: np.ndarray
    batch_positions: np.ndarray
    weights: np.ndarray
    bucket: int


class MicroBatchStack(NamedTuple):
    """Micro-batches of one bucket, stacked for one dispatch: the arrays of `MicroBatch` with shape [n, m].

    The first `count` (int32 scalar) of the n are real, the others zero; None: all are real.
    """

    count: Any
    indices: Any
    batch_positions: Any
    weights: Any


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """Return the permutation of the n training examples in one epoch, from a random stream that numpy has frozen."""
    state = np.random.SeedSequence([seed, epoch]).generate_state(8)
    return np.random.RandomState(state).permutation(n).astype(np.int32)


def batch_indices(seed: int, step: int, batch_size: int, n: int) -> np.ndarray:
    """Return the rows of a step's batch, int32 [batch_size]; a batch may span two epochs, and no example is dropped."""
    first, last = step * batch_size, (step + 1) * batch_size
    parts = []
    while first < last:
        epoch, start = divmod(first, n)
        part = epoch_order(seed, epoch, n)[start : start + last - first]
        parts.append(part)
        first += len(part)
    return np.concatenate(parts)


def choose_buckets(lengths: np.ndarray, max_len: int) -> tuple[int, ...]:
    """Choose the lengths to pad to: as few as come within 5 % of the least padding that MAX_BUCKETS can reach.

    Args:
      lengths: [N], already cut to max_len
    """
    choices = [best_edges(lengths, max_len, count) for count in range(1, MAX_BUCKETS + 1)]
    padded = [np.take(edges, np.searchsorted(edges, lengths)).sum() for edges in choices]
    return next(edges for edges, tokens in zip(choices, padded, strict=True) if tokens <= 1.05 * padded[-1])


def best_edges(lengths: np.ndarray, max_len: int, most: int) -> tuple[int, ...]:
    """Return at most `most` bucket lengths with the least total padding, by dynamic programming over 64 candidates."""
    candidates = np.unique(np.ceil(np.arange(1, 65) * max_len / 64).astype(int))
    shortest, longest = np.searchsorted(candidates, [lengths.min(), lengths.max()])
    candidates = candidates[shortest : longest + 1]
    counts = np.searchsorted(np.sort(lengths), candidates, side="right")
    n = len(candidates)
    # cost[j] = least total padded length of all examples up to candidate j, with candidate j an edge
    cost = counts * candidates
    choice = np.full((most, n), -1)
    for k in range(1, most):
        longer = cost[None, :] + (counts[:, None] - counts[None, :]) * candidates[:, None]
        longer = np.where(np.tril(np.ones((n, n), bool), -1), longer, np.iinfo(np.int64).max)
        best = longer.argmin(1)
        better = longer[np.arange(n), best] < cost
        choice[k] = np.where(better, best, -1)
        cost = np.where(better, longer[np.arange(n), best], cost)
    edges, j = [], n - 1
    for k in range(most - 1, 0, -1):
        if choice[k, j] >= 0:
            edges.append(int(candidates[j]))
            j = choice[k, j]
    return tuple(sorted([*edges, int(candidates[j])]))


def split_into_micro_batches(
    indices: np.ndarray, lengths: np.ndarray, micro_batch: int, buckets: tuple[int, ...]
) -> list[MicroBatch]:
    """Split a batch into micro-batches, longest examples first; the last is filled up to `micro_batch` examples.

    Args:
      indices: int32 [B], rows of the split
      lengths: [B], of these examples
    """
    order = np.argsort(-lengths, kind="stable")
    micro_batches = []
    for start in range(0, len(order), micro_batch):
        chosen = order[start : start + micro_batch]
        fill = micro_batch - len(chosen)
        micro_batches.append(
            MicroBatch(
                indices=np.pad(indices[chosen], (0, fill), mode="edge").astype(np.int32),
                batch_positions=np.pad(chosen, (0, fill), mode="edge").astype(np.int32),
                weights=np.pad(np.ones(len(chosen), np.float32), (0, fill)),
                bucket=buckets[np.searchsorted(buckets, lengths[chosen[0]])],
            )
        )
    return micro_batches


def stack_micro_batches(micro_batches: Sequence[MicroBatch], size: int) -> MicroBatchStack:
    """Stack micro-batches into arrays [size, m], zero beyond the last."""
    missing = size - len(micro_batches)
    arrays = (
        np.pad(np.stack([getattr(micro_batch, name) for micro_batch in micro_batches]), [(0, missing), (0, 0)])
        for name in ("indices", "batch_positions", "weights")
    )
    return MicroBatchStack(np.int32(len(micro_batches)), *arrays)


def micro_batch_size(batch_size: int, max_len: int, *, accelerator: bool, equal_lengths: bool) -> int:
    """Return the examples of a micro-batch of one device.

    On a CPU it has 1,024 tokens, to fit the cache. On an accelerator it is the whole batch if all examples have the
    same length, so that nothing is padded, else a quarter of it.
    """
    target = (batch_size if equal_lengths else batch_size // 4) if accelerator else 1_024 // max_len
    return max(m for m in range(1, batch_size + 1) if batch_size % m == 0 and m <= max(1, target))
