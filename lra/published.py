"""Published figures of others, from `published.toml`: shown beside one's own, never in one column with them."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PUBLISHED = Path(__file__).with_suffix(".toml")
OUT_OF_MEMORY = "X"

Figure = float | None  # None: out of memory


@dataclasses.dataclass(frozen=True)
class Efficiency:
    """A table of speed or memory against the length.

    lengths:   as printed, one for each column
    reference: the row to which ratios are taken
    rows:      figures by the name that the source prints
    """

    source: str
    hardware: str
    setting: str
    quantity: str
    unit: str
    lengths: tuple[str, ...]
    reference: str
    rows: Mapping[str, tuple[Figure, ...]]
    note: str = ""


def efficiency(path: Path = PUBLISHED) -> tuple[Efficiency, ...]:
    """All tables of `[[efficiency]]`, in the order of the file.

    Raises:
      ValueError: a table lacks something, or a row is not one positive number or X for each length.
    """
    return tuple(_efficiency(entry) for entry in tomllib.loads(path.read_text())["efficiency"])


def _efficiency(entry: dict[str, Any]) -> Efficiency:
    place = f"{entry.get('source')}, {entry.get('quantity')}"
    rows = {name: tuple(_figure(value, f"{place}, {name}") for value in row) for name, row in entry["rows"].items()}
    try:
        table = Efficiency(**{**entry, "lengths": tuple(entry["lengths"]), "rows": rows})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{place}: {error}") from error
    for name, row in rows.items():
        if len(row) != len(table.lengths):
            raise ValueError(f"{place}: {name} has {len(row)} figures for {len(table.lengths)} lengths")
    if table.reference not in rows:
        raise ValueError(f"{place}: there is no row {table.reference!r} to refer to")
    return table


def _figure(value: Any, place: str) -> Figure:
    if value == OUT_OF_MEMORY:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"{place}: {value!r} is neither a positive number nor {OUT_OF_MEMORY!r}")
    return float(value)
