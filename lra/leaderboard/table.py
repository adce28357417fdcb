"""The tables of a leaderboard as text. Terminal, Markdown, LaTeX and HTML only lay them out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from lra.leaderboard.comparison import Comparison, Verdict
from lra.leaderboard.text import NONE, clean, heading, numbers_text, percent
from lra.leaderboard.types import Board, LeaderboardCell, Table

CHANCE, ONE_CLASS, BELOW, MIXED = "≈", "≡", "▽", "†"
STANDING: Mapping[Verdict, str] = {
    "best": "",
    "not significantly different": "=",
    "significantly worse": "<",
    "not compared": "?",
}
PARAMETER_SLACK = 0.1  # Tay et al. (2021), section 3.2
STOPPED = "Stopped before the last step; not comparable with a complete run"
COST = "Parameters and minutes of a run"
MEAN = "5-task mean"
ORIGINS = ("yours", "committed")
BASELINE = "baseline"  # in place of the origin of a row
NEAR = "conv"  # the mixer that sees near positions only
NEAR_SHARE = f"{NEAR}, % of the best other row"


@dataclasses.dataclass(frozen=True)
class FormattedCell:
    """A cell in parts.

    Attributes:
      number: an accuracy in per cent, or a text in place of one
      deviation: of several seeds
      notes: in parentheses: seeds, how many are at chance, how many diverged
      marks: the legend explains them
      value: by which cells are sorted
    """

    number: str
    deviation: str = ""
    notes: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    value: float | None = None
    cell: LeaderboardCell | None = None

    @property
    def text(self) -> str:
        """The cell in one line, as `36.5±0.5 (3)<`."""
        return self.number + self.suffix

    @property
    def suffix(self) -> str:
        """What follows the number."""
        spread = f"±{self.deviation}" if self.deviation else ""
        return spread + (f" ({', '.join(self.notes)})" if self.notes else "") + "".join(self.marks)


@dataclasses.dataclass(frozen=True)
class FormattedRow:
    """A row. origin: `yours`, `committed` or `baseline`; hardware: its letter in the legend; texts: after the name."""

    origin: str
    name: str
    changes: tuple[str, ...]
    cells: tuple[FormattedCell, ...]
    hardware: str = ""
    texts: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class FormattedTable:
    """Rows below heads of (title, variant, source). text_heads: of the texts of each row."""

    title: str
    heads: tuple[tuple[str, str, str], ...]
    rows: tuple[FormattedRow, ...]
    text_heads: tuple[str, ...] = ()


def scores(t: Table) -> FormattedTable:
    """Return accuracies; the last column is the mean over the five tasks if a row has one."""
    mean = any(r.mean is not None for r in t.rows)
    rows = [
        FormattedRow(r.origin, clean(r.label), _changes(r.changes), (*map(cell, r.cells), *[accuracy(r.mean)] * mean))
        for r in t.rows
    ]
    rows += [
        FormattedRow(BASELINE, clean(b.name), (), (*map(accuracy, b.accuracies), *[accuracy(b.mean)] * mean))
        for b in (t.baselines if t.rows else ())
    ]
    shares = _near_shares(t)
    if any(share is not None for share in shares):
        cells = tuple(FormattedCell(NONE if s is None else f"{100 * s:.0f}", value=s) for s in shares)
        rows.append(FormattedRow(BASELINE, NEAR_SHARE, (), (*cells, *[FormattedCell(NONE)] * mean)))
    return FormattedTable("", (*_heads(t), *[(MEAN, "", "")] * mean), tuple(rows))


def _near_shares(t: Table) -> list[float | None]:
    """Return for each column the accuracy of `NEAR` divided by that of the best other row, where both exist."""
    shares: list[float | None] = []
    for i in range(len(t.columns)):
        means = [(r.label, c.mean) for r in t.rows if (c := r.cells[i]) is not None and c.mean is not None]
        near = [mean for label, mean in means if label == NEAR]
        others = (mean for label, mean in means if label != NEAR and not label.startswith(f"{NEAR}("))
        best = max(others, default=0.0)
        shares.append(near[0] / best if near and best else None)
    return shares


def stopped(t: Table, letters: Mapping[str, str]) -> FormattedTable:
    """Return the runs that were stopped."""
    rows = []
    for s in t.truncated:
        title, variant, source = heading(s.column)
        cells = (
            FormattedCell(str(s.seed)),
            FormattedCell(f"{s.steps_done:,} of {s.steps_planned:,}"),
            FormattedCell(percent(s.accuracy), marks=tuple(chance_mark(s.at_chance, s.one_class))),
            FormattedCell(percent(s.chance)),
            FormattedCell(_minutes_text(s.minutes)),
        )
        texts = (f"{title}, {variant}", source)
        rows.append(FormattedRow(s.origin, clean(s.label), _changes(s.changes), cells, letters[s.hardware], texts))
    heads = tuple((name, "", "") for name in ("seed", "steps", "accuracy", "chance", "minutes"))
    return FormattedTable(STOPPED, heads, tuple(rows), ("task", "source"))


def costs(t: Table, letters: Mapping[str, str]) -> FormattedTable:
    """Return parameters and minutes."""
    rows = []
    for c in t.costs:
        cells = tuple(FormattedCell(_cost_text(*pair)) for pair in zip(c.cells, c.ratios, strict=True))
        rows.append(FormattedRow(c.origin, clean(c.label), _changes(c.changes), cells, letters[c.hardware]))
    return FormattedTable(COST, _heads(t), tuple(rows))


def tables(t: Table, letters: Mapping[str, str]) -> list[FormattedTable]:
    """Return the tables of a protocol that have rows."""
    return [table for table in (scores(t), stopped(t, letters), costs(t, letters)) if table.rows]


def machines(board: Board) -> dict[str, str]:
    """Return a letter for each hardware, if there are several; "" for a single one."""
    names = {c.hardware for t in board.tables for c in t.costs} | {
        s.hardware for t in board.tables for s in t.truncated
    }
    letters = [chr(ord("A") + i) if i < 26 else str(i + 1) for i in range(len(names))]
    return dict(zip(sorted(names), letters if len(names) > 1 else [""], strict=False))


def accuracy(value: float | None) -> FormattedCell:
    return FormattedCell(percent(value), value=value)


def cell(c: LeaderboardCell | None) -> FormattedCell:
    """Return a cell with its notes and marks. The best row of a column has no mark of the comparison."""
    if c is None:
        return FormattedCell(NONE)
    if c.mean is None:
        return FormattedCell("diverged" if len(c.diverged) == 1 else f"{len(c.diverged)} diverged", cell=c)
    marks = (
        chance_mark(all(c.at_chance), all(c.one_class)),
        BELOW * c.below_baseline,
        _standing_mark(c.comparison),
        MIXED * (c.mixed_code or c.mixed_hardware),
    )
    deviation = "" if c.deviation is None else f"{100 * c.deviation:.1f}"
    return FormattedCell(percent(c.mean), deviation, _notes(c), tuple(filter(None, marks)), c.mean, c)


def _notes(c: LeaderboardCell) -> tuple[str, ...]:
    count, constant = len(c.seeds), sum(c.one_class)
    only_chance = sum(c.at_chance) - constant
    seeds = f"seed{'s' * (count > 1)} {numbers_text(c.seeds)}" if c.other_seeds else str(count) if count > 1 else ""
    notes = (
        seeds,
        f"{only_chance}{CHANCE}" if 0 < only_chance < count - constant else "",
        f"{constant}{ONE_CLASS}" if 0 < constant < count else "",
        f"{len(c.diverged)} diverged" if c.diverged else "",
    )
    return tuple(filter(None, notes))


def chance_mark(at_chance: bool, one_class: bool) -> str:
    """Return the mark of an accuracy at chance, or of a model that predicts one class, which is always at chance."""
    return ONE_CLASS if one_class else CHANCE * at_chance


def _standing_mark(comparison: Comparison) -> str:
    """Return the mark of a comparison; none where the cell shows by itself that it has one seed or no result."""
    return "" if comparison.reason in ("one seed", "no result") else STANDING[comparison.verdict]


def _cost_text(cost: tuple[int, float] | None, ratio: float | None) -> str:
    """Return parameters and minutes, `95k · 12`; `340k (3.6x) · 12` where softmax's parameters are over 10 % away."""
    if cost is None:
        return NONE
    parameters, minutes = cost
    size = f"{parameters / 1e6:.1f}M" if parameters >= 999_500 else f"{parameters / 1e3:.0f}k"
    unlike = f" ({ratio:.2g}x)" if ratio is not None and abs(ratio - 1) > PARAMETER_SLACK else ""
    return f"{size}{unlike} · {_minutes_text(minutes)}"


def _minutes_text(minutes: float) -> str:
    return f"{minutes:,.0f}" if minutes >= 9.95 else f"{minutes:.1f}"


def _heads(t: Table) -> tuple[tuple[str, str, str], ...]:
    return tuple(heading(c, t.beside) for c in t.columns)


def _changes(changes: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(clean, changes))
