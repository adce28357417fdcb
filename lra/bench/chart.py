"""The figure of LRA's papers: accuracy against training speed, a bubble for each mixer, its area the peak memory."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lra.bench.run import Results
from lra.bench.tables import REFERENCE, bytes_text, heading, training_speed
from lra.leaderboard import build as leaderboard
from lra.leaderboard.text import card_of
from lra.leaderboard.types import Column, Table
from lra.record.files import RecordFile
from lra.record.schema import Record
from tasks.core import SAMPLE

LARGEST = 2_600.0  # area of the largest bubble, in square points
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


@dataclasses.dataclass(frozen=True)
class BenchBubble:
    """A mixer in the figure. speed: relative to softmax; accuracy: mean in per cent."""

    mixer: str
    speed: float
    accuracy: float
    peak_bytes: int


@dataclasses.dataclass(frozen=True)
class Chart:
    """The content of the figure. accuracy: protocol and tasks of the mean."""

    length: int
    accuracy: str
    bubbles: tuple[BenchBubble, ...]


class NoChart(Exception):
    """The figure cannot be drawn; the message says what is missing."""


def chart(results: Results, found: Iterable[RecordFile[Record]]) -> Chart:
    """Return the bubbles at the longest length of softmax, with the accuracies of one table of the leaderboard.

    That table is the one in which most of these mixers have every column; ties go to the table with more columns.

    Raises:
      NoChart: softmax was not measured, or no mixer has speed, memory and accuracy.
    """
    measured = [c for c in results.cells if c.mixer == REFERENCE and training_speed(c)]
    if not measured:
        raise NoChart(f"No chart: its speeds are relative to {REFERENCE}, which was not measured.")
    reference = max(measured, key=lambda c: c.length)
    cells = {c.mixer: c for c in results.cells if c.length == reference.length and c.peak_bytes}
    tables = [t for t in leaderboard.board(found).tables if t.track == "matched" and t.columns]
    scored = [(t, means) for t in tables if (means := complete_rows(t, cells))]
    if not scored:
        raise NoChart("No chart: no record gives an accuracy of these mixers; `run_lra.py suite` makes some.")
    table, means = max(scored, key=lambda s: (len(s[1]), len(s[0].columns)))
    bubbles = tuple(
        BenchBubble(mixer, speed / (training_speed(reference) or 1), 100 * mean, cells[mixer].peak_bytes or 0)
        for mixer, mean in means.items()
        if (speed := training_speed(cells[mixer]))
    )
    names = ", ".join(map(_column, table.columns))
    count = len(table.columns)
    mean_of = f"mean of {count} tasks" if count > 1 else "one task"
    return Chart(reference.length, f"{table.label}, {mean_of}: {names}", bubbles)


def complete_rows(table: Table, mixers: Iterable[str]) -> dict[str, float]:
    """Return the mean accuracy of the mixers that have one in every column; rows in `runs/` take precedence."""
    means: dict[str, float] = {}
    for row in table.rows:
        accuracies = [c.mean for c in row.cells if c is not None and c.mean is not None]
        if row.label in mixers and len(accuracies) == len(table.columns):
            means.setdefault(row.label, statistics.fmean(accuracies))
    return means


def _column(column: Column) -> str:
    card = card_of(column)
    title = card.title if card else column.task
    return f"{title} (sample)" if column.source.startswith(SAMPLE) else title


def draw(chart: Chart, results: Results, path: Path) -> None:
    """Write the figure as PNG. A legend names the mixers, fastest first."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(11, 7), dpi=120, layout="constrained")
    largest = max(b.peak_bytes for b in chart.bubbles)
    handles: list[Any] = []
    for n, b in enumerate(sorted(chart.bubbles, key=lambda b: b.speed, reverse=True)):
        colour = plt.get_cmap("tab20")((2 * n + n // 10) % 20)
        style: dict[str, Any] = {"color": {"cosformer": "crimson", REFERENCE: "black"}.get(b.mixer, colour)}
        style |= {"alpha": 0.65, "edgecolors": "white", "linewidths": 0.8}
        share = b.peak_bytes / largest
        axis.scatter(b.speed, b.accuracy, LARGEST * share, zorder=3 - share, **style)  # small ones over large ones
        handles.append(axis.scatter([], [], 60, label=b.mixer, **style))
    axis.set(xscale="log", xlabel=f"training speed at {chart.length:,} tokens, relative to {REFERENCE}")
    axis.set_ylabel("mean test accuracy, per cent")
    axis.margins(x=0.15, y=0.15)
    low, high = axis.get_xlim()
    axis.set_xticks(ticks := [t for t in TICKS if low < t < high], [f"{t:g}x" for t in ticks])
    axis.minorticks_off()
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    axis.set_title(f"Accuracy: {chart.accuracy}\nSpeed: {heading(results)}", fontsize=9, loc="left")
    axis.add_artist(axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9))
    sizes = [
        axis.scatter([], [], LARGEST * share, color="0.8", label=f"{bytes_text(round(largest * share))} peak memory")
        for share in (1, 0.25)
    ]
    spacing: dict[str, Any] = {"labelspacing": 4, "borderpad": 3, "handletextpad": 3, "fontsize": 9}
    axis.legend(handles=sizes, loc="lower left", bbox_to_anchor=(1, 0), frameon=False, **spacing)
    figure.savefig(path)
    plt.close(figure)
