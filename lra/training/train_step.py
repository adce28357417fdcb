"""Training steps: the micro-batches of a step, its gradient, and several steps in one dispatch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from lra.training.batching import (
    MicroBatch,
    MicroBatchStack,
    batch_indices,
    split_into_micro_batches,
    stack_micro_batches,
)
from lra.training.device_dataset import DeviceDataset
from lra.training.step_functions import GradientAccumulator, StepFunctions, StepInputs, TrainState

DISPATCH_STEPS = 16  # at most, on an accelerator: enough to hide the cost of a dispatch, few enough to stop soon


def train_steps(
    functions: StepFunctions, state: TrainState, dataset: DeviceDataset, steps: int
) -> tuple[TrainState, jax.Array]:
    """Make `steps` updates.

    Returns:
      The new state, and loss, accuracy and gradient norm of each step, float32 [steps, 3].
    """
    if steps == 1:
        accumulator = gradient(functions, state, dataset)
        params, opt_state, metrics = functions.update(state.params, state.opt_state, accumulator)
        metrics = metrics[None]
    else:
        stacks = [
            stack_micro_batches(micro_batches(functions, state.step + n, dataset), functions.micro_batches_per_step)
            for n in range(steps)
        ]
        arrays = (np.stack(array) for array in zip(*(stack[1:] for stack in stacks), strict=True))
        inputs = step_inputs(functions, state, dataset)._replace(params=None)
        params, opt_state, metrics = functions.several_steps(
            state.params, state.opt_state, inputs, MicroBatchStack(None, *arrays), bucket=dataset.buckets[-1]
        )
    return TrainState(state.step + steps, params, state.buffers, opt_state), metrics


def gradient(functions: StepFunctions, state: TrainState, dataset: DeviceDataset) -> GradientAccumulator:
    """Return the gradient and the metrics of a step's batch, summed over its micro-batches."""
    accumulator = functions.zero_gradients(state.params)
    inputs = step_inputs(functions, state, dataset)
    for bucket, stack in micro_batch_stacks(functions, state.step, dataset):
        accumulator = functions.add_gradients(accumulator, inputs, stack, bucket=bucket)
    if functions.mesh.size > 1 and not functions.accelerator:
        # The update is a collective, and XLA aborts a process whose devices wait 40 s for each other. On a busy
        # machine one core can get that far ahead, unless it waits here.
        jax.block_until_ready(accumulator)
    return accumulator


def step_inputs(functions: StepFunctions, state: TrainState, dataset: DeviceDataset) -> StepInputs:
    """Return what the gradient of the next step depends on, apart from its micro-batches."""
    return StepInputs(state.params, state.buffers, dataset.arrays, functions.dropout_key, np.uint32(state.step))


def micro_batches(functions: StepFunctions, step: int, dataset: DeviceDataset) -> list[MicroBatch]:
    """Return the batch of a step as micro-batches, longest examples first."""
    config = functions.config
    indices = batch_indices(config.seed, step, config.train.batch_size, dataset.count)
    return split_into_micro_batches(indices, dataset.lengths[indices], functions.micro_batch, dataset.buckets)


def micro_batch_stacks(
    functions: StepFunctions, step: int, dataset: DeviceDataset
) -> Iterator[tuple[int, MicroBatchStack]]:
    """Yield the micro-batches of a step as they are dispatched, each stack with its bucket.

    On a CPU all micro-batches of a bucket are one dispatch, whose number of iterations is an argument. On an
    accelerator, the host would wait for the device in each of these iterations, so each micro-batch is a dispatch.
    """
    batch = micro_batches(functions, step, dataset)
    if functions.accelerator:
        for micro_batch in batch:
            yield micro_batch.bucket, stack_micro_batches([micro_batch], 1)._replace(count=None)
        return
    for bucket, group in itertools.groupby(batch, lambda micro_batch: micro_batch.bucket):
        yield bucket, stack_micro_batches(list(group), functions.micro_batches_per_step)


def compile_ahead(functions: StepFunctions, state: TrainState, dataset: DeviceDataset) -> None:
    """Compile the functions of a step on a CPU: each in a thread, while the next is traced in this one.

    Tracing is Python's, so threads that trace at the same time only wait for each other. On an accelerator, functions
    are compiled when they are first called.
    """
    if functions.accelerator or dispatch_steps(functions, dataset) > 1 or jax.process_count() > 1:
        return
    accumulator = functions.zero_gradients(state.params)
    inputs = step_inputs(functions, state, dataset)._replace(step=np.uint32(0))
    stack = stack_micro_batches(micro_batches(functions, state.step, dataset), functions.micro_batches_per_step)
    with ThreadPoolExecutor() as pool:
        compilations = [
            pool.submit(functions.add_gradients.lower(accumulator, inputs, stack, bucket=bucket).compile)
            for bucket in dataset.buckets[::-1]
        ]
        update = functions.update.lower(state.params, state.opt_state, accumulator)
        compilations.append(pool.submit(update.compile))
    for compilation in compilations:
        compilation.result()


def dispatch_steps(functions: StepFunctions, dataset: DeviceDataset) -> int:
    """Return the steps in one dispatch, which divide `eval_every`; more than 1 on accelerators for equal lengths."""
    train = functions.config.train
    if train.dispatch_steps is not None:
        return train.dispatch_steps
    if not functions.accelerator or len(dataset.buckets) > 1:
        return 1
    return max(n for n in range(1, DISPATCH_STEPS + 1) if train.eval_every % n == 0)
