"""A leaderboard for the terminal. Texts of records are `Text`, never markup."""

from __future__ import annotations

from textwrap import fill

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lra.leaderboard.legend import legend
from lra.leaderboard.table import BASELINE, MEAN, ORIGINS, FormattedRow, FormattedTable, machines, tables
from lra.leaderboard.text import FIRST_RUN, clean, nothing, retired_line
from lra.leaderboard.types import Board
from lra.plain_table import plain_table

WIDTH, MEAN_WIDTH = 13, 6  # of heads above a number like 36.5±0.5 (3), and like 36.5


def as_table(board: Board) -> RenderableType:
    """Return the board for `rich.print`."""
    last = [Text(retired_line(board), "dim")] if board.retired else []
    if not board.tables:
        return Group(Text(nothing(board)), Text(f"  {FIRST_RUN}", "bold"), *last)
    letters = machines(board)
    parts: list[RenderableType] = []
    for t in board.tables:
        parts.append(Text.assemble((clean(t.label), "bold"), "  ", (clean(t.about), "dim")))
        for table in tables(t, letters):
            parts += [*[Text(table.title, "dim")] * bool(table.title), _grid(table), Text()]
    return Group(*parts, *(Text(sentence, "dim") for sentence in legend(board)), *last)


def _grid(table: FormattedTable) -> Table:
    """Return a table with a section for each origin. Tables without a title have the sources below their columns."""
    grid = plain_table(show_footer=not table.title)
    grid.add_column("mixer", Text(" source", "dim"), overflow="fold")
    if table.text_heads:
        grid.add_column(table.text_heads[0])
    for title, variant, source in table.heads:
        head = Text(fill(title, MEAN_WIDTH if title == MEAN else WIDTH), justify="right")
        head.append(f"\n{fill(variant, WIDTH)}" if variant else "", "dim")
        footer = Text(fill(source, WIDTH), "dim", justify="right")
        grid.add_column(head, footer, justify="right", overflow="ellipsis" if table.text_heads else "fold")
    for origin in (*ORIGINS, BASELINE):
        if rows := [row for row in table.rows if row.origin == origin]:
            grid.add_row(Text("trivial baselines" if origin == BASELINE else origin, "cyan"))
            for row in rows:
                texts = (
                    [Text(row.texts[0]).append("".join(f"\n{text}" for text in row.texts[1:]), "dim")]
                    if row.texts
                    else []
                )
                style = "dim" if origin == BASELINE else ""
                grid.add_row(_name(row), *texts, *(Text(cell.text, style) for cell in row.cells))
    return grid


def _name(row: FormattedRow) -> Text:
    text = Text(f" {row.name}").append(f" on {row.hardware}" if row.hardware else "", "dim")
    return text.append("".join(f"\n   {change}" for change in row.changes), "dim")
