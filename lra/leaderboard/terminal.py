"""A leaderboard for the terminal. Texts of records are `Text`, never markup."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from textwrap import fill

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from lra.leaderboard.legend import legend
from lra.leaderboard.table import (
    BASELINE,
    MEAN,
    ORIGINS,
    FormattedCell,
    FormattedRow,
    FormattedTable,
    machines,
    tables,
)
from lra.leaderboard.text import FIRST_RUN, clean, nothing, retired_line, table_headings
from lra.leaderboard.types import Board
from lra.plain_table import plain_table

GAP = 2  # between columns
WIDTH, MEAN_WIDTH = 13, 6  # of heads above a number like 36.5±0.5 (3), and like 36.5


def as_table(board: Board) -> RenderableType:
    """Return the board for `rich.print`."""
    last = [Text(retired_line(board), "dim")] if board.retired else []
    if not board.tables:
        return Group(Text(nothing(board)), Text(f"  {FIRST_RUN}", "bold"), *last)
    letters = machines(board)
    parts: list[RenderableType] = []
    for t, title in zip(board.tables, table_headings(board.tables), strict=True):
        parts.append(Text.assemble((title, "bold"), "  ", (clean(t.about), "dim")))
        for table in tables(t, letters):
            parts += [*[Text(table.title, "dim")] * bool(table.title), Grid(table), Text()]
    return Group(*parts, *(Text(sentence, "dim") for sentence in legend(board)), *last)


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table with a section for each origin. Columns that do not fit beside each other continue below."""

    table: FormattedTable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        heads = [_head(*head) for head in self.table.heads]
        columns = [_aligned([row.cells[i] for row in self.table.rows]) for i in range(len(heads))]
        widths = [
            GAP + max(*(len(line) for text in head for line in text.plain.split("\n")), *map(len, column))
            for head, column in zip(heads, columns, strict=True)
        ]
        names = GAP + max((len(line) for row in self.table.rows for line in _name(row).plain.split("\n")), default=0)
        texts = GAP + max((len(text) for row in self.table.rows for text in row.texts), default=-GAP)
        first = 0
        while first < len(heads):
            last, room = first + 1, options.max_width - names - texts - widths[first]
            while last < len(heads) and widths[last] <= room:
                room -= widths[last]
                last += 1
            if first:
                yield Text()
            yield self._block(heads[first:last], columns[first:last], widths[first:last])
            first = last

    def _block(
        self, heads: Sequence[tuple[Text, Text]], columns: Sequence[Sequence[str]], widths: Sequence[int]
    ) -> Table:
        """Return the table with some of its columns. Without a title it has the sources below the columns."""
        grid = plain_table(show_footer=not self.table.title)
        grid.add_column("mixer", Text(" source", "dim"), overflow="fold")
        if self.table.text_heads:
            grid.add_column(self.table.text_heads[0])
        for (head, footer), width in zip(heads, widths, strict=True):
            grid.add_column(head, footer, justify="right", min_width=width - GAP, overflow="fold")
        for origin in (*ORIGINS, BASELINE):
            rows = [(i, row) for i, row in enumerate(self.table.rows) if row.origin == origin]
            if rows:
                grid.add_row(Text("trivial baselines" if origin == BASELINE else origin, "cyan"))
            style = "dim" if origin == BASELINE else ""
            for i, row in rows:
                first, *others = row.texts or ("",)
                texts = [Text(first).append("".join(f"\n{text}" for text in others), "dim")] * bool(row.texts)
                cells = (
                    Text(f"{column[i]:>{width - GAP}}", style, justify="left")
                    for column, width in zip(columns, widths, strict=True)
                )
                grid.add_row(_name(row), *texts, *cells)
        return grid


def _head(title: str, variant: str, source: str) -> tuple[Text, Text]:
    """Return the head and the footer of a column."""
    head = Text(fill(title, MEAN_WIDTH if title == MEAN else WIDTH), justify="right")
    head.append(f"\n{fill(variant, WIDTH)}" if variant else "", "dim")
    return head, Text(fill(source, WIDTH), "dim", justify="right")


def _aligned(cells: Sequence[FormattedCell]) -> list[str]:
    """Return the texts of a column, padded so that numbers are below each other whatever follows them."""
    numbers = max((len(cell.number) for cell in cells), default=0)
    suffixes = max((len(cell.suffix) for cell in cells), default=0)
    return [f"{cell.number:>{numbers}}{cell.suffix:<{suffixes}}" for cell in cells]


def _name(row: FormattedRow) -> Text:
    text = Text(f" {row.name}").append(f" on {row.hardware}" if row.hardware else "", "dim")
    return text.append("".join(f"\n   {change}" for change in row.changes), "dim")
