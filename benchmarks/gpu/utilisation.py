"""Part 4: steps per second of the trainer, and of its compiled functions alone; the difference is the host's share.

`small` Pathfinder and ListOps with cosFormer, on a few generated examples, for two numbers of steps per dispatch and
two sizes of micro-batches.
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
from lra.training.train_step import micro_batches, step_inputs
from lra.training.trainer import train
from tasks import listops, load_task, pathfinder
from tasks.core import SPLITS, Prepared, Split

TASKS = ("pathfinder", "listops")
DISPATCH_STEPS = (1, 16)
STEPS = 160  # of the trainer, at most; a multiple of both
ALONE = 32  # steps of the compiled functions alone; a multiple of both
MIXER = "cosformer"


def cases(settings: Settings) -> dict[str, Case]:
    """Return a case for each task, number of steps per dispatch, and micro-batch (in parts of a batch)."""
    use_compilation_cache()
    use_every_core()
    combinations = list(itertools.product(TASKS, (4, 1), DISPATCH_STEPS))
    found: dict[str, Case] = {}
    for task, parts, dispatch in combinations:
        name = f"{task} micro-batch 1/{parts} dispatch {dispatch}"
        minutes = settings.seconds / 60 / len(combinations)
        found[name] = partial(_measure, task, parts, dispatch, minutes, settings.tiny)
    return found


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


def _measure(task: str, parts: int, dispatch: int, minutes: float, tiny: bool) -> dict[str, Any]:
    sizes: dict[str, Any] = {**TINY, "max_len": 1_024 if task == "pathfinder" else 32} if tiny else {}
    base = configure(task, MIXER, protocol="small", options={}, overrides=sizes)
    batch, steps = (4, 32) if tiny else (base.train.batch_size, STEPS)
    schedule = {"train.batch_size": batch, "train.steps": steps, "train.eval_every": steps, "train.warmup": 1}
    execution = {"train.micro_batch": batch // parts, "train.dispatch_steps": dispatch}
    config = configure(task, MIXER, protocol="small", options={}, overrides={**sizes, **schedule, **execution})
    functions = StepFunctions(config, load_task(task).CARD)
    data = generated(task, (4 * batch, batch, batch))
    with tempfile.TemporaryDirectory() as directory:
        outcome = train(functions, data, Path(directory), max_minutes=minutes)
    dataset = functions.dataset(data.splits["train"])
    step_seconds = compiled_step_seconds(functions, dataset, dispatch, dispatch if tiny else ALONE)
    fields = {
        "task": task,
        "micro_batch": batch // parts,
        "batch": batch,
        "dispatch_steps": dispatch,
        "steps_done": outcome.steps_done,
        "trainer_steps_per_second": outcome.steps_per_second,
        "compiled_steps_per_second": 1 / step_seconds,
        "peak_bytes": outcome.peak_bytes,
    }
    if outcome.steps_per_second is None:
        reason = f"the time ended after {outcome.steps_done} steps, before a step without compilation was timed"
        return fields | {"status": "failed", "error": reason}
    return fields | {"host_gap_seconds": 1 / outcome.steps_per_second - step_seconds}


def compiled_step_seconds(functions: StepFunctions, dataset: DeviceDataset, dispatch: int, steps: int) -> float:
    """Return the seconds of a step without the host's work: its inputs are prepared and on the device before.

    Args:
      steps: to time, a multiple of `dispatch`; they run once before, so that everything is compiled
    """
    size, bucketed = functions.micro_batches_per_step, []
    for step in range(steps):
        batch = micro_batches(functions, step, dataset)
        groups = itertools.groupby(batch, lambda m: dataset.buckets[-1] if dispatch > 1 else m.bucket)
        bucketed.append([(bucket, stack_micro_batches(list(group), size)) for bucket, group in groups])
    bucketed = jax.device_put(bucketed, functions.replicated)
    dispatches = []  # of the arrays of several steps, one after the other
    for first in range(0, steps if dispatch > 1 else 0, dispatch):
        stacks = [groups[0][1] for groups in bucketed[first : first + dispatch]]
        arrays = (np.stack(jax.device_get(a)) for a in zip(*(s[1:] for s in stacks), strict=True))
        dispatches.append(jax.device_put(MicroBatchStack(None, *arrays), functions.replicated))

    def run(state: TrainState) -> TrainState:
        params, opt_state = state.params, state.opt_state
        inputs = step_inputs(functions, state, dataset)
        for stacks in dispatches:
            params, opt_state, _ = functions.several_steps(
                params, opt_state, inputs._replace(params=None), stacks, bucket=dataset.buckets[-1]
            )
        for groups in bucketed if dispatch == 1 else ():
            accumulator = functions.zero_gradients(params)
            for bucket, stack in groups:
                accumulator = functions.add_gradients(accumulator, inputs._replace(params=params), stack, bucket=bucket)
            if jax.default_backend() == "cpu":
                jax.block_until_ready(accumulator)  # as `lra.training.train_step.gradient`
            params, opt_state, _ = functions.update(params, opt_state, accumulator)
        return jax.block_until_ready(TrainState(0, params, state.buffers, opt_state))

    state = run(functions.init())
    begin = time.perf_counter()
    run(state)
    return (time.perf_counter() - begin) / steps
