"""A leaderboard as Markdown. Texts of records are never markup."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from lra.leaderboard.legend import legend
from lra.leaderboard.table import BASELINE, FormattedTable, machines, tables
from lra.leaderboard.text import FIRST_RUN, card_of, clean, heading, nothing, percent, retired_line, table_headings
from lra.leaderboard.types import Board, Column
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
    for t, title in zip(board.tables, table_headings(board.tables), strict=True):
        lines += [f"### {md(title)}", ""]
        if t.about:
            lines += [f"{t.about[0].upper()}{t.about[1:]}.", ""]
        lines += [line for table in tables(t, letters) for line in _table(table)]
    columns = dict.fromkeys(c for t in board.tables for c in (*t.columns, *(s.column for s in t.truncated)))
    return "\n".join([*lines, "### The columns", "", *(f"- {_md_column(c)}" for c in columns), *last])


def _table(table: FormattedTable) -> list[str]:
    """Return a table. Those without a title have the sources of their columns in the last row."""
    rows = []
    for row in table.rows:
        name = md(row.name) + (f" <sub>on {row.hardware}</sub>" if row.hardware else "")
        name += "".join(f"<br><sub>{md(change)}</sub>" for change in row.changes)
        first = [f"*{name}*", f"*{BASELINE}*"] if row.origin == BASELINE else [name, row.origin]
        rows.append([*first, *map(md, row.texts), *(md(cell.text) for cell in row.cells)])
    if not table.title:
        sources = [f"<sub>{md(source)}</sub>" if source else "" for *_, source in table.heads]
        rows.append(["<sub>source</sub>", "", *sources])
    heads = [f"{md(title)}<br>{md(variant)}" if variant else md(title) for title, variant, _ in table.heads]
    grid = md_grid(["mixer", "from", *table.text_heads, *heads], rows, left=2 + len(table.text_heads))
    return [f"**{table.title}**", "", *grid] if table.title else grid


def md(value: object) -> str:
    """Return text inside a cell: neither HTML, nor Markdown, nor the end of the cell."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(clean(value), quote=False))


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
