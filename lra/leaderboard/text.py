"""The words, numbers and marks that all formats of a leaderboard share.

Whatever a record brings along is text and nothing else: it has no control characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lra.leaderboard.comparison import Comparison, Verdict
from lra.leaderboard.types import Board, Column, Cost, LeaderboardCell, Row, Table, Truncated
from lra.record.files import Origin
from tasks import available, load_task
from tasks.core import Card

FIRST_RUN = "python run_lra.py train --task listops --mixer cosformer --protocol quick"
ORIGINS: tuple[Origin, ...] = ("yours", "committed")
STOPPED = "Stopped before the last step; not comparable with a complete run"
COST = "Parameters and minutes of a run"
MEAN = "5-task mean"
NONE = "–"
CHANCE, ONE_CLASS, BELOW, MIXED = "≈", "≡", "▽", "†"
STANDING: Mapping[Verdict, str] = {
    "best": "",
    "not significantly different": "=",
    "significantly worse": "<",
    "not compared": "?",
}
PARAMETER_SLACK = 0.1  # Tay et al. (2021), section 3.2
BLOCK_MARK = "[block]"  # as `models.mixers.label` writes it
COMPARISON = (
    "Compared with the best row of several seeds in its column and origin (paired t test over common seeds, 95 %, "
    "corrected for the number of rows)"
)
MEANING: Mapping[Verdict, str] = {
    "not significantly different": "not significantly different",
    "significantly worse": "significantly worse",
    "not compared": "not compared, for want of two common seeds or of the same test examples",
}


def clean(value: object) -> str:
    """Return one line without control or formatting characters."""
    return "".join(c if c.isprintable() else " " for c in str(value))


def percent(accuracy: float | None) -> str:
    return NONE if accuracy is None else f"{100 * accuracy:.1f}"


def cell_text(cell: LeaderboardCell | None) -> str:
    """Return a cell as `36.5±0.5 (3)` with its marks; `legend` explains them."""
    if cell is None:
        return NONE
    if cell.mean is None:
        return "diverged" if len(cell.diverged) == 1 else f"{len(cell.diverged)} diverged"
    text = percent(cell.mean)
    if cell.deviation is not None:
        text += f"±{100 * cell.deviation:.1f}"
    notes = ", ".join(cell_notes(cell))
    return text + (f" ({notes})" if notes else "") + "".join(cell_marks(cell))


def cell_notes(cell: LeaderboardCell) -> list[str]:
    """Return what stands in parentheses behind an accuracy: seeds, how many are at chance, how many diverged."""
    count, constant = len(cell.seeds), sum(cell.one_class)
    only_chance = sum(cell.at_chance) - constant
    if cell.other_seeds:
        notes = [f"seed{'s' * (count > 1)} {numbers_text(cell.seeds)}"]
    else:
        notes = [str(count)] if count > 1 else []
    notes += [f"{only_chance}{CHANCE}"] if 0 < only_chance < count - constant else []
    notes += [f"{constant}{ONE_CLASS}"] if 0 < constant < count else []
    return notes + ([f"{len(cell.diverged)} diverged"] if cell.diverged else [])


def cell_marks(cell: LeaderboardCell) -> list[str]:
    """Return the marks behind an accuracy. The best row of a column has no mark of the comparison."""
    if not cell.accuracies:
        return []
    marks = [chance_mark(all(cell.at_chance), all(cell.one_class)), BELOW * cell.below_baseline]
    marks += [standing_mark(cell.comparison), MIXED * (cell.mixed_code or cell.mixed_hardware)]
    return [mark for mark in marks if mark]


def chance_mark(at_chance: bool, one_class: bool) -> str:
    """Return the mark of an accuracy at chance, or of a model that predicts one class, which is always at chance."""
    return ONE_CLASS if one_class else CHANCE * at_chance


def standing_mark(comparison: Comparison) -> str:
    """Return the mark of a comparison; none where the cell shows by itself that it has one seed or no result."""
    return "" if comparison.reason in ("one seed", "no result") else STANDING[comparison.verdict]


def numbers_text(numbers: Iterable[int]) -> str:
    """Return `1, 4, 7-9` for whole numbers in order."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    parts = [[f"{run[0]}-{run[-1]}"] if len(run) > 2 else list(map(str, run)) for run in runs]
    return ", ".join(text for part in parts for text in part)


def cost_texts(cost: Cost) -> list[str]:
    """Return parameters and minutes, `95k · 12`; `340k (3.6x) · 12` where softmax's parameters are over 10 % away."""
    return [_cost_text(*pair) for pair in zip(cost.cells, cost.ratios, strict=True)]


def _cost_text(cost: tuple[int, float] | None, ratio: float | None) -> str:
    if cost is None:
        return NONE
    parameters, minutes = cost
    size = f"{parameters / 1e6:.1f}M" if parameters >= 999_500 else f"{parameters / 1e3:.0f}k"
    unlike = f" ({ratio:.2g}x)" if ratio is not None and abs(ratio - 1) > PARAMETER_SLACK else ""
    return f"{size}{unlike} · {minutes_text(minutes)}"


def minutes_text(minutes: float) -> str:
    return f"{minutes:,.0f}" if minutes >= 9.95 else f"{minutes:.1f}"


def stopped_texts(run: Truncated) -> tuple[str, ...]:
    """Return seed, steps, accuracy, chance and minutes."""
    accuracy = percent(run.accuracy) + chance_mark(run.at_chance, run.one_class)
    steps = f"{run.steps_done:,} of {run.steps_planned:,}"
    return str(run.seed), steps, accuracy, percent(run.chance), minutes_text(run.minutes)


def heading(column: Column, beside: Sequence[Column] = ()) -> tuple[str, str, str]:
    """Return title, variant and source of a column, with its data hash where another one would read the same."""
    same = [c for c in beside if (c.task, c.variant, c.source) == (column.task, column.variant, column.source)]
    exact = f", data {column.data_sha256[:8]}" if len(same) > 1 else ""
    card = card_of(column)
    return clean(card.title if card else column.task), clean(column.variant), clean(column.source + exact)


def card_of(column: Column) -> Card | None:
    return load_task(column.task).CARD if column.task in available() else None


def machines(board: Board) -> dict[str, str]:
    """Return a letter for each hardware, if there are several; nothing for a single one."""
    names = {c.hardware for t in board.tables for c in t.costs} | {
        s.hardware for t in board.tables for s in t.truncated
    }
    letters = [chr(ord("A") + i) if i < 26 else str(i + 1) for i in range(len(names))]
    return dict(zip(sorted(names), letters if len(names) > 1 else [""], strict=False))


def legend(board: Board) -> list[str]:
    """Return sentences on the marks that occur, and on nothing else, and on the hardware."""
    rows = [r for t in board.tables for r in t.rows]
    sentences = mark_sentences(rows, [s for t in board.tables for s in t.truncated])
    if any("x)" in text for t in board.tables for c in t.costs for text in cost_texts(c)):
        sentences.append("(3.6x): times softmax's parameters, where that is more than LRA's 10 % away.")
    if any(label.endswith(BLOCK_MARK) for t in board.tables for label in _labels(t)):
        sentences.append(f"{BLOCK_MARK}: replaces the whole block, not attention alone.")
    if any(c.copy for t in board.tables for c in (*t.columns, *(s.column for s in t.truncated))):
        sentences.append("copy: a data set with other numbers of examples than LRA's; no part of a 5-task mean.")
    if any(r.mean is not None for t in board.tables for r in t.rows):
        sentences.append(f"{MEAN}: only where all five tasks are there.")
    return sentences + [f"{f'Hardware {letter}'.strip()}: {clean(name)}." for name, letter in machines(board).items()]


def mark_sentences(rows: Sequence[Row], stopped: Sequence[Truncated] = ()) -> list[str]:
    """Return sentences on the numbers and marks of the cells of rows, and of stopped runs."""
    cells = [c for r in rows for c in r.cells if c]
    marks = {mark for c in cells for mark in cell_marks(c)} | {chance_mark(s.at_chance, s.one_class) for s in stopped}
    notes = " ".join(note for c in cells for note in cell_notes(c))
    sentences = ["Test accuracy in per cent."]
    if any(len(c.accuracies) > 1 for c in cells):
        sentences.append("36.5±0.5 (3): mean, standard deviation and number of seeds.")
        if any(c.comparison.reason == "one seed" for c in cells):
            sentences.append("A number without a deviation is one seed, which is not compared with other rows.")
    elif cells:
        sentences.append("Every number is one seed, so rows are not compared with each other.")
    if any(c.other_seeds for c in cells):
        sentences.append("(seeds 1, 4): the seeds, where they are not the first ones, from 0.")
    if CHANCE in marks or CHANCE in notes:
        sentences.append(
            f"{CHANCE}: at chance: at most two standard errors above the share of the largest class of the test labels."
        )
    if ONE_CLASS in marks or ONE_CLASS in notes:
        sentences.append(f"{ONE_CLASS}: the model predicts the same class for every test example, so it is at chance.")
    if BELOW in marks:
        sentences.append(f"{BELOW}: not above the best trivial baseline of its column, which has no sequence model.")
    if meanings := [f"{STANDING[v]} {meaning}" for v, meaning in MEANING.items() if STANDING[v] in marks]:
        sentences.append(f"{COMPARISON}: {'; '.join(meanings)}.")
    if MIXED in marks:
        sentences.append(f"{MIXED}: the seeds were run with different code or on different hardware.")
    if any(c.diverged for c in cells):
        sentences.append("diverged: the loss of a seed was no longer finite, so it has no accuracy.")
    return sentences


def retired_line(board: Board) -> str:
    """Return what a board says of records of earlier versions; "" if there are none."""
    if not (count := len(board.retired)):
        return ""
    places = {"committed": "results/", "yours": "runs/"}
    where = " and ".join(places[origin] for origin in places if any(f.origin == origin for f in board.retired))
    one = count == 1
    subject = "1 record of an earlier version is" if one else f"{count:,} records of earlier versions are"
    return f"{subject} not shown; {'it is' if one else 'they are'} in {where}, see docs/versions.md."


def _labels(t: Table) -> set[str]:
    return {r.label for r in t.rows} | {s.label for s in t.truncated}


def nothing(board: Board) -> str:
    """Return what an empty board says before the command of a first run."""
    if board.others:
        return f"No results of this protocol; there are some of {clean(', '.join(board.others))}. The first ones:"
    return "No results yet. The first ones, in a few minutes:"
