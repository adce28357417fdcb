"""The content of a leaderboard as plain values, made from records by `lra.leaderboard.build`.

There is one table for each protocol and track, and another one if a task was also run on other data. A column is (task,
variant, task version, data hash). A row is a mixer's label, its changes of the protocol, and its origin. Columns and
rows are never merged.
"""

from __future__ import annotations

import dataclasses
import statistics
from typing import Literal

from lra.leaderboard.comparison import Comparison, interval
from lra.record.facts import Key
from lra.record.files import Origin, RecordFile
from lra.record.schema import BaselineRecord, Record, RunRecord
from tasks.core import is_copy

# matched: the protocol as it stands, for every mixer. tuned: with the learning rate that was best on validation,
# of a grid that is the same for every mixer. modified: whatever the user changed.
Track = Literal["matched", "tuned", "modified"]


@dataclasses.dataclass(frozen=True)
class Column:
    """A task on one data set.

    Attributes:
      examples: number of test examples; None: no run was tested on all of them
      chance: share of the largest class of the test labels; None if `examples` is
    """

    task: str
    variant: str
    task_version: int
    data_sha256: str
    source: str
    examples: int | None = None
    chance: float | None = None

    @property
    def copy(self) -> bool:
        """Whether the data set has other numbers of examples than the task's card."""
        return is_copy(self.variant)

    @property
    def key(self) -> Key:
        """What identifies the column; see `lra.record.facts.column_key`."""
        return self.task, self.variant, self.task_version, self.data_sha256


@dataclasses.dataclass(frozen=True)
class LeaderboardCell:
    """The seeds of one row in one column.

    Attributes:
      accuracies, seeds: of the seeds that finished
      diverged: seeds that diverged
      at_chance: of each seed that finished, whether its accuracy is at chance
      one_class: of each seed that finished, whether all its predictions are of the same class
      records: their ids, in the order of seeds, those that diverged last
      examples: of test
      comparison: compared with the best row of the column and origin
      below_baseline: the mean is not above the best trivial baseline of the column
      other_seeds: the seeds, diverged ones included, are not 0 to n - 1
      mixed_code, mixed_hardware: the seeds come from different code, or from different hardware
    """

    accuracies: tuple[float, ...]
    seeds: tuple[int, ...]
    diverged: tuple[int, ...]
    at_chance: tuple[bool, ...]
    one_class: tuple[bool, ...]
    records: tuple[str, ...]
    examples: int
    comparison: Comparison
    below_baseline: bool
    other_seeds: bool
    mixed_code: bool
    mixed_hardware: bool

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
    cells: tuple[LeaderboardCell | None, ...]  # one for each column
    mean: float | None  # over the five tasks, if it has all of them


@dataclasses.dataclass(frozen=True)
class BaselineRow:
    """A trivial baseline: a predictor without a sequence model."""

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
    chance: float
    at_chance: bool
    one_class: bool
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
    """The board of one protocol.

    A protocol has a version for each task; all that are shown are current. `version` is the highest of them.
    """

    protocol: str
    version: int
    track: Track
    about: str
    columns: tuple[Column, ...]  # of the rows
    beside: tuple[Column, ...]  # of all tables of the protocol: equal headings get the data hash
    rows: tuple[Row, ...]
    baselines: tuple[BaselineRow, ...]
    truncated: tuple[Truncated, ...]
    costs: tuple[Cost, ...]

    @property
    def label(self) -> str:
        return f"{self.protocol}@{self.version}" + ("" if self.track == "matched" else f" ({self.track})")


@dataclasses.dataclass(frozen=True)
class Board:
    """All tables.

    Attributes:
      runs, baselines: the records that it was made of
      others: protocols that have records, but were not asked for
      retired: records of earlier versions of a task, protocol or mixer, which are not shown
    """

    tables: tuple[Table, ...]
    runs: tuple[RecordFile[RunRecord], ...]
    baselines: tuple[RecordFile[BaselineRecord], ...]
    others: tuple[str, ...]
    retired: tuple[RecordFile[Record], ...] = ()
