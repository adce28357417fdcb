"""The status of the runs of a directory, from their files alone: any machine that shares them can read it."""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from collections import Counter
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lra.config import RunConfig
from lra.errors import ConfigError
from lra.paths import runs_directory
from lra.record import files
from lra.record.schema import Record, RunRecord
from lra.runtime import heartbeat
from lra.runtime.heartbeat import Beat, read_beat
from lra.runtime.locks import has_process

LOST_SECONDS = 12 * heartbeat.INTERVAL_SECONDS  # without a heartbeat from another machine
REFRESH_SECONDS = 2.0

State = Literal["running", "died", "failed", "stopped", "waiting", "diverged", "finished"]
STATES: tuple[State, ...] = get_args(State)
COLOURS = {"running": "green", "died": "red", "failed": "red", "diverged": "magenta", "finished": "blue"}
MEANING = {
    "died": "its process ended without a message; the same command resumes from the last checkpoint",
    "diverged": "a loss or gradient was not a number",
}


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """One run.

    Attributes:
      step, steps: done, and planned
      seconds_left: at the rate so far; of a run that is running
      sign_age_s: seconds since the last heartbeat
    """

    run: str
    task: str
    variant: str
    mixer: str
    protocol: str
    modified: bool
    seed: int
    state: State
    step: int | None
    steps: int
    steps_per_second: float | None
    seconds_left: float | None
    validation_accuracy: float | None
    sign_age_s: float | None
    message: str


def statuses() -> list[RunStatus]:
    """Return the status of all runs of `runs/`, those first that need attention."""
    paths = sorted(runs_directory().glob("*/config.json"))
    runs = [run for path in paths if (run := read_run(path.parent)) is not None]
    return sorted(runs, key=lambda run: STATES.index(run.state))


def read_run(directory: Path) -> RunStatus | None:
    """Return the status of the run in a directory; None if its configuration cannot be read."""
    now = time.time()
    try:
        config = RunConfig.read(directory / "config.json")
    except ConfigError:
        return None
    record, unreadable = _record(directory)
    finished = record is not None and record.status == "complete"
    is_locked = not finished and has_process(directory)  # before the heartbeat is read: a run may end in between
    beat = read_beat(directory)
    state = "finished" if finished else "running" if is_locked else _state(directory, beat, record, now)
    latest = _beat_of(record) if record is not None and (finished or beat is None) else beat
    known = latest or Beat("stopped", host="", pid=0, time=now)
    step, steps, rate = known.step, config.train.steps, known.steps_per_second
    return RunStatus(
        run=directory.name,
        task=config.task,
        variant=config.variant,
        mixer=config.mixer_label,
        protocol=config.protocol,
        modified=config.modified,
        seed=config.seed,
        state=state,
        step=step,
        steps=steps,
        steps_per_second=rate,
        seconds_left=(steps - step) / rate if state == "running" and rate and step is not None else None,
        validation_accuracy=known.validation_accuracy,
        sign_age_s=max(0.0, now - known.time) if latest else None,
        message=unreadable or (known.message if state == "failed" else MEANING.get(state, "")),
    )


def _state(directory: Path, beat: Beat | None, record: RunRecord | None, now: float) -> State:
    """Return the state of a run that is not finished and whose lock is free."""
    if beat is not None and beat.state == "running":
        # Not every shared file system shows on one machine the locks of another.
        is_remote = beat.host != socket.gethostname()
        is_alive = has_process(directory) or (is_remote and now - beat.time < LOST_SECONDS)
        return "running" if is_alive else "died"
    if beat is not None and beat.state == "failed":
        return "failed"
    if record is not None and record.status == "diverged":
        return "diverged"
    return "waiting" if beat is None and record is None and not (directory / "lock").exists() else "stopped"


def _record(directory: Path) -> tuple[RunRecord | None, str]:
    """Return the record with the most steps, if there is one, and what is wrong with those that cannot be read."""
    complete = files.complete_record_path(directory)
    paths = [complete] if complete.exists() else sorted((directory / "records").glob("[!.]*.json"))
    records, messages = [], []
    for path in paths:
        try:
            stat = path.stat()
        except OSError:  # removed since it was listed
            continue
        record, problems = _load(path, stat.st_mtime_ns, stat.st_size)
        messages += [f"{path}: not a record: {'; '.join(problems)}"] if problems else []
        records += [record] if isinstance(record, RunRecord) else []
    return max(records, key=lambda record: record.steps.done, default=None), "; ".join(messages)


@cache  # `watch` asks for every record again and again
def _load(path: Path, mtime_ns: int, size: int) -> tuple[Record | None, list[str]]:
    """Return what `files.load` returns for a file in this state."""
    return files.load(path)


def _beat_of(record: RunRecord) -> Beat:
    """Return a record as if it were the last heartbeat of its run."""
    return Beat(
        "stopped",
        host="",
        pid=0,
        time=datetime.fromisoformat(record.created).timestamp(),
        step=record.steps.done,
        steps_per_second=record.steps_per_second,
        validation_accuracy=record.validation[-1][2] if record.validation else None,
    )


def as_json(runs: list[RunStatus]) -> str:
    return json.dumps([dataclasses.asdict(run) for run in runs], indent=1)


def as_table(runs: list[RunStatus]) -> RenderableType:
    """Return the number of runs in each state, a row for each run, and the messages of those that failed."""
    counts = Counter(run.state for run in runs)
    summary = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]) or "no runs"
    head = Text(f"{runs_directory()}: {summary}")
    if not runs:
        return head
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in ("task", "mixer", "protocol", "state"):
        table.add_column(name, overflow="fold", no_wrap=name == "state")
    for name in ("seed", "step", "steps/s", "left", "valid", "heartbeat"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        texts = (run.task, run.mixer, run.protocol + "*" * run.modified)
        figures = (
            str(run.seed),
            f"{'–' if run.step is None else f'{run.step:,}'}/{run.steps:,}",
            "–" if run.steps_per_second is None else f"{run.steps_per_second:.3g}",
            "–" if run.seconds_left is None else duration(run.seconds_left),
            "–" if run.validation_accuracy is None else f"{run.validation_accuracy:.2%}",
            "–" if run.sign_age_s is None else duration(run.sign_age_s),
        )
        state = Text(run.state, COLOURS.get(run.state, ""))
        table.add_row(*map(Text, texts), state, *map(Text, figures))
    notes = [f"{run.run}: {run.state}: {run.message}" for run in runs if run.message]
    if any(run.modified for run in runs):
        notes.append("* modified: with changes of the protocol")
    return Group(head, Text(), table, Text(), *map(Text, notes))


def duration(seconds: float) -> str:
    """Return a time in one or two units, as in `2h05m`."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f}s"
    if minutes < 60:
        return f"{minutes}m"
    if minutes < 48 * 60:
        return f"{minutes // 60}h{minutes % 60:02}m"
    return f"{minutes // 1440}d{minutes % 1440 // 60}h"


def watch(console: Console) -> None:
    """Show the table until Ctrl-C, and update it."""
    with Live(as_table(statuses()), console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(REFRESH_SECONDS)
                live.update(as_table(statuses()), refresh=True)
        except KeyboardInterrupt:
            return
