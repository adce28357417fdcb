"""What a user sees of waits: in a file, and on a terminal."""

from __future__ import annotations

import io
from contextlib import redirect_stderr

import pytest

from lra.runtime import progress
from lra.runtime.progress import DataProgress, ParallelProgress, Reporter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_preparing_data_prints_its_first_step_into_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    show = DataProgress()
    with redirect_stderr(io.StringIO()) as file:
        show("preparing listops", 0, 0)
        for second in range(100):
            clock[0] = second
            show("drawing images", 10 * second, 1_000)
    assert file.getvalue().splitlines() == [
        "preparing listops",
        "drawing images: 0 of 1,000",
        "drawing images: 300 of 1,000",
        "drawing images: 600 of 1,000",
        "drawing images: 900 of 1,000",
    ]


def test_preparing_data_rewrites_one_line_of_a_terminal() -> None:
    show = DataProgress()
    with redirect_stderr(Terminal()) as terminal:
        for done in (1, 2, 3):
            show("drawing images", done, 3)
    assert terminal.getvalue() == "".join(f"\rdrawing images: {done} of 3\x1b[K" for done in (1, 2, 3)) + "\n"


def test_a_resumed_run_names_its_step() -> None:
    with redirect_stderr(io.StringIO()) as file:
        with Reporter("text linear seed 0", 500, done=0):
            pass
        assert file.getvalue() == ""
        with Reporter("text linear seed 0", 500, done=120):
            pass
    assert file.getvalue() == "text linear seed 0: continues after step 120 of 500\n"


def test_parallel_runs_print_their_lines_alone_into_a_file() -> None:
    with redirect_stderr(io.StringIO()) as file, ParallelProgress(2) as bars:
        bars.start("[1/2] a")
        bars.update("[1/2] a", 5, 20, 0.25)
        bars.print("a: step 5")
        bars.finish("[1/2] a")
    assert file.getvalue() == "[1/2] a\na: step 5\n"


def test_parallel_runs_have_a_bar_each_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with redirect_stderr(Terminal()) as terminal, ParallelProgress(2) as bars:
        bars.start("[1/2] a")
        bars.start("[2/2] [b]")
        bars.update("[1/2] a", None, 20, None)
        bars.update("[2/2] [b]", 5, 20, 0.25)
        bars._bars.refresh()
        assert "compiling" in terminal.getvalue()
        assert "step 5/20, validation 25.0%" in terminal.getvalue()
        assert "[2/2] [b]" in terminal.getvalue()  # not taken as markup
        bars.finish("[1/2] a")
    assert "all runs" in terminal.getvalue()
