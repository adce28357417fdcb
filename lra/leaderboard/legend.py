"""Sentences that explain the numbers and marks of a leaderboard: those that occur, and no others."""

from __future__ import annotations

from collections.abc import Sequence

from lra.leaderboard.table import (
    BELOW,
    CHANCE,
    COST,
    MEAN,
    MIXED,
    NEAR_SHARE,
    ONE_CLASS,
    STANDING,
    FormattedCell,
    machines,
    tables,
)
from lra.leaderboard.text import clean
from lra.leaderboard.types import Board

BLOCK_MARK = "[block]"  # as `models.mixers.label` writes it
MARKS = {
    CHANCE: "at chance: at most two standard errors above the share of the largest class of the test labels.",
    ONE_CLASS: "the model predicts the same class for every test example, so it is at chance.",
    BELOW: "not above the best trivial baseline of its column, which has no sequence model.",
}
COMPARISON = (
    "Compared with the best row of several seeds in its column and origin (paired t test over common seeds, 95 %, "
    "corrected for the number of rows)"
)
VERDICTS = {
    STANDING["not significantly different"]: "not significantly different",
    STANDING["significantly worse"]: "significantly worse",
    STANDING["not compared"]: "not compared, for want of two common seeds or of the same test examples",
}


def legend(board: Board) -> list[str]:
    """Return sentences on the marks, and on the hardware."""
    letters = machines(board)
    formatted = [table for t in board.tables for table in tables(t, letters)]
    rows = [(table.title, row) for table in formatted for row in table.rows]
    sentences = mark_sentences([cell for title, row in rows if title != COST for cell in row.cells])
    if any("x)" in cell.text for title, row in rows if title == COST for cell in row.cells):
        sentences.append("(3.6x): times softmax's parameters, where that is more than LRA's 10 % away.")
    if any(row.name.endswith(BLOCK_MARK) for _, row in rows):
        sentences.append(f"{BLOCK_MARK}: replaces the whole block, not attention alone.")
    if any(row.name == NEAR_SHARE for _, row in rows):
        sentences.append(f"{NEAR_SHARE}: a convolution of which each layer sees 61 positions, compared with that row.")
    if any(c.copy for t in board.tables for c in (*t.columns, *(s.column for s in t.truncated))):
        sentences.append("copy: a data set with other numbers of examples than LRA's; no part of a 5-task mean.")
    if any(head[0] == MEAN for table in formatted for head in table.heads):
        sentences.append(f"{MEAN}: only where all five tasks are there.")
    return sentences + [f"{f'Hardware {letter}'.strip()}: {clean(name)}." for name, letter in letters.items()]


def mark_sentences(formatted: Sequence[FormattedCell]) -> list[str]:
    """Return sentences on the numbers and marks of cells."""
    cells = [c.cell for c in formatted if c.cell]
    shown = "".join(text for c in formatted for text in (*c.notes, *c.marks))
    sentences = ["Test accuracy in per cent."]
    if any(len(c.accuracies) > 1 for c in cells):
        sentences.append("36.5±0.5 (3): mean, standard deviation and number of seeds.")
        if any(c.comparison.reason == "one seed" for c in cells):
            sentences.append("A number without a deviation is one seed, which is not compared with other rows.")
    elif cells:
        sentences.append("Every number is one seed, so rows are not compared with each other.")
    if any(c.other_seeds for c in cells):
        sentences.append("(seeds 1, 4): the seeds, where they are not the first ones, from 0.")
    sentences += [f"{mark}: {meaning}" for mark, meaning in MARKS.items() if mark in shown]
    if verdicts := [f"{mark} {meaning}" for mark, meaning in VERDICTS.items() if mark in shown]:
        sentences.append(f"{COMPARISON}: {'; '.join(verdicts)}.")
    if MIXED in shown:
        sentences.append(f"{MIXED}: the seeds were run with different code or on different hardware.")
    if any(c.diverged for c in cells):
        sentences.append("diverged: the loss of a seed was no longer finite, so it has no accuracy.")
    return sentences
