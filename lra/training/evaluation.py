"""Evaluation: every example once, in micro-batches of any size."""

from __future__ import annotations

import dataclasses

import numpy as np

from lra.runtime.distributed import all_gather
from lra.training.batching import split_into_micro_batches
from lra.training.device_dataset import DeviceDataset
from lra.training.flops import flops_of_jaxpr
from lra.training.step_functions import StepFunctions, TrainState

CPU_TOKENS = 16_384  # in a micro-batch of an evaluation


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Predictions and labels, uint8 [N], and the mean cross-entropy in nats."""

    predictions: np.ndarray
    labels: np.ndarray
    loss: float

    @property
    def correct(self) -> np.ndarray:
        """Whether each prediction is correct, bool [N]."""
        return self.predictions == self.labels

    @property
    def accuracy(self) -> float:
        """The fraction of correct predictions."""
        return float(self.correct.mean())


def evaluation_micro_batch(functions: StepFunctions) -> int:
    """Return the examples of a micro-batch of an evaluation: the batch size, or on a CPU a number of tokens."""
    if functions.accelerator:
        return functions.config.train.batch_size
    return functions.devices * max(1, CPU_TOKENS // functions.config.max_len)


def evaluate(
    functions: StepFunctions, state: TrainState, dataset: DeviceDataset, micro_batch: int | None = None
) -> Evaluation:
    """Classify each of the first `dataset.count` examples once.

    Args:
      micro_batch: examples computed together; None: `evaluation_micro_batch`
    """
    predictions, losses = np.zeros(dataset.count, np.uint8), np.zeros(dataset.count, np.float64)
    micro_batches = split_into_micro_batches(
        np.arange(dataset.count, dtype=np.int32),
        dataset.lengths[: dataset.count],
        micro_batch or evaluation_micro_batch(functions),
        dataset.buckets,
    )
    outputs = [
        functions.predict(state.params, state.buffers, dataset.arrays, batch.indices, bucket=batch.bucket)
        for batch in micro_batches
    ]
    for batch, (classes, loss) in zip(micro_batches, all_gather(outputs), strict=True):
        real = batch.weights > 0
        predictions[batch.indices[real]] = classes[real]
        losses[batch.indices[real]] = loss[real]
    return Evaluation(predictions, dataset.labels[: dataset.count], float(losses.mean()))


def forward_flops(functions: StepFunctions, state: TrainState, dataset: DeviceDataset) -> float:
    """Return the operations of the forward pass of one example of max_len tokens; for pairs, of both documents.

    They are counted on the function that `evaluate` traces with its default micro-batch.
    """
    micro_batch = evaluation_micro_batch(functions)
    indices, length = np.zeros(micro_batch, np.int32), functions.config.max_len
    traced = functions.predict.trace(state.params, state.buffers, dataset.arrays, indices, bucket=length)
    return flops_of_jaxpr(traced.jaxpr.jaxpr) * functions.devices / micro_batch
