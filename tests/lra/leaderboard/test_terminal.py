"""The leaderboard on terminals of several widths, and the table at the end of a suite."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from lra.leaderboard.build import board, render
from lra.leaderboard.summary import summary
from lra.paths import ROOT
from lra.record.files import RecordFile
from tests.lra.leaderboard.test_leaderboard import run, trivial

TASKS = ("listops", "text", "retrieval", "image", "pathfinder")


def printed(renderable: Any, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def suite() -> list[RecordFile[Any]]:
    """Two mixers of the user on five tasks, their committed records, and a committed record of a third mixer."""
    return [
        run((10 * i + j + k) / 100, task=task, mixer=mixer, origin=origin, data=f"{i}" * 64)
        for i, task in enumerate(TASKS, 2)
        for j, (mixer, origin) in enumerate(
            [("cosformer", "yours"), ("softmax", "yours"), ("cosformer", "committed"), ("fnet", "committed")]
        )
        for k in [0.1]
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(width: int) -> None:
    text = printed(render(board(suite())), width)
    assert max(cell_len(line.rstrip()) for line in text.splitlines()) <= width
    for number in ("20.1", "31.1", "42.1", "53.1", "60.1"):
        assert number in text
    assert text.count(" cosformer") >= 2 * (1 if width > 60 else 2)  # at 60 columns the tables continue below


def test_numbers_of_a_column_are_aligned_whatever_follows_them() -> None:
    files = [run(0.4, seed=seed) for seed in (0, 1, 2)] + [run(0.2, mixer="softmax"), run(0.35, mixer="linear")]
    lines = printed(render(board(files)), 80).splitlines()
    points = {
        line.index(".")
        for line in lines
        if line.startswith((" cosformer ", " softmax ", " linear ")) and "·" not in line
    }
    assert len(points) == 1


def test_a_suite_ends_with_the_users_rows_and_the_committed_rows_of_the_same_mixers() -> None:
    files = [*suite(), trivial(0.25, data="2" * 64)]
    text = printed(summary(board(files), "quick", {"cosformer", "softmax"}), 80)
    lines = text.splitlines()
    assert max(map(cell_len, map(str.rstrip, lines))) <= 80
    assert lines[0].rstrip() == "quick@2: Test accuracy in per cent"
    rows = [line.split() for line in lines if line.startswith(" ")]
    assert [row[0] for row in rows if row[-1].replace(".", "").isdigit()][:3] == ["softmax", "cosformer", "cosformer"]
    assert "fnet" not in text
    assert next(row for row in rows if row[0] == "best")[:5] == ["best", "of", "each", "task", "25.0"]
    assert next(row for row in rows if row[0] == "majority")[2:4] == ["20.0", "20.0"]
    assert not set("≈≡▽†=<?") & set(text)


def test_a_suite_of_stopped_runs_ends_with_their_steps() -> None:
    files = [run(0.3, status="truncated"), run(0.4, mixer="softmax", origin="committed")]
    text = printed(summary(board(files), "quick", {"cosformer"}), 80)
    assert "120 of 500" in text
    assert "softmax" not in text


@pytest.mark.slow
@pytest.mark.parametrize("command", [["leaderboard"], ["leaderboard", "--format", "html"], ["list"], ["status"]])
def test_output_into_a_file_is_utf8_whatever_the_encoding_of_the_shell(command: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LRA_RUNS": str(tmp_path)}
    done = subprocess.run([sys.executable, "run_lra.py", *command], cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode("utf-8")


def test_tables_of_one_protocol_have_different_titles() -> None:
    files = [run(0.3), run(0.4, data="7" * 64, source="official"), run(0.4, mixer="fnet")]
    for format in ("table", "md"):
        text = render(board(files), format)  # type: ignore[arg-type]
        text = text if isinstance(text, str) else printed(text, 120)
        titles = [line.strip("# ") for line in text.splitlines() if line.startswith(("quick@2", "### quick@2"))]
        assert [title.partition("  ")[0] for title in titles] == [
            "quick@2, data: generated, seed 1806",
            "quick@2, data: official",
        ]
    latex = str(render(board(files), "latex"))
    assert latex.count("data: generated, seed 1806") == latex.count("data: official") == 1
