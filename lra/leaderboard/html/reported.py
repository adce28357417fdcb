"""Published tables on the page, as plain values."""

from __future__ import annotations

import dataclasses
from decimal import Decimal

from lra.leaderboard.html.run_page import CellView
from lra.leaderboard.published import Accuracy, Percent
from lra.leaderboard.reported import average_heading, remarks


@dataclasses.dataclass(frozen=True)
class PublishedRowView:
    name: str
    cells: tuple[CellView, ...]  # of the tasks, then the average


@dataclasses.dataclass(frozen=True)
class PublishedView:
    source: str
    remarks: str
    columns: tuple[str, ...]  # tasks
    average_heading: str
    rows: tuple[PublishedRowView, ...]
    notes: tuple[tuple[str, str], ...]  # name of a row, and its note


def published_view(table: Accuracy) -> PublishedView:
    """Return what the page shows of a published table."""
    rows = [
        PublishedRowView(
            row.name,
            (
                *(CellView(row.text(task), _sort(row.figures[task])) for task in table.columns),
                CellView(row.average_text, _sort(row.average)),
            ),
        )
        for row in table.rows
    ]
    return PublishedView(
        source=table.source,
        remarks=remarks(table),
        columns=table.columns,
        average_heading=average_heading(table),
        rows=tuple(rows),
        notes=tuple((row.name, row.note) for row in table.rows if row.note),
    )


def _sort(value: Percent) -> float | None:
    return float(value) if isinstance(value, Decimal) else None
