"""The trainer: one loop for every task, mixer and protocol."""

from __future__ import annotations

import dataclasses
import math
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np

from lra.errors import RunError
from lra.provenance import sessions
from lra.provenance.code import Code, computing
from lra.provenance.sessions import Session
from lra.runtime.distributed import Agreement, is_writer, same_everywhere
from lra.runtime.heartbeat import Heartbeat
from lra.runtime.locks import run_lock
from lra.runtime.progress import Reporter
from lra.runtime.signals import stop_on_signal
from lra.selection import first_selectable
from lra.training.batching import batch_indices
from lra.training.budget import TimeBudget
from lra.training.checkpoints import Checkpoints, flatten
from lra.training.evaluation import Evaluation, evaluate, forward_flops
from lra.training.history import History
from lra.training.meter import Meter
from lra.training.metrics import MetricsWriter
from lra.training.receptive_field import ReceptiveField, receptive_field
from lra.training.step_functions import StepFunctions
from lra.training.train_step import compile_ahead, dispatch_steps, train_steps
from tasks.core import Prepared

CHECKPOINT_SECONDS = 300.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How training ended.

    Attributes:
      steps_per_second, peak_bytes: of training steps, without compilation and evaluations (`lra.training.meter`)
      test: None if the run was interrupted or diverged; `message` then says why
    """

    status: Literal["complete", "truncated", "interrupted", "diverged"]
    steps_done: int
    history: History
    parameters: int
    steps_per_second: float | None = None
    peak_bytes: int | None = None
    forward_flops: float | None = None
    selected_step: int | None = None
    test: Evaluation | None = None
    receptive_field: ReceptiveField | None = None
    message: str = ""
    sessions: tuple[Session, ...] = ()


def train(
    functions: StepFunctions,
    data: Prepared,
    directory: Path,
    *,
    max_minutes: float | None = None,
    tensorboard: bool = False,
) -> Outcome:
    """Train to the protocol's last step, the time limit or a signal; then select a checkpoint and test it once.

    Training resumes from the latest checkpoint in `directory`, and computes the same as without the interruption.
    `metrics.csv` in the directory has the curve so far; with `tensorboard`, event files have it too.

    Raises:
      RunError: another process trains this run, its checkpoints are damaged, or other code computed them
    """
    budget = TimeBudget(max_minutes)
    config = functions.config
    code = computing(config)
    if not same_everywhere(code.sha256):
        raise RunError("the processes that train this run have different code; start all of them from the same commit")
    steps = config.train.steps
    title = f"{config.task} {config.mixer_label} seed {config.seed}"
    with ExitStack() as context:
        heartbeat = Heartbeat(directory, steps)
        if is_writer():
            context.enter_context(run_lock(directory))
            context.enter_context(heartbeat)
        stop_requested = context.enter_context(stop_on_signal())
        run = _TrainingRun(functions, data, directory, code, budget, tensorboard=tensorboard)
        context.callback(run.metrics.close)
        heartbeat.update(run.state.step, run.history.validation_accuracy)
        reporter = context.enter_context(Reporter(title, steps, done=run.state.step))

        agreement = Agreement()
        stopped: Literal["truncated", "interrupted"] | None = None
        while run.state.step < steps and stopped is None and run.history.failed is None:
            evaluates = run.train_until_boundary()
            speed = config.train.batch_size / budget.step_seconds if budget.step_seconds else 0
            reporter.update(run.state.step, *run.history.curve[-1:], per_second=speed)
            if evaluates:
                accuracy = run.validate()
                reporter.print(f"{title}: step {run.state.step}, validation accuracy {accuracy:.2%}")
            interrupted, out_of_time, checkpoint_due = agreement.any_process(
                run.state.step,
                budget.step_seconds,
                stop_requested.is_set(),
                budget.ends_within(run.dispatch_steps),
                run.seconds_since_checkpoint > CHECKPOINT_SECONDS,
            )
            if checkpoint_due:
                run.save()
            heartbeat.update(run.state.step, run.history.validation_accuracy)
            if interrupted or out_of_time:
                stopped = "interrupted" if interrupted else "truncated"
        run.save()

        outcome = run.outcome(stopped if stopped and run.state.step < steps else "complete")
        if run.history.failed is not None:
            return dataclasses.replace(
                outcome, status="diverged", steps_done=run.history.failed[0], message=run.failure()
            )
        if outcome.status == "interrupted":
            message = f"stopped by a signal at step {run.state.step} of {steps}"
            return dataclasses.replace(outcome, message=message)
        outcome = run.select_and_test(outcome)
        assert outcome.test is not None
        reporter.print(
            f"{title}: step {outcome.selected_step}, test accuracy {outcome.test.accuracy:.2%} ({outcome.status})"
        )
        return outcome


class _TrainingRun:
    """The state of a run in this process: parameters, data on the devices, history and checkpoints."""

    def __init__(
        self,
        functions: StepFunctions,
        data: Prepared,
        directory: Path,
        code: Code,
        budget: TimeBudget,
        *,
        tensorboard: bool,
    ) -> None:
        """Put the data on the devices, load the latest checkpoint, and compile."""
        config, card = functions.config, functions.card
        self._functions, self._directory, self._code, self._budget = functions, directory, code, budget
        self._checkpoints = Checkpoints(directory / "checkpoints")
        self._train_set = functions.dataset(data.splits["train"])
        self._test_set = functions.dataset(data.splits["test"], limit=config.limit)
        self._validation_set = None
        if card.selection == "validation":
            self._validation_set = functions.dataset(data.splits["validation"], limit=config.limit)
        self.dispatch_steps = dispatch_steps(functions, self._train_set)

        self.state = functions.init()
        self.history = History(config.train.steps, first_selectable(card.selection, config.train))
        earlier_sessions: tuple[Session, ...] = ()
        loaded = self._checkpoints.load("latest", self.state)
        if loaded is not None:
            self.state, progress = loaded
            earlier_sessions = sessions.from_json(progress, code, directory)
            self.history = History.from_json(progress.get("history"))
        self._sessions = sessions.continued(earlier_sessions, self.state.step)
        self._earlier_seconds = self.history.seconds
        if self.state.step < config.train.steps:
            compile_ahead(functions, self.state, self._train_set)
        self._last_checkpoint = budget.started
        self._meter = Meter(self.history, (self.state[1:], self._train_set.arrays))
        self.metrics = MetricsWriter(directory, self.state.step, tensorboard=tensorboard and is_writer())

    @property
    def seconds_since_checkpoint(self) -> float:
        return time.monotonic() - self._last_checkpoint

    def train_until_boundary(self) -> bool:
        """Train to the next end of a dispatch or the next evaluation; return whether the evaluation is due.

        The boundaries are the same however often a run is interrupted.
        """
        train, before = self._functions.config.train, self.state.step
        boundaries = (before // n * n + n for n in (self.dispatch_steps, train.eval_every))
        steps = min(train.steps, *boundaries) - before
        self.state, metrics = train_steps(self._functions, self.state, self._train_set, steps)
        self.history.add(before, metrics)
        last = self.state.step == train.steps
        evaluates = self._validation_set is not None and (last or self.state.step % train.eval_every == 0)
        self.history.flush(keep_pending=0 if last or evaluates else 1)  # the newest dispatch may still be computed
        seconds = self._meter.lap(steps)
        if seconds is not None:
            self._budget.record_step(seconds)
            if not self.history.validation:  # a forward pass takes about a third of a step
                tokens = train.batch_size * float(self._train_set.lengths.mean())
                self._budget.record_test_estimate(0.4 * self._budget.step_seconds * self._test_set.tokens / tokens)
        return evaluates

    def validate(self) -> float:
        """Evaluate on the validation split, save the state, and return the accuracy."""
        assert self._validation_set is not None
        started = time.monotonic()
        result = evaluate(self._functions, self.state, self._validation_set)
        seconds = time.monotonic() - started
        self._budget.record_test_estimate(1.2 * seconds * self._test_set.tokens / self._validation_set.tokens)
        if self.history.failed is None:
            self.history.record_validation(self.state.step, result.loss, result.accuracy)
            if self.history.best_step == self.state.step:
                self._checkpoints.save("best", self.state, {})  # before the latest, whose history refers to it
        self.save()
        return result.accuracy

    def save(self) -> None:
        """Save the latest state with its history, unless the run has diverged: the previous checkpoint is then kept."""
        self.history.flush()
        if self.history.failed is not None:
            return
        self.history.seconds = self._earlier_seconds + self._budget.elapsed
        progress = {"history": self.history.to_json()} | sessions.as_json(self._code, self._sessions)
        self._checkpoints.save("latest", self.state, progress)
        if is_writer():
            self.metrics.write(self.history)
        self._meter.restart()
        self._last_checkpoint = time.monotonic()

    def outcome(self, status: Literal["complete", "truncated", "interrupted"]) -> Outcome:
        """Return how training ended, without a test."""
        return Outcome(
            status=status,
            steps_done=self.state.step,
            history=self.history,
            parameters=self._functions.parameters,
            steps_per_second=self.history.steps_per_second,
            peak_bytes=self._meter.peak_bytes,
            sessions=self._sessions,
        )

    def select_and_test(self, outcome: Outcome) -> Outcome:
        """Load the selected checkpoint and test it once.

        Raises:
          RunError: the selected checkpoint is missing or damaged
        """
        selected, best_step = self.state, self.history.best_step
        if best_step is not None:
            loaded = self._checkpoints.load("best", self.state, best_step)
            if loaded is None:
                raise RunError(
                    f"{self._directory}: the best checkpoint, of step {best_step}, is missing or damaged; "
                    "delete the directory to train from scratch"
                )
            selected = loaded[0]
        return dataclasses.replace(
            outcome,
            test=evaluate(self._functions, selected, self._test_set),
            forward_flops=forward_flops(self._functions, selected, self._test_set),
            selected_step=selected.step,
            receptive_field=(
                receptive_field(self._functions, selected, self._test_set) if outcome.status == "complete" else None
            ),
        )

    def failure(self) -> str:
        """Describe the first step that was not finite. The state is that before it (`StepFunctions._update`)."""
        assert self.history.failed is not None
        step, loss, gradient_norm = self.history.failed
        norms = {
            name.removeprefix("params/"): float(np.linalg.norm(np.asarray(array, np.float64)))
            for name, array in flatten(self.state).items()
            if name.startswith("params/")
        }
        largest = sorted(norms, key=lambda name: (not math.isnan(norms[name]), -norms[name]))[:3]
        train = self._functions.config.train
        examples = batch_indices(self._functions.config.seed, step, train.batch_size, self._train_set.count)
        return (
            f"not a number at step {step}: loss {loss}, gradient norm {gradient_norm}, "
            f"parameter norm {math.hypot(*norms.values()):.3g} "
            f"(of {', '.join(f'{name} {norms[name]:.3g}' for name in largest)}); the last checkpoint is kept. "
            f"Try a lower train.learning-rate. The batch: training examples {', '.join(map(str, examples))}"
        )
