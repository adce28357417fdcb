"""Which examples a step sees, and how a batch is cut. Numpy only.

The batch of step n is a pure function of (seed, n): resuming needs no iterator state and is bit-equal.

Length-adaptive micro-batches: a batch is sorted by length and cut into micro-batches, each padded only to
its bucket. With padding-invariant mixers and dropout keyed by the place in the batch, the sum of their gradients
is the gradient of the batch padded to the full length, at a fraction of the arithmetic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

MAX_BUCKETS = 6  # each is one compiled program


@dataclasses.dataclass(frozen=True)
class MicroBatch:
    """Examples that are computed together.

    indices: int32 [m]  rows of the split; [S, m] for several seeds
    places:  int32 [m] or [S, m]  their places in the batch, which key their dropout
    weights: float32 [m] 1, or 0 for an example that only fills the shape
    bucket:  length to which they are padded
    """

    indices: np.ndarray
    places: np.ndarray
    weights: np.ndarray
    bucket: int


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The permutation of the n training examples in one epoch, from a stream that numpy has frozen."""
    state = np.random.SeedSequence([seed, epoch]).generate_state(8)
    return np.random.RandomState(state).permutation(n).astype(np.int32)


def batch_indices(seed: int, step: int, batch_size: int, n: int) -> np.ndarray:
    """Rows of the batch of a step, int32 [batch_size]. Epochs follow each other without a gap or a remainder."""
    first, last = step * batch_size, (step + 1) * batch_size
    parts = []
    while first < last:
        epoch, start = divmod(first, n)
        part = epoch_order(seed, epoch, n)[start : start + last - first]
        parts.append(part)
        first += len(part)
    return np.concatenate(parts)


def choose_buckets(lengths: np.ndarray, max_len: int) -> tuple[int, ...]:
    """The lengths to pad to: as few as come within 5 % of the least padding that MAX_BUCKETS of them can give.

    lengths: [N], already cut to max_len.
    """
    choices = [best_edges(lengths, max_len, count) for count in range(1, MAX_BUCKETS + 1)]
    padded = [np.take(edges, np.searchsorted(edges, lengths)).sum() for edges in choices]
    return next(edges for edges, tokens in zip(choices, padded, strict=True) if tokens <= 1.05 * padded[-1])


def best_edges(lengths: np.ndarray, max_len: int, most: int) -> tuple[int, ...]:
    """At most `most` edges that pad all examples least: the exact dynamic programme over 64 candidates."""
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


def cut(indices: np.ndarray, lengths: np.ndarray, micro: int, buckets: tuple[int, ...]) -> list[MicroBatch]:
    """Micro-batches of a batch, longest first. lengths [B] belong to indices [B]; a last short one is filled up."""
    order = np.argsort(-lengths, kind="stable")
    plan = []
    for start in range(0, len(order), micro):
        chosen = order[start : start + micro]
        bucket = buckets[np.searchsorted(buckets, lengths[chosen[0]])]
        fill = micro - len(chosen)
        plan.append(
            MicroBatch(
                indices=np.pad(indices[chosen], (0, fill), mode="edge").astype(np.int32),
                places=np.pad(chosen, (0, fill), mode="edge").astype(np.int32),
                weights=np.pad(np.ones(len(chosen), np.float32), (0, fill)),
                bucket=bucket,
            )
        )
    return plan


def stack(parts: Sequence[MicroBatch], size: int) -> tuple[np.int32, list[np.ndarray]]:
    """How many micro-batches there are, and their indices, places and weights [size, ...], zero beyond the last."""
    arrays = []
    for name in ("indices", "places", "weights"):
        each = np.stack([getattr(part, name) for part in parts])
        arrays.append(np.pad(each, [(0, size - len(parts))] + [(0, 0)] * (each.ndim - 1)))
    return np.int32(len(parts)), arrays


def side_by_side(plans: list[list[MicroBatch]]) -> list[MicroBatch]:
    """Batches of several seeds as one, indices and places [S, m]: each micro-batch as long as the longest of them."""
    return [
        MicroBatch(
            indices=np.stack([part.indices for part in parts]),
            places=np.stack([part.places for part in parts]),
            weights=parts[0].weights,
            bucket=max(part.bucket for part in parts),
        )
        for parts in zip(*plans, strict=True)
    ]


def micro_batch_size(batch_size: int, max_len: int, accelerator: bool) -> int:
    """Examples a micro-batch: on a CPU what stays in its cache (1,024 tokens), on an accelerator a quarter batch."""
    target = batch_size // 4 if accelerator else max(1, 1_024 // max_len)
    return max(m for m in range(1, batch_size + 1) if batch_size % m == 0 and m <= max(1, target))
