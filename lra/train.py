"""The trainer: one loop for every task, mixer and protocol."""

from __future__ import annotations

import dataclasses
import fcntl
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from lra.batches import batch_indices, cut, micro_batch_size
from lra.checkpoint import Checkpoints
from lra.config import RunConfig
from lra.evaluate import Evaluation, Resident, evaluate
from lra.program import Program, TrainState
from lra.progress import Reporter
from tasks.core import Card, Prepared

CURVE_POINTS = 200
CHECKPOINT_SECONDS = 300.0

Status = Literal["complete", "truncated", "interrupted", "diverged"]


class RunError(Exception):
    """A run that cannot go on; the message says at which step, why, and what can be done."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How training ended. `test` is None when it was interrupted or diverged."""

    status: Status
    state: TrainState
    progress: dict[str, Any]
    test: Evaluation | None
    parameters: int
    message: str = ""


def train(
    config: RunConfig, card: Card, data: Prepared, directory: Path, *, max_minutes: float | None = None
) -> Outcome:
    """Trains until the protocol's last step, the time limit or a signal; selects and tests as the card says.

    Goes on from the latest checkpoint in `directory`; what it computes does not depend on where it was interrupted.

    Raises:
      RunError: another process has this run.
    """
    started = time.monotonic()
    deadline = math.inf if max_minutes is None else started + 60 * max_minutes
    with _only_process(directory), _stop_on_signal() as stop:
        # ── data and program ────────────────────────────────────────────────────────────────────────
        program = Program(config, card)
        train_split = Resident.of(data.splits["train"], config)
        held_out = {k: Resident.of(data.splits[k], config, limit=config.limit) for k in data.splits if k != "train"}
        accelerator = jax.default_backend() != "cpu"
        batch, n = config.train.batch_size, train_split.count
        micro = config.train.micro_batch or micro_batch_size(batch, config.max_len, accelerator)
        eval_micro = max(1, min(32, 16_384 // config.max_len)) if not accelerator else max(micro, 32)

        # ── where to go on ──────────────────────────────────────────────────────────────────────────
        checkpoints = Checkpoints(directory / "checkpoints")
        state = program.init()
        progress: dict[str, Any] = {"curve": [], "sums": [0.0, 0.0, 0], "seconds": 0.0, "best": None}
        restored = checkpoints.load("latest", state)
        if restored is not None:
            state, progress = restored
        seconds_before, first_step = progress["seconds"], state.step
        every = max(1, math.ceil(config.train.steps / CURVE_POINTS))
        select = card.selection == "validation"

        def seconds() -> float:
            return seconds_before + time.monotonic() - started

        def checkpoint(kind: str) -> None:
            checkpoints.save(kind, state, {**progress, "seconds": seconds()})

        # ── steps ───────────────────────────────────────────────────────────────────────────────────
        step_s = eval_s_per_token = 0.0
        last_save = time.monotonic()
        pending: list[jax.Array] = []  # metrics of the newest step, not waited for
        status: Status = "complete"
        title = f"{config.task} {config.mixer_label} seed {config.seed}"
        with Reporter(title, config.train.steps, done=state.step) as reporter:
            while state.step < config.train.steps:
                step, begun = state.step, time.monotonic()
                indices = batch_indices(config.seed, step, batch, n)
                totals = program.no_totals(state.params)
                number = np.uint32(step)
                for m in cut(indices, train_split.lengths[indices], micro, train_split.buckets):
                    totals = program.add_gradient(
                        totals, state.params, state.rest, train_split.arrays, number,
                        m.indices, m.places, m.weights, bucket=m.bucket,
                    )  # fmt: skip
                params, opt, metrics = program.update(state.params, state.opt, totals)
                state = TrainState(step + 1, params, state.rest, opt)
                pending.append(metrics)

                validate = select and (state.step % config.train.eval_every == 0 or state.step == config.train.steps)
                # The newest step stays under way while the one before it is looked at.
                for loss, accuracy, norm in map(np.asarray, pending[: None if validate else -1]):
                    if not (np.isfinite(loss) and np.isfinite(norm)):
                        return _diverged(state, progress, program, step, loss, norm, indices)
                    _add_to_curve(progress, float(loss), float(accuracy), every, config.train.steps)
                pending = [] if validate else pending[-1:]

                if state.step > first_step + 3:
                    now = time.monotonic() - begun
                    step_s = now if not step_s else 0.95 * step_s + 0.05 * now
                if progress["curve"] and state.step % 5 == 0:
                    _, loss, accuracy = progress["curve"][-1]
                    rate = batch / step_s if step_s else 0.0
                    reporter.update(state.step, f"loss {loss:.3f}  accuracy {accuracy:.1%}  {rate:,.0f} examples/s")

                if validate:
                    begun = time.monotonic()
                    result = evaluate(program, state, held_out["validation"], eval_micro)
                    eval_s_per_token = (time.monotonic() - begun) / held_out["validation"].tokens
                    progress.setdefault("validation", []).append([state.step, result.loss, result.accuracy])
                    reporter.say(f"{title}  step {state.step}  validation accuracy {result.accuracy:.2%}")
                    if progress["best"] is None or result.accuracy > progress["best"]["accuracy"]:
                        progress["best"] = {"step": state.step, "accuracy": result.accuracy}
                        checkpoint("best")
                    checkpoint("latest")
                    last_save = time.monotonic()
                elif time.monotonic() - last_save > CHECKPOINT_SECONDS:
                    _settle(pending, progress, every, config.train.steps)
                    checkpoint("latest")
                    last_save = time.monotonic()

                # ── a time limit leaves room for the test ───────────────────────────────────────────
                test_tokens = held_out["test"].tokens
                guess = step_s / (batch * train_split.lengths.mean()) if step_s else 0.0
                reserve = 1.3 * test_tokens * (eval_s_per_token or guess) + 10 * step_s + 5
                if stop.is_set() or time.monotonic() + reserve > deadline:
                    status = "interrupted" if stop.is_set() else "truncated"
                    break
            _settle(pending, progress, every, config.train.steps)
            if state.step == config.train.steps:
                status = "complete"
            checkpoint("latest")
            progress["seconds"] = seconds()
            progress["steps_per_second"] = 1 / step_s if step_s else None
            if status == "interrupted":
                return Outcome(status, state, progress, None, program.parameters, "stopped by a signal")

            # ── test, once, what the card selects ───────────────────────────────────────────────────
            chosen = state
            if select and progress["best"] is None:  # stopped before the first validation
                progress["best"] = {"step": state.step, "accuracy": None}
            elif select:
                best = checkpoints.load("best", state)
                if best is None or best[0].step != progress["best"]["step"]:
                    raise RunError(f"{directory}: the best checkpoint is missing; delete the directory to start anew")
                chosen = best[0]
            progress["selected_step"] = chosen.step
            test = evaluate(program, chosen, held_out["test"], eval_micro)
            reporter.say(f"{title}  step {chosen.step}  test accuracy {test.accuracy:.2%}  ({status})")
        checkpoints.close()
        return Outcome(status, state, progress, test, program.parameters)


def _add_to_curve(progress: dict[str, Any], loss: float, accuracy: float, every: int, steps: int) -> None:
    """Means over `every` steps, as points [step, loss, accuracy]: at most CURVE_POINTS of them."""
    sums = progress["sums"]
    sums[0] += loss
    sums[1] += accuracy
    sums[2] += 1
    done = progress["curve"][-1][0] if progress["curve"] else 0
    if sums[2] == every or done + sums[2] == steps:
        progress["curve"].append([done + sums[2], sums[0] / sums[2], sums[1] / sums[2]])
        progress["sums"] = [0.0, 0.0, 0]


def _settle(pending: list[jax.Array], progress: dict[str, Any], every: int, steps: int) -> None:
    """Waits for steps under way and writes them down."""
    for loss, accuracy, _ in map(np.asarray, pending):
        _add_to_curve(progress, float(loss), float(accuracy), every, steps)
    pending.clear()


def _diverged(
    state: TrainState, progress: dict[str, Any], program: Program, step: int, loss: Any, norm: Any, indices: np.ndarray
) -> Outcome:
    message = (
        f"not a number at step {step}: loss {float(loss)}, gradient norm {float(norm)}; the last checkpoint is kept. "
        f"Try a lower --train.learning-rate. Examples of the batch: {indices[:8].tolist()} ..."
    )
    return Outcome("diverged", state, progress, None, program.parameters, message)


@contextmanager
def _only_process(directory: Path) -> Iterator[None]:
    """Holds the run's lock; a second process on the same run is an error."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{directory}: another process is working on this run") from None
        yield


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM end the run after the step under way, with a checkpoint. A second Ctrl-C ends it at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
