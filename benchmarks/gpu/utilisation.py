"""Part 4: steps per second of the trainer, and of its compiled functions alone; the difference is the host's share.

`small` Pathfinder and ListOps with cosFormer, on a few generated examples, with 1 and 16 steps per dispatch, and with
micro-batches of a quarter of the batch and of the whole batch.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.gpu.lines import Settings
from benchmarks.gpu.smoke import TINY
from benchmarks.gpu.worker import Case
from lra.api import configure
from lra.runtime.devices import use_compilation_cache, use_every_core
from lra.training.batching import MicroBatchStack, stack_micro_batches
from lra.training.device_dataset import DeviceDataset
from lra.training.step_functions import StepFunctions, TrainState
from lra.training.train_step import micro_batch_stacks, micro_batches, step_inputs
from lra.training.trainer import train
from tasks import listops, load_task, pathfinder
from tasks.core import SPLITS, Prepared, Split

TASKS = ("pathfinder", "listops")
DISPATCH_STEPS = (1, 16)
STEPS = 96  # of the trainer; a multiple of both. Those that compile are not timed
ROUNDS = 3  # of the compiled functions alone; the fastest counts
ALONE = 32  # of the compiled functions alone; a multiple of both
MIXER = "cosformer"


def cases(settings: Settings) -> dict[str, Case]:
    """Return a case for each task, number of steps per dispatch, and micro-batch (in parts of a batch)."""
    use_compilation_cache()
    use_every_core()
    tasks, micro_batches_per_step = (TASKS[1:], (4,)) if settings.tiny else (TASKS, (4, 1))
    return {
        f"{task} micro-batch 1/{count} dispatch {dispatch}": partial(_measure, task, count, dispatch, settings.tiny)
        for task, count, dispatch in itertools.product(tasks, micro_batches_per_step, DISPATCH_STEPS)
    }


def generated(task: str, counts: tuple[int, int, int]) -> Prepared:
    """Return so many generated examples of each split, of the full variant."""
    parts = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
    if task == "listops":
        expressions, labels = listops.generate(sum(counts), seed=1)
        documents = list(map(listops.encode, expressions))
        found = [Split.from_documents([documents[i] for i in part], labels[part]) for part in parts]
    else:
        images, labels = pathfinder.generate(sum(counts), seed=1)
        found = [Split.from_images(images[part], labels[part]) for part in parts]
    card = load_task(task).CARD
    return Prepared(task, "full", card.version, "generated", "0" * 64, dict(zip(SPLITS, found, strict=True)))


def _measure(task: str, count: int, dispatch: int, tiny: bool) -> dict[str, Any]:
    sizes: dict[str, Any] = {**TINY, "train.batch_size": 4} if tiny else {}
    batch = configure(task, MIXER, protocol="small", options={}, overrides=sizes).train.batch_size
    schedule = {"train.steps": STEPS, "train.eval_every": STEPS, "train.warmup": 1}
    execution = {"train.micro_batch": batch // count, "train.dispatch_steps": dispatch}
    config = configure(task, MIXER, protocol="small", options={}, overrides={**sizes, **schedule, **execution})
    functions = StepFunctions(config, load_task(task).CARD)
    data = generated(task, (4 * batch, batch, batch))
    with tempfile.TemporaryDirectory() as directory:
        outcome = train(functions, data, Path(directory))
    dataset = functions.dataset(data.splits["train"])
    step_seconds = compiled_step_seconds(functions, dataset, dispatch, ALONE)
    return {
        "task": task,
        "micro_batch": batch // count,
        "batch": batch,
        "dispatch_steps": dispatch,
        "trainer_steps_per_second": outcome.steps_per_second,
        "compiled_steps_per_second": 1 / step_seconds,
        "host_gap_seconds": 1 / outcome.steps_per_second - step_seconds if outcome.steps_per_second else None,
        "peak_bytes": outcome.peak_bytes,
    }


def compiled_step_seconds(functions: StepFunctions, dataset: DeviceDataset, dispatch: int, steps: int) -> float:
    """Return the seconds of a step without the host's work: its inputs are prepared and on the device before.

    Args:
      steps: to time, a multiple of `dispatch`; they run once before, so that everything is compiled
    """
    put, size = partial(jax.device_put, device=functions.replicated), functions.micro_batches_per_step
    single = [
        [(bucket, put(stack)) for bucket, stack in micro_batch_stacks(functions, step, dataset)]
        for step in range(steps if dispatch == 1 else 0)
    ]
    several = []  # stacks of `dispatch` steps, as of `lra.training.train_step.train_steps`
    for first in range(0, steps if dispatch > 1 else 0, dispatch):
        group = range(first, first + dispatch)
        stacks = [stack_micro_batches(micro_batches(functions, step, dataset), size) for step in group]
        arrays = (np.stack(array) for array in zip(*(stack[1:] for stack in stacks), strict=True))
        several.append(put(MicroBatchStack(None, *arrays)))

    def run(state: TrainState) -> TrainState:
        params, opt_state = state.params, state.opt_state
        inputs = step_inputs(functions, state, dataset)
        for stacks in several:
            params, opt_state, _ = functions.several_steps(
                params, opt_state, inputs._replace(params=None), stacks, bucket=dataset.buckets[-1]
            )
        for step in single:
            accumulator = functions.zero_gradients(params)
            for bucket, stack in step:
                accumulator = functions.add_gradients(accumulator, inputs._replace(params=params), stack, bucket=bucket)
            if not functions.accelerator:
                jax.block_until_ready(accumulator)  # as `lra.training.train_step.gradient`
            params, opt_state, _ = functions.update(params, opt_state, accumulator)
        return jax.block_until_ready(TrainState(0, params, state.buffers, opt_state))

    state, seconds = run(functions.init()), []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        state = run(state)
        seconds.append(time.perf_counter() - begin)
    return min(seconds) / steps
