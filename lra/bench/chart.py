"""The figure of LRA's papers: accuracy against training speed, a bubble for each mixer, its area the peak memory."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
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
GAP = 4.0  # pixels about a label
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Bubble:
    """speed: times softmax's; accuracy: mean in per cent."""

    mixer: str
    speed: float
    accuracy: float
    peak_bytes: int


@dataclasses.dataclass(frozen=True)
class Chart:
    length: int
    accuracy: str  # what its mean is of
    bubbles: tuple[Bubble, ...]


class NoChart(Exception):
    """There is nothing to draw; the message says what is missing."""


def chart(results: Results, found: Iterable[RecordFile[Record]]) -> Chart:
    """The bubbles at the longest length at which softmax was measured, with the accuracies of one table of the board.

    That table is the one in which most of these mixers have every column; ties go to more columns.

    Raises:
      NoChart: no softmax here, or no mixer with speed, memory and accuracy.
    """
    here = [c for c in results.cells if c.mixer == REFERENCE and training_speed(c)]
    if not here:
        raise NoChart(f"No chart: its speeds are relative to {REFERENCE}, which was not measured.")
    base = max(here, key=lambda c: c.length)
    cells = {c.mixer: c for c in results.cells if c.length == base.length and c.peak_bytes}
    tables = [t for t in leaderboard.board(found).tables if t.track == "matched" and t.columns]
    scored = [(t, means) for t in tables if (means := complete_rows(t, cells))]
    if not scored:
        raise NoChart("No chart: no record gives an accuracy of these mixers; `run_lra.py suite` makes some.")
    table, means = max(scored, key=lambda s: (len(s[1]), len(s[0].columns)))
    bubbles = tuple(
        Bubble(mixer, speed / (training_speed(base) or 1), 100 * mean, cells[mixer].peak_bytes or 0)
        for mixer, mean in means.items()
        if (speed := training_speed(cells[mixer]))
    )
    return Chart(base.length, told(table), bubbles)


def complete_rows(table: Table, mixers: Iterable[str]) -> dict[str, float]:
    """Mean accuracy of those mixers that have one in every column; your own row before a committed one."""
    means: dict[str, float] = {}
    for row in table.rows:
        accuracies = [c.mean for c in row.cells if c is not None and c.mean is not None]
        if row.label in mixers and len(accuracies) == len(table.columns):
            means.setdefault(row.label, statistics.fmean(accuracies))
    return means


def told(table: Table) -> str:
    """`quick@1, mean of 2 tasks: ListOps, Text (sample)`."""
    names = ", ".join(map(_column, table.columns))
    count = len(table.columns)
    return f"{table.label}, {f'mean of {count} tasks' if count > 1 else 'one task'}: {names}"


def _column(column: Column) -> str:
    card = card_of(column)
    title = card.title if card else column.task
    return f"{title} (sample)" if column.source.startswith(SAMPLE) else title


# ---- drawing


def draw(chart: Chart, results: Results, path: Path) -> None:
    """Writes the figure as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(11, 7), dpi=120, layout="constrained")
    largest = max(b.peak_bytes for b in chart.bubbles)
    by_size = sorted(chart.bubbles, key=lambda b: b.peak_bytes, reverse=True)  # small ones over large ones
    for number, b in enumerate(by_size):
        colour = {"cosformer": "crimson", REFERENCE: "black"}.get(
            b.mixer, plt.get_cmap("tab20")((2 * number + number // 10) % 20)
        )
        area = LARGEST * b.peak_bytes / largest
        axis.scatter(b.speed, b.accuracy, area, color=colour, alpha=0.65, edgecolors="white", linewidths=0.8)
    axis.set(xscale="log", xlabel=f"training speed at {chart.length:,} tokens, times {REFERENCE}'s")
    axis.set_ylabel("mean test accuracy, per cent")
    axis.margins(x=0.22, y=0.15)
    low, high = axis.get_xlim()
    axis.set_xticks(inside := [t for t in TICKS if low < t < high], [f"{t:g}x" for t in inside])
    axis.minorticks_off()
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    axis.set_title(f"Accuracy: {chart.accuracy}\nSpeed: {heading(results)}", fontsize=9, loc="left")
    for share in (1, 0.25):
        area = LARGEST * share
        axis.scatter([], [], area, color="0.8", label=f"{bytes_text(round(largest * share))} peak memory")
    axis.legend(
        loc="upper left", bbox_to_anchor=(1, 1), frameon=False, labelspacing=4, borderpad=3, handletextpad=3, fontsize=9
    )
    figure.canvas.draw()
    figure.set_layout_engine("none")  # what follows is placed in pixels
    point = figure.dpi / 72
    centres = {b.mixer: tuple(axis.transData.transform((b.speed, b.accuracy))) for b in by_size}
    radii = {b.mixer: point * math.sqrt(LARGEST * b.peak_bytes / largest / math.pi) for b in by_size}
    styles: dict[str, dict[str, Any]] = {
        b.mixer: {"fontsize": 9, "weight": _weight(b.mixer), "ha": "center", "va": "center"} for b in by_size
    }
    sizes = {}
    for name, style in styles.items():
        text = figure.text(0, 0, name, **style)
        extent = text.get_window_extent()
        sizes[name] = (extent.width, extent.height)
        text.remove()
    for name, spot in arrange(centres, radii, sizes).items():
        arrow = {"arrowstyle": "-", "lw": 0.5, "color": "0.5", "shrinkA": 0, "shrinkB": 0}
        axis.annotate(
            name, centres[name], spot, xycoords="figure pixels", arrowprops=arrow, annotation_clip=False, **styles[name]
        )
    figure.savefig(path)
    plt.close(figure)


def _weight(mixer: str) -> str:
    return "bold" if mixer in ("cosformer", REFERENCE) else "normal"


def arrange(centres: Mapping[str, Point], radii: Mapping[str, float], sizes: Mapping[str, Point]) -> dict[str, Point]:
    """Centres of labels beside their bubbles: the nearest place that no other label and no bubble has.

    Args:
      centres, radii: of the bubbles
      sizes: width and height of each label
    """
    placed: dict[str, Point] = {}

    def free(name: str, spot: Point) -> bool:
        width, height = sizes[name]
        for other, (x, y) in placed.items():
            wide, high = (width + sizes[other][0]) / 2 + GAP, (height + sizes[other][1]) / 2
            if abs(spot[0] - x) < wide and abs(spot[1] - y) < high:
                return False
        for other, (x, y) in centres.items():
            aside, above = max(abs(spot[0] - x) - width / 2, 0), max(abs(spot[1] - y) - height / 2, 0)
            if math.hypot(aside, above) < radii[other]:
                return False
        return True

    for name, centre in centres.items():
        spots = list(_around(centre, radii[name], *sizes[name]))
        placed[name] = next((spot for spot in spots if free(name, spot)), spots[-1])
    return placed


def _around(centre: Point, radius: float, width: float, height: float) -> Iterator[Point]:
    """Right, left, above and below the bubble, then between these; then the same farther away."""
    for step in range(20):
        for turn in (0, 8, 4, 12, 2, 6, 10, 14, 1, 3, 5, 7, 9, 11, 13, 15):
            angle, reach = math.pi * turn / 8, radius + GAP * (1 + 2 * step)
            yield (
                centre[0] + math.cos(angle) * (reach + width / 2),
                centre[1] + math.sin(angle) * (reach + height / 2),
            )
