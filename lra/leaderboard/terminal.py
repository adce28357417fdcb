"""A leaderboard as a table for the terminal. What comes from a record is `Text`, never markup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill
from typing import TypeVar

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from lra.leaderboard import text as say
from lra.leaderboard.types import Board, Cost, Row, Table, Truncated

WIDTH = 13  # of what stands above and below a number like 36.5±0.5 (3)

T = TypeVar("T", Row, Truncated, Cost)


def as_table(board: Board) -> RenderableType:
    """Return the board for `rich.print`."""
    last = [Text(say.retired_line(board), "dim")] if board.retired else []
    if not board.tables:
        return Group(Text(say.nothing(board)), Text(f"  {say.FIRST_RUN}", "bold"), *last)
    letters = say.machines(board)
    parts: list[RenderableType] = []
    for t in board.tables:
        parts.append(Text.assemble((say.clean(t.label), "bold"), "  ", (say.clean(t.about), "dim")))
        if t.rows:
            parts += [_scores(t), Text()]
        if t.truncated:
            parts += [Text(say.STOPPED, "dim"), _stopped(t.truncated, letters), Text()]
        if t.costs:
            parts += [Text(say.COST, "dim"), _costs(t, letters), Text()]
    return Group(*parts, *(Text(sentence, "dim") for sentence in say.legend(board)), *last)


def _scores(t: Table) -> Grid:
    mean = any(r.mean is not None for r in t.rows)
    grid = _grid(t, footer=True)
    if mean:
        grid.add_column(Text(fill(say.MEAN, 6), justify="right"), justify="right", overflow="fold")
    for title, rows in _by_origin(t.rows):
        grid.add_row(title)
        for r in rows:
            cells = [*map(say.cell_text, r.cells), *[say.percent(r.mean)] * mean]
            grid.add_row(_name(r.label, r.changes), *map(Text, cells))
    grid.add_row(_section("trivial baselines"))
    for b in t.baselines:
        values = [*map(say.percent, b.accuracies), *[say.percent(b.mean)] * mean]
        grid.add_row(_name(b.name), *(Text(v, "dim") for v in values))
    return grid


def _costs(t: Table, letters: Mapping[str, str]) -> Grid:
    grid = _grid(t, footer=False)
    for title, rows in _by_origin(t.costs):
        grid.add_row(title)
        for c in rows:
            grid.add_row(_name(c.label, c.changes, letters[c.hardware]), *map(Text, say.cost_texts(c)))
    return grid


def _stopped(runs: Sequence[Truncated], letters: Mapping[str, str]) -> Grid:
    grid = _plain()
    grid.add_column("task")
    for name in ("seed", "steps", "accuracy", "chance", "minutes"):
        grid.add_column(name, justify="right")
    for title, some in _by_origin(runs):
        grid.add_row(title)
        for s in some:
            task, variant, source = say.heading(s.column)
            text = Text(f"{task}, {variant}").append(f"\n{source}", "dim")
            grid.add_row(_name(s.label, s.changes, letters[s.hardware]), text, *map(Text, say.stopped_texts(s)))
    return grid


def _grid(table: Table, footer: bool) -> Grid:
    grid = _plain(Text(" source", "dim") if footer else "")
    grid.show_footer = footer
    for column in table.columns:
        title, variant, source = say.heading(column, table.beside)
        head = Text(fill(title, WIDTH), justify="right").append(f"\n{fill(variant, WIDTH)}", "dim")
        below = Text(fill(source, WIDTH), "dim", justify="right")
        grid.add_column(head, below, justify="right", overflow="fold")
    return grid


def _plain(footer: RenderableType = "") -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    grid.add_column("mixer", footer, overflow="fold")
    return grid


def _by_origin(rows: Sequence[T]) -> Iterator[tuple[Text, list[T]]]:
    for origin in say.ORIGINS:
        if some := [r for r in rows if r.origin == origin]:
            yield _section(origin), some


def _section(title: str) -> Text:
    return Text(title, "cyan")


def _name(label: str, changes: Sequence[str] = (), letter: str = "") -> Text:
    text = Text(f" {say.clean(label)}").append(f" on {letter}" if letter else "", "dim")
    return text.append("".join(f"\n   {say.clean(c)}" for c in changes), "dim")
