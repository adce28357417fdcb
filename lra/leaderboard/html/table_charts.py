"""The charts of a table on the page: intervals, accuracy against speed, and learning curves."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

from lra.leaderboard.html.charts import Bubbles, Curves, bubbles, curves
from lra.leaderboard.html.run_page import interval_text
from lra.leaderboard.table import cell
from lra.leaderboard.text import clean, heading, percent
from lra.leaderboard.types import Table
from lra.record.facts import column_key
from lra.record.schema import RunRecord

HIGHLIGHTED = {"cosformer": "first", "softmax": "second"}  # classes of page.css; other mixers are grey
MIN_MIXERS = 3  # of the chart of speeds


@dataclasses.dataclass(frozen=True)
class Mark:
    """A row in a chart of intervals. Positions are in per cent of its width."""

    name: str
    changed: bool
    kind: str
    at: float
    low: float
    high: float
    tooltip: str


@dataclasses.dataclass(frozen=True)
class Intervals:
    title: str
    low: float
    high: float
    baseline: float  # the best trivial baseline
    baseline_text: str
    marks: tuple[Mark, ...]


def intervals(t: Table, n: int) -> Intervals | None:
    """Return one column's rows with their intervals, highest first, and the best trivial baseline as a line."""
    known = [
        (r, c, c.mean, c.interval)
        for r in t.rows
        if (c := r.cells[n]) is not None and c.mean is not None and c.interval
    ]
    if not known:
        return None
    baseline, name = max(((b.accuracies[n] or 0.0, b.name) for b in t.baselines), default=(0.0, ""))
    ends = [end for *_, interval in known for end in interval] + [baseline]
    low, high = max(0.0, min(ends) - 0.02), min(1.0, max(ends) + 0.02)

    def position(value: float) -> float:
        return 100 * (value - low) / (high - low)

    marks = []
    for r, c, mean, interval in sorted(known, key=lambda row: -row[2]):
        tooltip = f"{clean(r.label)}: {cell(c).text}, {interval_text(interval)}"
        left, right = map(position, interval)
        marks.append(Mark(clean(r.label), bool(r.changes), _kind(r.label), position(mean), left, right, tooltip))
    text = f"{clean(name)} {percent(baseline)}"
    return Intervals(heading(t.columns[n], t.beside)[0], low, high, position(baseline), text, tuple(marks))


def speed(t: Table, records: Sequence[RunRecord]) -> tuple[Bubbles | None, str]:
    """Draw accuracy against speed on the hardware on which most mixers ran every task.

    Runs whose memory was measured in another way are not mixed.

    Returns:
      The chart, and what it shows or why it is not drawn.
    """
    finished = [r for r in records if r.status == "complete" and r.steps_per_second and r.peak_bytes]
    of_steps = [r for r in finished if not r.has_process_memory]
    points: dict[str, list[tuple[str, str, float, float, float, str]]] = {}
    for machine in sorted({r.environment.hardware for r in finished}):
        points[machine] = []
        for row in t.rows:
            runs = [r for r in of_steps or finished if (r.mixer.label, r.environment.hardware) == (row.label, machine)]
            speeds = [[r.steps_per_second or 0.0 for r in runs if column_key(r) == c.key] for c in t.columns]
            means = [c.mean for c in row.cells if c and c.mean is not None]
            if len(means) == len(t.columns) and all(speeds) and not row.changes:
                rate, mean = statistics.geometric_mean(map(statistics.fmean, speeds)), 100 * statistics.fmean(means)
                peak = float(max(r.peak_bytes or 0 for r in runs))
                text = f"{clean(row.label)}: {mean:.1f} %, {rate:.2g} steps/s, {peak / 2**20:,.0f} MiB"
                points[machine].append((clean(row.label), _kind(row.label), rate, mean, peak, text))
    machine = max(points, key=lambda name: len(points[name]), default="")
    drawn = points.get(machine, [])
    if len(drawn) < MIN_MIXERS:
        return None, (
            f"Accuracy against speed is not drawn: it needs {MIN_MIXERS} mixers that ran every task on the same "
            f"hardware, and there {'is' if len(drawn) == 1 else 'are'} {len(drawn) or 'none'}."
        )
    missing = dict.fromkeys(name for row in t.rows if (name := clean(row.label)) not in {p[0] for p in drawn})
    tasks = ", ".join(heading(c)[0] for c in t.columns)
    memory = "training steps, without the interpreter and the compiler"
    memory = memory if of_steps else "the whole process, interpreter and compiler included"
    about = f"Mean accuracy of {tasks} against training speed on {clean(machine)}. "
    about += f"The area is the peak memory of {memory}."
    about += f" Not every task was run there by {', '.join(missing)}." if missing else ""
    return bubbles(drawn, "training steps per second", "mean accuracy, %"), about


def learning_curves(t: Table, all_records: Sequence[RunRecord]) -> list[Curves]:
    """For each column the validation accuracy of every run, the training accuracy where the task has no validation."""
    charts = []
    for column in dict.fromkeys((*t.columns, *(s.column for s in t.truncated))):
        records = [r for r in all_records if column_key(r) == column.key]
        split = "validation" if any(r.validation for r in records) else "training"
        series = [
            (
                clean(r.mixer.label),
                _kind(r.mixer.label),
                f"{clean(r.mixer.label)}, seed {r.seed}",
                [(p[0], 100 * p[2]) for p in (r.curve if split == "training" else r.validation)],
            )
            for r in sorted(records, key=lambda r: _kind(r.mixer.label) != "other")
        ]
        if chart := curves(heading(column)[0], series, f"{split} accuracy, %"):
            charts.append(chart)
    return charts


def _kind(label: str) -> str:
    return HIGHLIGHTED.get(label.split("(")[0], "other")
