"""The trainer: one loop for every task, mixer and protocol."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from lra.config import RunConfig
from lra.errors import RunError
from lra.provenance import sessions
from lra.provenance.code import computing
from lra.provenance.sessions import Session
from lra.runtime.distributed import agree, is_writer, same_everywhere
from lra.runtime.heartbeat import Heartbeat
from lra.runtime.locks import run_lock
from lra.runtime.progress import Reporter
from lra.runtime.signals import stop_on_signal
from lra.selection import first_selectable
from lra.training.batching import batch_indices
from lra.training.checkpoints import Checkpoints, flatten
from lra.training.evaluation import Evaluation, Resident, evaluate, forward_flops
from lra.training.gradient import advance, compile_ahead, dispatch_steps
from lra.training.history import Journal, Journals
from lra.training.meter import Meter
from lra.training.step_functions import Program, TrainState
from tasks.core import Card, Prepared

CHECKPOINT_SECONDS = 300.0
EVALUATION_TOKENS = 16_384  # of a micro-batch of an evaluation on a CPU


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How training ended. `test` is None, and `message` says why, unless it is complete or truncated.

    steps_per_second, peak_bytes: of training steps, without compilation and evaluations (`lra.training.meter`)
    """

    status: Literal["complete", "truncated", "interrupted", "diverged"]
    steps_done: int
    journal: Journal
    parameters: int
    steps_per_second: float | None = None
    peak_bytes: int | None = None
    forward_flops: float | None = None
    selected_step: int | None = None
    test: Evaluation | None = None
    message: str = ""
    sessions: tuple[Session, ...] = ()


def train(
    config: RunConfig, card: Card, data: Prepared, directory: Path, *, max_minutes: float | None = None
) -> Outcome:
    """Trains until the protocol's last step, the time limit or a signal; selects and tests as the card says.

    Goes on from the latest checkpoint in `directory`. What is computed does not depend on where it was interrupted.

    Raises:
      RunError: another process has this run, its checkpoints are damaged, or other code computed them.
    """
    return train_program(Program(config, card), card, data, directory, [directory], max_minutes=max_minutes)[0]


def train_program(
    program: Program,
    card: Card,
    data: Prepared,
    directory: Path,
    directories: Sequence[Path],
    *,
    max_minutes: float | None = None,
) -> list[Outcome]:
    """`train` for all seeds of a program: the latest state of all in `directory`, the best of each in its own."""
    started = time.monotonic()
    deadline = math.inf if max_minutes is None else started + 60 * max_minutes
    config, plan, seeds = program.config, program.config.train, range(len(program.seeds))
    code = computing(config)
    if not same_everywhere(code.sha256):
        raise RunError("the processes that train this run together have different code")
    with ExitStack() as held:
        heartbeat = Heartbeat(directories, plan.steps)
        if is_writer():
            for place in {directory, *directories}:
                held.enter_context(run_lock(place))
            held.enter_context(heartbeat)
        stop = held.enter_context(stop_on_signal())
        latest = held.enter_context(Checkpoints(directory / "checkpoints"))
        best = [latest if p == directory else held.enter_context(Checkpoints(p / "checkpoints")) for p in directories]

        # ── data ────────────────────────────────────────────────────────────────────────────────────────
        examples = Resident.of(data.splits["train"], program)
        test_split = Resident.of(data.splits["test"], program, limit=config.limit)
        validation_split = None
        if card.selection == "validation":
            validation_split = Resident.of(data.splits["validation"], program, limit=config.limit)
        evaluation_micro, at_once = evaluation_size(program), dispatch_steps(program, examples)

        # ── where to go on ──────────────────────────────────────────────────────────────────────────────
        selectable = first_selectable(card.selection, plan)
        state, journals = program.init(), Journals([Journal(plan.steps, selectable) for _ in seeds])
        saved = latest.load("latest", state)
        earlier_sessions: tuple[Session, ...] = ()
        if saved is not None:
            earlier_sessions = sessions.from_json(saved[1], code, directory)
            state, journals = saved[0], Journals.from_json(saved[1])
        all_sessions = sessions.continued(earlier_sessions, state.step)
        heartbeat.update(state.step, journals.accuracies)
        if state.step < plan.steps:
            compile_ahead(program, state, examples)
        earlier, last_save = journals.each[0].seconds, started
        meter = Meter(journals, (state[1:], examples.arrays))

        def save() -> None:
            nonlocal last_save
            journals.settle()
            if not journals.going_on:
                return  # the last checkpoint before is kept
            for journal in journals.each:
                journal.seconds = earlier + time.monotonic() - started
            latest.save("latest", state, journals.to_json() | sessions.as_json(code, all_sessions))
            meter.restart()
            last_save = time.monotonic()

        # ── steps ───────────────────────────────────────────────────────────────────────────────────────
        title = f"{config.task} {config.mixer_label} seed {', '.join(map(str, program.seeds))}"
        step_s = reserve_s = 0.0  # of a step; of the test, by what has been measured so far
        stopped: Literal["truncated", "interrupted"] | None = None
        with Reporter(title, plan.steps, done=state.step) as reporter:
            while state.step < plan.steps and stopped is None and journals.going_on:
                before = state.step
                ends = (before // n * n + n for n in (at_once, plan.eval_every))  # the same however often it stopped
                state, metrics = advance(program, state, examples, min(plan.steps, *ends) - before)
                journals.add(before, metrics)
                last = state.step == plan.steps
                evaluates = validation_split is not None and (last or state.step % plan.eval_every == 0)
                journals.settle(leave=0 if last or evaluates else 1)  # else the newest dispatch stays under way
                took = meter.lap(state.step - before)
                if took is not None:
                    step_s = 0.95 * step_s + 0.05 * took if step_s else took
                    if not journals.each[0].validation:  # a forward pass takes about a third of a step
                        reserve_s = 0.4 * step_s * test_split.tokens / examples.tokens_of(plan.batch_size)
                speed = len(seeds) * plan.batch_size / step_s if step_s else 0
                reporter.update(state.step, *journals.each[0].curve[-1:], per_second=speed)

                if validation_split and evaluates:
                    begun = time.monotonic()
                    results = evaluate(program, state, validation_split, evaluation_micro)
                    took = time.monotonic() - begun
                    reserve_s = 1.2 * took * test_split.tokens / validation_split.tokens
                    accuracies = ", ".join(f"{result.accuracy:.2%}" for result in results)
                    reporter.say(f"{title}: step {state.step}, validation accuracy {accuracies}")
                    for i, (journal, result) in enumerate(zip(journals.each, results, strict=True)):
                        if journal.failed is not None:
                            continue
                        journal.validate(state.step, result.loss, result.accuracy)
                        if journal.best_step == state.step:
                            best[i].save("best", program.of_seed(state, i), {})
                            best[i].settle()  # before the latest names it
                    save()
                now = time.monotonic()
                halt, late, due = agree(
                    stop.is_set(),
                    now + reserve_s + 10 * max(at_once * step_s, step_s) + 5 > deadline,
                    now - last_save > CHECKPOINT_SECONDS,
                )
                if due:
                    save()
                heartbeat.update(state.step, journals.accuracies)
                if halt or late:
                    stopped = "interrupted" if halt else "truncated"
            save()

            done = Outcome(
                status=stopped if stopped and state.step < plan.steps else "complete",
                steps_done=state.step,
                journal=journals.each[0],
                parameters=program.parameters,
                steps_per_second=journals.each[0].steps_per_second,
                peak_bytes=meter.peak_bytes,
                sessions=all_sessions,
            )
            if done.status == "interrupted" and journals.going_on:
                message = f"stopped by a signal at step {state.step} of {plan.steps}"
                return [dataclasses.replace(done, message=message) for _ in seeds]

            # ── test, once, what the card selects ───────────────────────────────────────────────────────
            chosen = [program.of_seed(state, i) for i in seeds]
            for i, journal in enumerate(journals.each):
                if journal.failed is None and journal.best_step is not None:
                    loaded = best[i].load("best", chosen[i], journal.best_step)
                    if loaded is None:
                        raise RunError(
                            f"{directories[i]}: the best checkpoint, of step {journal.best_step}, is missing or "
                            "damaged; delete the directory to start anew"
                        )
                    chosen[i] = loaded[0]
            tests = []
            if journals.going_on:
                joined = program.joined(chosen)
                tests = evaluate(program, joined, test_split, evaluation_micro)
                flops = forward_flops(program, joined, test_split, evaluation_micro)
                done = dataclasses.replace(done, forward_flops=flops)
            outcomes = []
            for i, journal in enumerate(journals.each):
                if journal.failed is not None:
                    failed = _diverged(program, i, program.of_seed(state, i), journal, examples.count)
                    outcomes.append(dataclasses.replace(failed, peak_bytes=meter.peak_bytes, sessions=all_sessions))
                    continue
                reporter.say(
                    f"{config.task} {config.mixer_label} seed {program.seeds[i]}: step {chosen[i].step}, "
                    f"test accuracy {tests[i].accuracy:.2%} ({done.status})"
                )
                outcomes.append(dataclasses.replace(done, journal=journal, selected_step=chosen[i].step, test=tests[i]))
            return outcomes


def _diverged(program: Program, number: int, state: TrainState, journal: Journal, count: int) -> Outcome:
    """state: the seed's, in which no step was made that was not finite (`Program._update`)"""
    assert journal.failed is not None
    step, loss, norm = journal.failed
    norms = {
        name.removeprefix("params/"): float(np.linalg.norm(np.asarray(array, np.float64)))
        for name, array in flatten(state).items()
        if name.startswith("params/")
    }
    largest = sorted(norms, key=lambda name: (not math.isnan(norms[name]), -norms[name]))[:3]
    told = ", ".join(f"{name} {norms[name]:.3g}" for name in largest)
    at = batch_indices(program.seeds[number], step, program.config.train.batch_size, count)
    message = (
        f"not a number at step {step}: loss {loss}, gradient norm {norm}, "
        f"parameter norm {math.hypot(*norms.values()):.3g} (of {told}); the last checkpoint is kept. "
        f"Try a lower train.learning-rate. The batch: training examples {', '.join(map(str, at))}"
    )
    return Outcome("diverged", step, journal, program.parameters, message=message)


def evaluation_size(program: Program) -> int:
    """Examples a micro-batch of an evaluation: on an accelerator the training batch, on a CPU what is quick there."""
    if jax.default_backend() != "cpu":
        return program.config.train.batch_size
    return program.devices * max(1, EVALUATION_TOKENS // program.config.max_len)
