"""The look of the tables that are printed."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table


def plain_table(**options: Any) -> Table:
    """Return an empty table with a rule below its heads and no other lines."""
    return Table(**{"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0), "show_edge": False, **options})
