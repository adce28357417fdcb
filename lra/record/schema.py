"""The schema of result records, as pydantic models. Nothing that a record names is imported or opened."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, FailFast, Field, PlainSerializer, model_validator
from pydantic_core import PydanticCustomError

from lra import config as cfg
from lra.errors import ConfigError
from lra.record import field_types as ft
from lra.record.field_types import Part

SCHEMA = 1


def at_chance(correct: int, count: int, chance: float) -> bool:
    """Return whether an accuracy is at most two standard errors above chance.

    Args:
      chance: share of the largest class of the test labels
    """
    return correct / count <= chance + 2 * math.sqrt(chance * (1 - chance) / count)


class Column(Part):
    """What tells the results of one column of the leaderboard from others."""

    task: ft.Task
    variant: ft.Name
    task_version: ft.Positive
    source: ft.Text
    data_sha256: ft.Sha256
    protocol: str | None = None
    protocol_version: int | None = None
    modified: ft.Flag


class ProtocolColumn(Column):
    protocol: ft.Protocol
    protocol_version: ft.Positive

    @model_validator(mode="after")
    def _check_recipe(self) -> Self:
        try:
            cfg.protocol(self.task, self.protocol)
        except ConfigError as error:
            raise PydanticCustomError("no_recipe", "{error}", {"error": str(error)}) from None
        return self


class BaselineColumn(Column):
    """A trivial baseline has no protocol: it belongs to every protocol on its data."""

    protocol: None = None
    protocol_version: None = None


class Mixer(Part):
    """A mixer, or the rule of a trivial baseline. sha256: of the file, if it is not one of the project."""

    name: ft.Text
    label: ft.Text
    options: dict[str, Any]
    sha256: ft.Sha256 | None
    version: ft.Positive = 1


class Environment(Part):
    python: ft.Text
    jax: ft.Text
    jaxlib: ft.Text
    flax: ft.Text
    optax: ft.Text
    numpy: ft.Text
    backend: ft.Text
    device: ft.Text
    device_count: ft.Positive
    cores: ft.Positive
    packages: dict[str, Any] = Field(default_factory=dict)
    variables: dict[str, Any] = Field(default_factory=dict)

    @property
    def hardware(self) -> str:
        """`AMD EPYC 7B13, 2 cores` or `4 x NVIDIA H100`."""
        if self.backend == "cpu":
            return f"{self.device}, {self.cores} core{'s' * (self.cores != 1)}"
        return (f"{self.device_count} x " if self.device_count > 1 else "") + self.device


class Computing(Part):
    """The files that compute a run (`lra.provenance.code`)."""

    sha256: ft.Sha256
    files: ft.Files


class Code(Part):
    """The source files of the suite, and of a run those that computed it; earlier records do not name the latter."""

    sha256: ft.Sha256
    git_commit: ft.Commit | None
    git_clean: ft.Flag | None
    computing: Computing | None = None

    @property
    def computing_sha256(self) -> str | None:
        return None if self.computing is None else self.computing.sha256


class Session(Part):
    """A later process that continued a run."""

    step: ft.Count
    started: ft.Date
    environment: Environment
    code: Code


class Result(Part):
    """Results on the test split.

    Attributes:
      confusion: counts; rows are the true classes
      predictions, correct_bits: uint8 arrays (`lra.record.files.unpack`)
      at_chance: as judged when the record was made; `is_at_chance` follows today's rule
    """

    accuracy: ft.Share
    correct: ft.Count
    count: ft.Examples
    confusion: ft.Confusion
    predictions: ft.Text
    correct_bits: ft.Text
    loss: Annotated[int | float, ft.wanted("a number, or null")] | None = None
    at_chance: ft.Flag

    @property
    def chance(self) -> float:
        """The share of the largest class of the test labels, by the confusion matrix."""
        sizes = [sum(row) for row in self.confusion]
        return max(sizes) / max(1, sum(sizes))

    @property
    def is_at_chance(self) -> bool:
        return at_chance(self.correct, self.count, self.chance)

    @property
    def predicts_one_class(self) -> bool:
        return sum(any(column) for column in zip(*self.confusion, strict=True)) == 1


def _none_if_empty(value: Any) -> Any:
    return None if value == {} else {} if value is None else value


ResultOrNone = Annotated[
    Result | None,
    BeforeValidator(_none_if_empty),
    PlainSerializer(lambda result: {} if result is None else result.as_json()),
]


class Steps(Part):
    done: ft.Count
    planned: ft.Positive


class Selection(Part):
    """Which checkpoint was tested. best_step: of the best validation, if that selects."""

    rule: ft.Text
    step: ft.Count | None = None
    best_step: ft.Count | None = None


class ReceptiveField(Part):
    """Where the inputs are that the answer depends on (`lra.training.receptive_field`).

    Attributes:
      half: half of the influence of other tokens comes from at most this distance
      distances, within: distances, and the share of all influence within each
    """

    half: ft.Positive
    distances: Annotated[list[ft.Count], FailFast()]
    within: Annotated[list[ft.Share], FailFast()]


class TrainConfig(Part):
    batch_size: ft.Count
    learning_rate: ft.Number


class Config(Part):
    """The settings of a run, as they are hashed. Those of other versions of the suite may have other fields."""

    variant: ft.Name
    limit: ft.Positive | None = None
    model: dict[str, Any]
    train: TrainConfig


class Trial(Part):
    """A run with another learning rate. validation: its best accuracy; None: it diverged."""

    learning_rate: ft.Number
    run: ft.Name
    validation: ft.Share | None


class Header(Part):
    """What every record has. test: None if it is `{}`, as of a run that diverged and of a tuning."""

    schema_version: Annotated[Literal[1], ft.wanted("1")] = Field(alias="schema")
    kind: str
    status: ft.Status
    id: ft.Name
    created: ft.Date
    column: Column
    mixer: Mixer
    test: ResultOrNone
    environment: Environment
    code: Code

    @property
    def steps_done(self) -> int:
        return 0

    @property
    def file_name(self) -> str:
        """The name of the record's file. One that is not complete has its status and step in it."""
        ending = "" if self.status == "complete" else f"-{self.status}-{self.steps_done}"
        return f"{self.id}{ending}.json"


class RunRecord(Header):
    """A run: a mixer that was trained, and tested unless it diverged.

    Attributes:
      forward_flops: of one example of `max_len` tokens
      seconds, steps_per_second, peak_bytes: of all `seeds_together` that were trained in one program
    """

    kind: Literal["run"]
    column: ProtocolColumn
    seed: ft.Count
    steps: Steps
    config: Config
    config_sha256: ft.Sha256
    parameters: ft.Count
    forward_flops: ft.Number | None = None
    selection: Selection
    chance: ft.Share | None = None
    majority_accuracy: ft.Share
    validation: ft.Points
    curve: ft.Points
    message: ft.AnyText = ""
    seeds_together: ft.Positive = 1
    seconds: ft.Number
    steps_per_second: ft.Number | None
    peak_bytes: ft.Count | None
    receptive_field: ReceptiveField | None = None
    later_sessions: Annotated[list[Session], FailFast()] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check_test(self) -> Self:
        if self.test is None and self.status != "diverged":
            raise PydanticCustomError("no_test", "test is empty, and the run is not diverged")
        return self

    @property
    def steps_done(self) -> int:
        return self.steps.done

    @property
    def best_accuracy(self) -> float | None:
        """The accuracy of the best validation, if the run is complete."""
        accuracies = [accuracy for _, _, accuracy in self.validation]
        return max(accuracies) if accuracies and self.status == "complete" else None

    @property
    def minutes(self) -> float:
        """The time of one seed."""
        return self.seconds / 60 / self.seeds_together

    @property
    def has_process_memory(self) -> bool:
        """Whether `peak_bytes` is the resident memory of the whole process, as in earlier records from CPUs."""
        return self.environment.backend == "cpu" and self.chance is None


class BaselineRecord(Header):
    """A trivial baseline: a predictor without a sequence model."""

    kind: Literal["floor"]
    status: ft.Complete
    column: BaselineColumn
    seed: None = None
    test: Result
    chance: ft.Share | None = None
    majority_accuracy: ft.Share


class TuningRecord(Header):
    """A learning rate that was chosen on validation."""

    kind: Literal["tuning"]
    status: ft.Complete
    column: ProtocolColumn
    seed: ft.Count
    learning_rate: ft.Number
    trials: Annotated[list[Trial], Field(min_length=1), FailFast()]


Record = RunRecord | BaselineRecord | TuningRecord
