"""Progress on standard error: bars on a terminal, a line every half minute in a file."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LOG_SECONDS = 30.0


class Reporter:
    """Progress of one run."""

    def __init__(self, title: str, total: int, *, done: int = 0) -> None:
        self._title, self._total = title, total
        self._start = self._last_line = time.monotonic()
        self._first = done
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}", style="bold", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )

    def __enter__(self) -> Reporter:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=self._total, completed=self._first, note="compiling")
        if self._first:
            self.print(f"{self._title}: continues after step {self._first} of {self._total}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, *point: list[float], per_second: float) -> None:
        """Show the step, the newest point [step, loss, accuracy] of the curve if there is one, and the speed."""
        note = (
            f"loss {point[0][1]:.3f}  accuracy {point[0][2]:.1%}  {per_second:,.0f} examples/s"
            if point
            else "compiling"
        )
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, note=note)
        elif time.monotonic() - self._last_line >= LOG_SECONDS:
            self._last_line = time.monotonic()
            elapsed = self._last_line - self._start
            left = elapsed / max(done - self._first, 1) * (self._total - done)
            self.print(f"{self._title}: {done}/{self._total}  {note}  {elapsed / 60:.1f} min, {left / 60:.1f} min left")

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)


class ParallelProgress:
    """Progress of runs in several processes: on a terminal a bar for each, else their lines alone."""

    def __init__(self, runs: int) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._tasks: dict[str, TaskID] = {}
        self._runs = self._bars.add_task("all runs", total=runs, note="")

    def __enter__(self) -> ParallelProgress:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._bars.stop()

    def start(self, title: str) -> None:
        """Add a bar for a run."""
        self.print(title)
        self._tasks[title] = self._bars.add_task(title, total=None, note="starting")

    def update(self, title: str, step: int | None, steps: int | None, validation_accuracy: float | None) -> None:
        """Show the progress of a run. A step of None: it is being compiled, or its checkpoint is being loaded."""
        note = "compiling" if not step else f"step {step}/{steps}"
        if validation_accuracy is not None:
            note += f", validation {validation_accuracy:.1%}"
        self._bars.update(self._tasks[title], completed=step or 0, total=steps if step else None, note=note)

    def finish(self, title: str) -> None:
        """Remove the bar of a run."""
        self._bars.remove_task(self._tasks.pop(title))
        self._bars.advance(self._runs)

    def print(self, line: str) -> None:
        """Print a line above the bars."""
        if self._bars.disable:
            print(line, file=sys.stderr, flush=True)
        else:
            self._bars.console.print(line, markup=False, highlight=False)


class DataProgress:
    """Progress of preparing data: on one line of a terminal; in a file a line at first and every half minute."""

    def __init__(self) -> None:
        self._action, self._last_line = "", 0.0

    def __call__(self, action: str, done: int, total: int) -> None:
        """Show how much is done; a total of 0 is not known."""
        share = f": {done:,} of {total:,}" if total else f": {done:,}" if done else ""
        if sys.stderr.isatty():
            end = "\n" if total and done >= total else ""
            print(f"\r{action}{share}\x1b[K", end=end, file=sys.stderr, flush=True)
        elif action != self._action or time.monotonic() - self._last_line >= LOG_SECONDS:
            self._action, self._last_line = action, time.monotonic()
            print(action + share, file=sys.stderr, flush=True)


data_progress = DataProgress()
