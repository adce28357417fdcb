"""Evaluation: every example once, whatever the batch size."""

from __future__ import annotations

import dataclasses

import numpy as np

from lra.runtime.distributed import whole
from lra.training.batching import choose_buckets, cut
from lra.training.device_dataset import DeviceSplit, example_lengths, put
from lra.training.flops import flops_of_jaxpr
from lra.training.step_functions import Program, TrainState
from tasks.core import Split


@dataclasses.dataclass(frozen=True)
class Resident:
    """A split, on the devices and ready to be cut into micro-batches. `count` of its examples are used."""

    arrays: DeviceSplit
    lengths: np.ndarray  # [N]
    buckets: tuple[int, ...]
    labels: np.ndarray  # [N]
    count: int

    @classmethod
    def of(cls, split: Split, program: Program, *, limit: int | None = None) -> Resident:
        max_len = program.config.max_len
        lengths = example_lengths(split, max_len)
        buckets = choose_buckets(lengths, max_len)
        count = len(split) if limit is None else min(limit, len(split))
        return cls(put(split, max_len, program.everywhere), lengths, buckets, split.labels, count)

    @property
    def tokens(self) -> int:
        return int(self.lengths[: self.count].sum())

    def tokens_of(self, examples: int) -> float:
        """Tokens of so many examples, on average."""
        return examples * float(self.lengths.mean())


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """predictions: uint8 [N]; labels: uint8 [N]; loss: mean cross-entropy in nats."""

    predictions: np.ndarray
    labels: np.ndarray
    loss: float

    @property
    def correct(self) -> np.ndarray:
        return self.predictions == self.labels

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())


def evaluate(program: Program, state: TrainState, split: Resident, micro: int) -> list[Evaluation]:
    """Classifies each of the first `split.count` examples once; micro-batches of `micro`, the last one filled up.

    Returns:
      the evaluation of each of the program's seeds
    """
    shape = (len(program.seeds), split.count)
    predictions, losses = np.zeros(shape, np.uint8), np.zeros(shape, np.float64)
    rows = np.arange(split.count, dtype=np.int32)
    plan = cut(rows, split.lengths[: split.count], micro, split.buckets)
    results = [program.predict(state.params, state.rest, split.arrays, m.indices, bucket=m.bucket) for m in plan]
    for m, (classes, loss) in zip(plan, whole(results), strict=True):
        real = m.weights > 0
        predictions[:, m.indices[real]] = classes[..., real]
        losses[:, m.indices[real]] = loss[..., real]
    labels = split.labels[: split.count]
    return [Evaluation(p, labels, float(loss.mean())) for p, loss in zip(predictions, losses, strict=True)]


def forward_flops(program: Program, state: TrainState, split: Resident, micro: int) -> float:
    """Return the operations of the forward pass of one example of max_len tokens; of a pair, those of both parts.

    Counted on the program that `evaluate` runs, so that nothing is traced for it that was not traced before.
    """
    rows, length = np.zeros(micro, np.int32), program.config.max_len
    traced = program.predict.trace(state.params, state.rest, split.arrays, rows, bucket=length)
    of_one_device = flops_of_jaxpr(traced.jaxpr.jaxpr)
    return of_one_device * program.devices / (micro * len(program.seeds))
