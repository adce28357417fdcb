"""The trainer: one loop for every task, mixer and protocol."""

from __future__ import annotations

import dataclasses
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Literal

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
from lra.training.budget import TimeBudget
from lra.training.checkpoints import Checkpoints
from lra.training.device_dataset import Datasets
from lra.training.evaluation import evaluate, forward_flops
from lra.training.failure import failure
from lra.training.history import History
from lra.training.meter import Meter
from lra.training.metrics import MetricsWriter
from lra.training.outcome import Outcome
from lra.training.pretraining import (
    fine_tuning_state,
    pretraining_directory,
    pretraining_functions,
    pretraining_lock,
    pretraining_steps,
)
from lra.training.receptive_field import receptive_field
from lra.training.step_functions import StepFunctions
from lra.training.train_step import compile_ahead, dispatch_steps, train_steps
from tasks.core import Prepared

CHECKPOINT_SECONDS = 300.0


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
    title = f"{config.task} {config.mixer_label} seed {config.seed}"
    with ExitStack() as context:
        heartbeat = Heartbeat(directory, config.train.steps)
        if is_writer():
            context.enter_context(run_lock(directory))
            context.enter_context(heartbeat)
        stop_requested = context.enter_context(stop_on_signal())
        datasets = _datasets(functions, data)
        run = _TrainingRun(functions, datasets, directory, code, budget)
        if not run.is_resumed and pretraining_steps(config):
            first = pretraining_functions(functions)
            shared = pretraining_directory(directory, first.config, data, code.sha256)
            with pretraining_lock(shared, first.config, stop_requested):
                pretraining = _TrainingRun(first, datasets, shared, code, budget, last_step=pretraining_steps(config))
                stopped = None
                if (done := pretraining.state.step) < pretraining.last_step:
                    with Reporter(f"{title}, pretraining", pretraining.last_step, done=done) as reporter:
                        stopped = pretraining.train(title, reporter, heartbeat, stop_requested)
            if stopped is not None or pretraining.history.failed is not None:
                outcome = pretraining.outcome(stopped or "complete")
                if outcome.status == "truncated":
                    place = f"step {outcome.steps_done} of {pretraining.last_step}"
                    raise RunError(f"the time limit ended the pretraining at {place}; the same command resumes it")
                return dataclasses.replace(outcome, parameters=functions.parameters)
            run.start_from(pretraining)

        with Reporter(title, run.last_step, done=run.state.step) as reporter:
            stopped = run.train(title, reporter, heartbeat, stop_requested, tensorboard=tensorboard and is_writer())
            outcome = run.outcome(stopped or "complete")
            if outcome.status in ("diverged", "interrupted"):
                return outcome
            outcome = run.select_and_test(outcome)
            assert outcome.test is not None
            reporter.print(
                f"{title}: step {outcome.selected_step}, test accuracy {outcome.test.accuracy:.2%} ({outcome.status})"
            )
            return outcome


def _datasets(functions: StepFunctions, data: Prepared) -> Datasets:
    """Copy the splits to the devices; validation is None if nothing is selected on it."""
    limit, splits, validates = functions.config.limit, data.splits, functions.card.selection == "validation"
    return Datasets(
        functions.dataset(splits["train"]),
        functions.dataset(splits["validation"], limit=limit) if validates else None,
        functions.dataset(splits["test"], limit=limit),
    )


class _TrainingRun:
    """The state of a run, or of a phase of it, in this process: parameters, history and checkpoints.

    Attributes:
      last_step: at which it ends
      is_resumed: it continues from a checkpoint
    """

    def __init__(
        self,
        functions: StepFunctions,
        datasets: Datasets,
        directory: Path,
        code: Code,
        budget: TimeBudget,
        last_step: int | None = None,
    ) -> None:
        """Load the latest checkpoint.

        Args:
          last_step: of a phase without labels, which is not validated; None: the run's last step
        """
        config = functions.config
        self.functions, self._datasets, self._directory = functions, datasets, directory
        self._code, self._budget = code, budget
        self._checkpoints = Checkpoints(directory / "checkpoints")
        self._validation_set = datasets.validation if last_step is None else None
        self.last_step = config.train.steps if last_step is None else last_step
        self.dispatch_steps = dispatch_steps(functions, datasets.train)

        self.state = functions.init()
        self.history = History(config.train.steps, first_selectable(functions.card.selection, config.train))
        earlier_sessions: tuple[Session, ...] = ()
        loaded = self._checkpoints.load("latest", self.state)
        self.is_resumed = loaded is not None
        if loaded is not None:
            self.state, progress = loaded
            earlier_sessions = sessions.from_json(progress, code, directory)
            self.history = History.from_json(progress.get("history"))
        self._sessions = sessions.continued(earlier_sessions, self.state.step)
        self._earlier_seconds = self.history.seconds

    def start_from(self, pretraining: _TrainingRun) -> None:
        """Start with the encoder of a pretraining. Its curve and time belong to the run, whoever computed it."""
        self.state = fine_tuning_state(pretraining.state, self.functions)
        before = pretraining.history
        self.history.curve, self.history.seconds = list(before.curve), before.seconds
        self.history.timed_steps, self.history.timed_seconds = before.timed_steps, before.timed_seconds
        self._earlier_seconds = pretraining._earlier_seconds
        self._sessions = sessions.continued(pretraining._sessions, self.state.step)

    def train(
        self,
        title: str,
        reporter: Reporter,
        heartbeat: Heartbeat,
        stop_requested: threading.Event,
        *,
        tensorboard: bool = False,
    ) -> Literal["truncated", "interrupted"] | None:
        """Train to the last step and save the state; return why it stopped before, or None."""
        if self.state.step < self.last_step:
            compile_ahead(self.functions, self.state, self._datasets.train)
        self._last_checkpoint = self._budget.started
        self._meter = Meter(self.history, (self.state[1:], self._datasets.train.arrays))
        first_step = self.state.step if self.is_resumed else 0
        with closing(MetricsWriter(self._directory, first_step, tensorboard=tensorboard)) as self.metrics:
            heartbeat.update(self.state.step, self.history.validation_accuracy)
            budget, agreement = self._budget, Agreement()
            stopped: Literal["truncated", "interrupted"] | None = None
            while self.state.step < self.last_step and stopped is None and self.history.failed is None:
                evaluates = self.train_until_boundary()
                speed = self.functions.config.train.batch_size / budget.step_seconds if budget.step_seconds else 0
                reporter.update(self.state.step, *self.history.curve[-1:], per_second=speed)
                if evaluates:
                    accuracy = self.validate()
                    reporter.print(f"{title}: step {self.state.step}, validation accuracy {accuracy:.2%}")
                interrupted, out_of_time, checkpoint_due = agreement.any_process(
                    self.state.step,
                    budget.step_seconds,
                    stop_requested.is_set(),
                    budget.ends_within(self.dispatch_steps),
                    time.monotonic() - self._last_checkpoint > CHECKPOINT_SECONDS,
                )
                if checkpoint_due:
                    self.save()
                heartbeat.update(self.state.step, self.history.validation_accuracy)
                if interrupted or out_of_time:
                    stopped = "interrupted" if interrupted else "truncated"
            self.save()
        return stopped if self.state.step < self.last_step else None

    def train_until_boundary(self) -> bool:
        """Train to the next end of a dispatch or the next evaluation; return whether the evaluation is due.

        The boundaries are the same however often a run is interrupted.
        """
        train, before = self.functions.config.train, self.state.step
        boundaries = (before // n * n + n for n in (self.dispatch_steps, train.eval_every))
        steps = min(self.last_step, *boundaries) - before
        self.state, metrics = train_steps(self.functions, self.state, self._datasets.train, steps)
        self.history.add(before, metrics)
        last = self.state.step == self.last_step
        evaluates = self._validation_set is not None and (last or self.state.step % train.eval_every == 0)
        self.history.flush(keep_pending=0 if last or evaluates else 1)  # the newest dispatch may still be computed
        seconds = self._meter.lap(steps)
        if seconds is not None:
            self._budget.record_step(seconds)
            if not self.history.validation:  # a forward pass takes about a third of a step
                tokens = train.batch_size * float(self._datasets.train.lengths.mean())
                self._budget.record_test_estimate(0.4 * self._budget.step_seconds * self._datasets.test.tokens / tokens)
        return evaluates

    def validate(self) -> float:
        """Evaluate on the validation split, save the state, and return the accuracy."""
        assert self._validation_set is not None
        started = time.monotonic()
        result = evaluate(self.functions, self.state, self._validation_set)
        seconds = time.monotonic() - started
        self._budget.record_test_estimate(1.2 * seconds * self._datasets.test.tokens / self._validation_set.tokens)
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

    def outcome(self, status: Literal["complete", "truncated", "interrupted", "diverged"]) -> Outcome:
        """Return how training ended, without a test."""
        config, step, message = self.functions.config, self.state.step, ""
        if self.history.failed is not None:
            message = failure(self.history.failed, self.state, config, self._datasets.train.count)
            status, step = "diverged", self.history.failed[0]
        elif status == "interrupted":
            message = f"stopped by a signal at step {step} of {config.train.steps}"
        return Outcome(
            status=status,
            steps_done=step,
            history=self.history,
            parameters=self.functions.parameters,
            steps_per_second=self.history.steps_per_second,
            peak_bytes=self._meter.peak_bytes,
            message=message,
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
            test=evaluate(self.functions, selected, self._datasets.test),
            forward_flops=forward_flops(self.functions, selected, self._datasets.test),
            selected_step=selected.step,
            receptive_field=(
                receptive_field(self.functions, selected, self._datasets.test) if outcome.status == "complete" else None
            ),
        )
