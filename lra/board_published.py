"""What others have reported, beside what the records reproduce."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lra.board import Board, Table
from lra.board_markdown import md, md_grid
from lra.board_text import NONE
from lra.published import Accuracy, accuracy
from tasks import available, load_task

INTRODUCTION = (
    "As their sources print them, in per cent; each average by the rule that stands beside it. A figure is of its "
    "source's code, data and training: only where a protocol of this suite follows that source is it held against "
    "what was reproduced here, and never averaged with it."
)


@dataclasses.dataclass(frozen=True)
class Reproduced:
    """A reported figure, and the mean of the runs here under the protocol that follows its source; per cent."""

    source: str
    protocol: str
    task: str
    mixer: str
    reported: float
    reproduced: float
    seeds: int

    @property
    def difference(self) -> float:
        return self.reproduced - self.reported


def reproduced(board: Board, tables: Sequence[Accuracy] | None = None) -> list[Reproduced]:
    """Every figure that has complete runs of its protocol, unaltered, on the full official or generated task."""
    found = []
    for published in accuracy() if tables is None else tables:
        for table in board.tables:
            if table.protocol == published.protocol and table.track == "matched":
                found += _of(table, published)
    return found


def _of(table: Table, published: Accuracy) -> list[Reproduced]:
    found = []
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            figure = published.reported(row.label, column.task) if column.variant == "full" else None
            if figure is not None and cell is not None and cell.mean is not None:
                found.append(
                    Reproduced(
                        published.source,
                        table.label,
                        column.task,
                        row.label,
                        figure,
                        100 * cell.mean,
                        len(cell.accuracies),
                    )
                )
    return found


def as_markdown(board: Board) -> list[str]:
    """The section of the page, as lines."""
    lines = ["### Reported by others", "", INTRODUCTION, "", "**Reported and reproduced**", ""]
    pairs = reproduced(board)
    if pairs:
        rows = [
            (
                *(md(p.mixer), _title(p.task), md(p.protocol), f"{p.reported:.2f}"),
                *(f"{p.reproduced:.2f} ({p.seeds})", f"{p.difference:+.2f}", md(p.source)),
            )
            for p in pairs
        ]
        head = ["mixer", "task", "protocol", "reported", "reproduced (seeds)", "difference", "source"]
        lines += md_grid(head, rows, left=3)
    else:
        lines += ["Nothing yet: no run of a protocol that follows a source (`lra`, `small`) is complete.", ""]
    for table in accuracy():
        follows = f"`{table.protocol}` follows it." if table.protocol else "Reported elsewhere: no protocol follows it."
        note = f" {md(table.note)}" if table.note else ""
        lines += [f"**{md(table.source)}**", "", f"{md(table.family)}. {follows}{note}", ""]
        printed = [
            [md(name), *(NONE if v is None else f"{v:.2f}" for v in row), f"{table.averages[name]:.2f}"]
            for name, row in table.rows.items()
        ]
        lines += md_grid(["as printed", *map(_title, table.columns), md(table.averaging)], printed, left=1)
    return lines


def _title(task: str) -> str:
    return md(load_task(task).CARD.title) if task in available() else {"pathx": "Path-X"}[task]
