"""Published figures, and their comparison with results of the records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lra.leaderboard.markdown import md, md_grid
from lra.leaderboard.published import Accuracy, accuracy
from lra.leaderboard.text import card_of
from lra.leaderboard.types import Board, Column, Table
from tasks import available, load_task
from tasks.core import SAMPLE

INTRODUCTION = (
    "Accuracies in per cent, as their sources print them; the rule of each average is given with it. X: failed (no "
    "better than chance, or out of memory). –: not given. A reported figure belongs to the code, data and training of "
    "its source. It is compared with results of this suite only where a protocol follows the source and the mixer has "
    "the form that the source ran (docs/mixers.md lists the forms); it is never averaged with them."
)
NO_PAIRS = (
    "Nothing yet: no run of a published form, under a protocol that follows its source (`lra`, `small`), is complete."
)


@dataclasses.dataclass(frozen=True)
class Reproduced:
    """A reported figure, and the mean of the runs of the same form under the protocol that follows its source.

    Both in per cent. mixer: the label of that form.
    """

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
    """Return every reported figure that has complete runs of an equal form.

    Such a run has the label that the source's row has on this task; it is of today's version of the protocol that
    follows the source, unmodified; and its data are the full task, not a sample or a smaller copy.
    """
    pairs = []
    for published in accuracy() if tables is None else tables:
        for table in board.tables:
            if published.protocol and table.protocol == published.protocol and table.track == "matched":
                pairs += _pairs(table, published)
    return pairs


def _pairs(table: Table, published: Accuracy) -> list[Reproduced]:
    pairs = []
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            if cell is None or cell.mean is None or not _is_full(column):
                continue
            reported = published.reported(row.label, column.task)
            if reported is not None:
                pairs.append(
                    Reproduced(
                        source=published.source,
                        protocol=table.label,
                        task=column.task,
                        mixer=row.label,
                        reported=float(reported),
                        reproduced=100 * cell.mean,
                        seeds=len(cell.accuracies),
                    )
                )
    return pairs


def _is_full(column: Column) -> bool:
    card = card_of(column)
    if card is None or column.variant != "full" or column.source == SAMPLE:
        return False
    return column.examples == card.variants["full"].sizes["test"]


def as_markdown(board: Board) -> list[str]:
    """Return the section of the page, as lines."""
    lines = ["### Reported by others", "", INTRODUCTION, "", "**Reported and reproduced**", ""]
    pairs = reproduced(board)
    if pairs:
        rows = [
            (
                *(md(p.mixer), task_title(p.task), md(p.protocol), f"{p.reported:.2f}"),
                *(f"{p.reproduced:.2f} ({p.seeds})", f"{p.difference:+.2f}", md(p.source)),
            )
            for p in pairs
        ]
        head = ["mixer", "task", "protocol", "reported", "reproduced (seeds)", "difference", "source"]
        lines += md_grid(head, rows, left=3)
    else:
        lines += [NO_PAIRS, ""]
    for table in accuracy():
        lines += [f"**{md(table.source)}**", "", md(table.remarks), ""]
        printed = [[md(row.name), *(row.text(task) for task in table.columns), row.average_text] for row in table.rows]
        lines += md_grid(["as printed", *map(task_title, table.columns), md(table.average_heading)], printed, left=1)
        notes = [f"- {md(row.name)}: {md(row.note)}" for row in table.rows if row.note]
        lines += [*notes, ""] if notes else []
    return lines


def task_title(task: str) -> str:
    return md(load_task(task).CARD.title) if task in available() else {"pathx": "Path-X"}[task]
