"""What a leaderboard says, as plain values. `lra.leaderboard` makes it of records; `board_table`, `board_text` show it.

One table per protocol@version and track, and one more where a task was run on other data too. A column is (task,
variant, task version, data hash), a row is a mixer's label with what it changed of the protocol, of one origin.
Neither is ever merged with another.
"""

from __future__ import annotations

import dataclasses
import statistics
from typing import Literal

from lra.comparison import interval
from lra.record import Found, Origin

# matched: the protocol as it stands, for every mixer. tuned: with the learning rate that was best on validation,
# of a grid that is the same for every mixer. modified: whatever the user changed.
Track = Literal["matched", "tuned", "modified"]


@dataclasses.dataclass(frozen=True)
class Column:
    task: str
    variant: str
    task_version: int
    data_sha256: str
    source: str
    examples: int | None  # of test; None: no run was tested on all of them

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What tells it from every other; of a record, `leaderboard.column_key`."""
        return self.task, self.variant, self.task_version, self.data_sha256


@dataclasses.dataclass(frozen=True)
class Cell:
    """Seeds of one row in one column. Accuracies are of the seeds that finished; those that diverged are said.

    at_chance:   of the seeds that finished
    records:     their ids, in the order of seeds, those that diverged last
    examples:    of test
    tied:        no difference from the best row of the column and origin is shown (`lra.comparison`), on the same
                 examples and seeds; the best row is not tied with itself
    below_floor: the mean does not beat the highest floor of the column
    """

    accuracies: tuple[float, ...]
    seeds: tuple[int, ...]
    diverged: tuple[int, ...]  # seeds
    at_chance: int
    records: tuple[str, ...] = ()
    examples: int = 0
    tied: bool = False
    below_floor: bool = False

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.accuracies) if self.accuracies else None

    @property
    def deviation(self) -> float | None:
        """Of the sample (divisor n - 1)."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of 95 %, from the number of test examples alone."""
        return interval(self.mean, self.examples) if self.mean is not None and self.examples else None


@dataclasses.dataclass(frozen=True)
class Row:
    origin: Origin
    label: str
    changes: tuple[str, ...]  # of the protocol, or the number of trials
    cells: tuple[Cell | None, ...]  # one for each column
    mean: float | None  # over the five tasks, where all of them are there


@dataclasses.dataclass(frozen=True)
class FloorRow:
    name: str
    accuracies: tuple[float | None, ...]
    mean: float | None


@dataclasses.dataclass(frozen=True)
class Truncated:
    """A run that was stopped: its accuracy belongs to no cell."""

    origin: Origin
    label: str
    changes: tuple[str, ...]
    column: Column
    record: str  # its id
    seed: int
    steps_done: int
    steps_planned: int
    accuracy: float
    at_chance: bool
    majority: float
    minutes: float
    hardware: str


@dataclasses.dataclass(frozen=True)
class Cost:
    """What the finished runs of a row took on one machine."""

    origin: Origin
    label: str
    changes: tuple[str, ...]
    hardware: str
    cells: tuple[tuple[int, float] | None, ...]  # parameters, mean minutes
    ratios: tuple[float | None, ...] = ()  # of parameters, to softmax in the same column


@dataclasses.dataclass(frozen=True)
class Table:
    """The board of one protocol."""

    protocol: str
    version: int
    track: Track
    about: str
    columns: tuple[Column, ...]  # of the rows
    beside: tuple[Column, ...]  # of all tables of the protocol: among them like ones are told apart
    rows: tuple[Row, ...]
    floors: tuple[FloorRow, ...]
    truncated: tuple[Truncated, ...]
    costs: tuple[Cost, ...]

    @property
    def label(self) -> str:
        return f"{self.protocol}@{self.version}" + ("" if self.track == "matched" else f" ({self.track})")


@dataclasses.dataclass(frozen=True)
class Board:
    tables: tuple[Table, ...]
    found: tuple[Found, ...]  # the records that it was made of
    others: tuple[str, ...]  # protocols that have records, but were not asked for
