"""The trainer: one loop for every task, mixer and protocol."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from lra.batches import batch_indices, cut
from lra.checkpoint import Checkpoints
from lra.config import RunConfig
from lra.evaluate import Evaluation, Resident, evaluate
from lra.interrupt import RunError, only_process, stop_on_signal
from lra.journal import Journal, NotFinite
from lra.program import Program, Totals, TrainState
from lra.progress import Reporter
from tasks.core import Card, Prepared

CHECKPOINT_SECONDS = 300.0
EVALUATION_TOKENS = 16_384  # of a micro-batch of an evaluation on a CPU


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How training ended. `test` is None, and `message` says why, unless it is complete or truncated."""

    status: Literal["complete", "truncated", "interrupted", "diverged"]
    steps_done: int
    journal: Journal
    parameters: int
    steps_per_second: float | None = None
    selected_step: int | None = None
    test: Evaluation | None = None
    message: str = ""


def train(
    config: RunConfig, card: Card, data: Prepared, directory: Path, *, max_minutes: float | None = None
) -> Outcome:
    """Trains until the protocol's last step, the time limit or a signal; selects and tests as the card says.

    Goes on from the latest checkpoint in `directory`. What is computed does not depend on where it was interrupted.

    Raises:
      RunError: another process has this run, or its checkpoints are damaged.
    """
    started = time.monotonic()
    deadline = math.inf if max_minutes is None else started + 60 * max_minutes
    plan = config.train
    with only_process(directory), stop_on_signal() as stop, Checkpoints(directory / "checkpoints") as checkpoints:
        # ── data and program ────────────────────────────────────────────────────────────────────────────
        program = Program(config, card)
        examples = Resident.of(data.splits["train"], program)
        test_split = Resident.of(data.splits["test"], program, limit=config.limit)
        validation_split = None
        if card.selection == "validation":
            validation_split = Resident.of(data.splits["validation"], program, limit=config.limit)
        evaluation_micro = evaluation_size(program)

        # ── where to go on ──────────────────────────────────────────────────────────────────────────────
        state, journal = program.init(), Journal(plan.steps)
        saved = checkpoints.load("latest", state)
        if saved is not None:
            state, journal = saved[0], Journal.from_json(saved[1])
        earlier, first_step, last_save = journal.seconds, state.step, started

        def save(kind: Literal["latest", "best"]) -> None:
            nonlocal last_save
            journal.settle()  # nothing that is not finite is ever saved
            journal.seconds = earlier + time.monotonic() - started
            checkpoints.save(kind, state, journal.to_json())
            last_save = time.monotonic()

        # ── steps ───────────────────────────────────────────────────────────────────────────────────────
        title = f"{config.task} {config.mixer_label} seed {config.seed}"
        step_s = reserve_s = 0.0  # of a step; of the test, by what has been measured so far
        stopped: Literal["truncated", "interrupted"] | None = None
        with Reporter(title, plan.steps, done=state.step) as reporter:
            try:
                while state.step < plan.steps and stopped is None:
                    begun = time.monotonic()
                    totals = gradient(program, state, examples)
                    params, opt, metrics = program.update(state.params, state.opt, totals)
                    journal.add(state.step, metrics)
                    state = TrainState(state.step + 1, params, state.rest, opt)
                    journal.settle(leave=1)  # the newest step stays under way
                    took = time.monotonic() - begun
                    if state.step > first_step + 5:  # the first ones compile
                        step_s = 0.95 * step_s + 0.05 * took if step_s else took
                        if not journal.validation:  # a forward pass takes about a third of a step
                            reserve_s = 0.4 * step_s * test_split.tokens / examples.tokens_of(plan.batch_size)
                    reporter.update(
                        state.step, *journal.curve[-1:], per_second=plan.batch_size / step_s if step_s else 0
                    )

                    if validation_split and (state.step % plan.eval_every == 0 or state.step == plan.steps):
                        begun = time.monotonic()
                        result = evaluate(program, state, validation_split, evaluation_micro)
                        took = time.monotonic() - begun
                        reserve_s = 1.2 * took * test_split.tokens / validation_split.tokens
                        reporter.say(f"{title}: step {state.step}, validation accuracy {result.accuracy:.2%}")
                        journal.validation.append([state.step, result.loss, result.accuracy])
                        if journal.best_step == state.step:
                            save("best")
                        save("latest")
                    elif time.monotonic() - last_save > CHECKPOINT_SECONDS:
                        save("latest")

                    if stop.is_set():
                        stopped = "interrupted"
                    elif time.monotonic() + reserve_s + 10 * step_s + 5 > deadline:
                        stopped = "truncated"
                save("latest")
            except NotFinite as error:
                at = batch_indices(config.seed, error.step, plan.batch_size, examples.count)
                message = (
                    f"{error}; the last checkpoint is kept. Try a lower train.learning-rate. "
                    f"The batch: training examples {', '.join(map(str, at))}"
                )
                return Outcome("diverged", error.step, journal, program.parameters, message=message)

            done = Outcome(
                status=stopped if stopped and state.step < plan.steps else "complete",
                steps_done=state.step,
                journal=journal,
                parameters=program.parameters,
                steps_per_second=1 / step_s if step_s else None,
            )
            if done.status == "interrupted":
                return dataclasses.replace(done, message=f"stopped by a signal at step {state.step} of {plan.steps}")

            # ── test, once, what the card selects ───────────────────────────────────────────────────────
            chosen = state
            if journal.best_step is not None:
                best = checkpoints.load("best", state)
                if best is None or best[0].step != journal.best_step:
                    raise RunError(f"{directory}: the best checkpoint is missing; delete the directory to start anew")
                chosen = best[0]
            test = evaluate(program, chosen, test_split, evaluation_micro)
            reporter.say(f"{title}: step {chosen.step}, test accuracy {test.accuracy:.2%} ({done.status})")
            return dataclasses.replace(done, selected_step=chosen.step, test=test)


def gradient(program: Program, state: TrainState, examples: Resident) -> Totals:
    """Gradient and metrics of the batch of a step: the sum over its length-adaptive micro-batches."""
    indices = batch_indices(program.config.seed, state.step, program.config.train.batch_size, examples.count)
    totals = program.no_totals(state.params)
    for part in cut(indices, examples.lengths[indices], program.micro_batch, examples.buckets):
        totals = program.add_gradient(
            totals,
            state.params,
            state.rest,
            examples.arrays,
            np.uint32(state.step),
            part.indices,
            part.places,
            part.weights,
            bucket=part.bucket,
        )
    return totals


def evaluation_size(program: Program) -> int:
    """Examples a micro-batch of an evaluation: on an accelerator the training batch, on a CPU what is quick there."""
    if jax.default_backend() != "cpu":
        return program.config.train.batch_size
    return program.mesh.size * max(1, EVALUATION_TOKENS // program.config.max_len)
