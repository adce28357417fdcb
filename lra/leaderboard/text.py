"""Texts that all formats of a leaderboard share. What comes from a record is one line without control characters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lra.leaderboard.types import Board, Column, Table
from tasks import available, load_task
from tasks.core import Card

FIRST_RUN = "python run_lra.py train --task listops --mixer cosformer --protocol quick"
NONE = "–"


def clean(value: object) -> str:
    """Return one line without control or formatting characters."""
    return "".join(c if c.isprintable() else " " for c in str(value))


def percent(accuracy: float | None) -> str:
    return NONE if accuracy is None else f"{100 * accuracy:.1f}"


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


def heading(column: Column, beside: Sequence[Column] = ()) -> tuple[str, str, str]:
    """Return title, variant and source of a column, with its data hash where another one would read the same."""
    same = [c for c in beside if (c.task, c.variant, c.source) == (column.task, column.variant, column.source)]
    exact = f", data {column.data_sha256[:8]}" if len(same) > 1 else ""
    card = card_of(column)
    return clean(card.title if card else column.task), clean(column.variant), clean(column.source + exact)


def table_headings(tables: Sequence[Table]) -> list[str]:
    """Return a heading for each table: its label, and its data where several tables have the same label."""
    headings: list[str] = []
    for t in tables:
        text = clean(t.label)
        if sum(other.label == t.label for other in tables) > 1:
            columns = (*t.columns, *(s.column for s in t.truncated))
            sources = dict.fromkeys(re.sub(" [0-9a-f]{8}$", "", heading(c)[2]) for c in columns)
            text += f", data: {' or '.join(sources)}"
            text += f" ({columns[0].data_sha256[:8]})" if text in headings else ""
        headings.append(text)
    return headings


def card_of(column: Column) -> Card | None:
    return load_task(column.task).CARD if column.task in available() else None


def retired_line(board: Board) -> str:
    """Return a sentence on the records of earlier versions; "" if there are none."""
    if not (count := len(board.retired)):
        return ""
    directories = {"committed": "results/", "yours": "runs/"}
    where = " and ".join(name for origin, name in directories.items() if any(f.origin == origin for f in board.retired))
    one = count == 1
    subject = "1 record of an earlier version is" if one else f"{count:,} records of earlier versions are"
    return f"{subject} not shown; {'it is' if one else 'they are'} in {where}, see docs/versions.md."


def nothing(board: Board) -> str:
    """Return what an empty board says before the command of a first run."""
    if board.others:
        return f"No results of this protocol; there are some of {clean(', '.join(board.others))}. The first ones:"
    return "No results yet. The first ones, in a few minutes:"
