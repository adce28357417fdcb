"""Steps of training: which micro-batches one has, its gradient, and several of them in one dispatch."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from lra.training.batching import MicroBatch, batch_indices, cut, side_by_side, stack
from lra.training.evaluation import Resident
from lra.training.step_functions import Program, Totals, TrainState

DISPATCH_STEPS = 16  # at most, on an accelerator: enough to hide what a dispatch costs, few enough to stop soon


def micro_batches(program: Program, step: int, examples: Resident) -> list[MicroBatch]:
    """The batch of a step, length-adaptive; of several seeds side by side."""
    plans = []
    for seed in program.seeds:
        indices = batch_indices(seed, step, program.config.train.batch_size, examples.count)
        plans.append(cut(indices, examples.lengths[indices], program.micro_batch, examples.buckets))
    return plans[0] if len(plans) == 1 else side_by_side(plans)


def gradient(program: Program, state: TrainState, examples: Resident) -> Totals:
    """Gradient and metrics of the batch of a step: the sum over its micro-batches."""
    totals = program.no_totals(state.params)
    held = (state.params, state.rest, examples.arrays, program.dropout_key, np.uint32(state.step))
    for bucket, parts in itertools.groupby(micro_batches(program, state.step, examples), lambda part: part.bucket):
        count, arrays = stack(list(parts), program.parts)
        totals = program.add_gradient(totals, *held, count, *arrays, bucket=bucket)
    if program.mesh.size > 1 and jax.default_backend() == "cpu":
        # The update is a collective, and XLA aborts a process whose devices wait 40 s for each other: on a busy
        # machine one core can be that far ahead, if both may be.
        jax.block_until_ready(totals)
    return totals


def compile_ahead(program: Program, state: TrainState, examples: Resident) -> None:
    """Compiles the programs of a step: each on another core, while the next is traced here.

    Tracing is Python's, and threads that trace at the same time only wait for each other. On an accelerator they are
    compiled when they are first run.
    """
    if jax.default_backend() != "cpu" or dispatch_steps(program, examples) > 1 or jax.process_count() > 1:
        return
    totals = program.no_totals(state.params)
    count, batch = stack(micro_batches(program, state.step, examples), program.parts)
    held = (state.params, state.rest, examples.arrays, program.dropout_key, np.uint32(0))
    with ThreadPoolExecutor() as pool:
        under_way = [
            pool.submit(program.add_gradient.lower(totals, *held, count, *batch, bucket=bucket).compile)
            for bucket in examples.buckets[::-1]
        ]
        under_way.append(pool.submit(program.update.lower(state.params, state.opt, totals).compile))  # soon done
    for done in under_way:
        done.result()


def dispatch_steps(program: Program, examples: Resident) -> int:
    """Steps in one dispatch: on an accelerator several, where all examples are equally long; divides `eval_every`."""
    plan = program.config.train
    if plan.dispatch_steps is not None:
        return plan.dispatch_steps
    if jax.default_backend() == "cpu" or len(examples.buckets) > 1:
        return 1
    return max(n for n in range(1, DISPATCH_STEPS + 1) if plan.eval_every % n == 0)


def advance(program: Program, state: TrainState, examples: Resident, steps: int) -> tuple[TrainState, jax.Array]:
    """`steps` updates -> the state after them, and [loss, accuracy, norm of the gradient] of each, [steps, (S,) 3]."""
    if steps == 1:
        params, opt, metrics = program.update(state.params, state.opt, gradient(program, state, examples))
        return TrainState(state.step + 1, params, state.rest, opt), metrics[None]
    plans = [micro_batches(program, state.step + n, examples) for n in range(steps)]
    batches = tuple(np.stack(arrays) for arrays in zip(*(stack(plan, program.parts)[1] for plan in plans), strict=True))
    params, opt, metrics = program.steps(
        state.params,
        state.opt,
        state.rest,
        examples.arrays,
        program.dropout_key,
        np.uint32(state.step),
        batches,
        bucket=examples.buckets[-1],
    )
    return TrainState(state.step + steps, params, state.rest, opt), metrics
