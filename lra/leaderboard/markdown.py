"""A leaderboard as Markdown. What a record brings along is text, never markup."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence

from lra.leaderboard.text import (
    COST,
    FIRST_RUN,
    MEAN,
    STOPPED,
    card_of,
    cell_text,
    clean,
    cost_texts,
    heading,
    legend,
    machines,
    nothing,
    percent,
    retired_line,
    stopped_texts,
)
from lra.leaderboard.types import Board, Column, Table
from tasks.core import base_variant


def as_markdown(board: Board) -> str:
    """Return the board as a chapter of a page, with a heading of the second level."""
    last = ["", md(retired_line(board))] if board.retired else []
    if not board.tables:
        return "\n".join(["## Leaderboard", "", md(nothing(board)), "", f"    {FIRST_RUN}", *last])
    letters = machines(board)
    origins = {
        "committed": "Rows from *committed* are records in `results/`.",
        "yours": "Rows from *yours* are runs of the machine that printed this, in `runs/`.",
    }
    origins_found = {f.origin for f in board.runs}
    intro = [md(sentence) for sentence in legend(board)] + [origins[o] for o in origins if o in origins_found]
    lines = ["## Leaderboard", "", " ".join(intro), ""]
    for t in board.tables:
        lines += [f"### {md(t.label)}", ""]
        if t.about:
            lines += [f"{t.about[0].upper()}{t.about[1:]}.", ""]
        lines += _md_table(t, letters)
    columns = dict.fromkeys(c for t in board.tables for c in (*t.columns, *(s.column for s in t.truncated)))
    return "\n".join([*lines, "### The columns", "", *(f"- {_md_column(c)}" for c in columns), *last])


def _md_table(t: Table, letters: Mapping[str, str]) -> list[str]:
    heads = [[md(text) for text in heading(c, t.beside)] for c in t.columns]
    titles = [f"{title}<br>{variant}" for title, variant, _ in heads]
    mean = any(r.mean is not None for r in t.rows)
    lines = []
    if t.rows:
        rows = [
            [_md_name(r.label, r.changes), r.origin, *(md(cell_text(c)) for c in r.cells), *[percent(r.mean)] * mean]
            for r in t.rows
        ]
        for b in t.baselines:
            rows.append([f"*{md(b.name)}*", "*baseline*", *map(percent, b.accuracies), *[percent(b.mean)] * mean])
        rows.append(["<sub>source</sub>", "", *(f"<sub>{source}</sub>" for *_, source in heads), *[""] * mean])
        lines += md_grid(["mixer", "from", *titles, *[MEAN] * mean], rows, left=2)
    if t.truncated:
        rows = []
        for s in t.truncated:
            title, variant, source = (md(text) for text in heading(s.column))
            name = _md_name(s.label, s.changes, letters[s.hardware])
            rows.append([name, s.origin, f"{title}, {variant}", source, *stopped_texts(s)])
        head = ["mixer", "from", "task", "source", "seed", "steps", "accuracy", "chance", "minutes"]
        lines += [f"**{STOPPED}**", "", *md_grid(head, rows, left=4)]
    if t.costs:
        rows = [[_md_name(c.label, c.changes, letters[c.hardware]), c.origin, *cost_texts(c)] for c in t.costs]
        lines += [f"**{COST}**", "", *md_grid(["mixer", "from", *titles], rows, left=2)]
    return lines


def md(value: object) -> str:
    """Return text inside a cell: neither HTML, nor Markdown, nor the end of the cell."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(clean(value), quote=False))


def _md_name(label: str, changes: Sequence[str], letter: str = "") -> str:
    hardware = f" <sub>on {letter}</sub>" if letter else ""
    return md(label) + hardware + "".join(f"<br><sub>{md(c)}</sub>" for c in changes)


def md_grid(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Return a table whose first `left` columns are text, and an empty line."""
    ruler = [":--"] * left + ["--:"] * (len(head) - left)
    return ["| " + " | ".join(row) + " |" for row in (head, ruler, *rows)] + [""]


def _md_column(column: Column) -> str:
    """Return what a column is, by its card."""
    title, variant, source = (md(text) for text in heading(column))
    text, card = f"**{title}, {variant}**", card_of(column)
    if card and column.variant in card.variants:
        text += f": {md(card.about.rstrip('.?'))}; {md(card.variants[column.variant].about)}"
    elif column.copy:
        text += f": a copy of `{md(base_variant(column.variant))}` whose splits have other sizes; no mean counts it"
    text += f". Data: {source}; SHA-256 `{md(column.data_sha256[:8])}`, task version {md(column.task_version)}"
    if column.examples is None or column.chance is None:
        return f"{text}."
    return f"{text}; {column.examples:,} test examples, {percent(column.chance)} % of them in the largest class."
