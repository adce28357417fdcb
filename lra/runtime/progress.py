"""What a person sees while a run goes on: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LOG_SECONDS = 30.0


class Reporter:
    """Shows the progress of one run. On a terminal a bar; elsewhere a line every half minute."""

    def __init__(self, title: str, total: int, *, done: int = 0) -> None:
        self._title, self._total = title, total
        self._start = self._last_line = time.monotonic()
        self._begun = done
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
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
            self._task = self._bar.add_task(self._title, total=self._total, completed=self._begun, note="compiling")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, *point: list[float], per_second: float) -> None:
        """Shows the step, the newest point [step, loss, accuracy] of the curve if there is one, and the speed."""
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
            left = elapsed / max(done - self._begun, 1) * (self._total - done)
            self.say(f"{self._title}: {done}/{self._total}  {note}  {elapsed / 60:.1f} min, {left / 60:.1f} min left")

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)


def data_progress(what: str, done: int, total: int) -> None:
    """Progress of preparing data, on one line of a terminal."""
    if sys.stderr.isatty():
        share = f"{done:,} of {total:,}" if total else f"{done:,}"
        print(f"\r{what}: {share}\x1b[K", end="\n" if total and done >= total else "", file=sys.stderr, flush=True)
