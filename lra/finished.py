"""Finished runs: load their selected parameters, and repeat their test."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from lra.api import check_mixer, find_mixer
from lra.config import RunConfig
from lra.data.prepare import prepare
from lra.errors import ConfigError, RunError
from lra.provenance.code import changes, computing
from lra.record.earlier import copied_mixer
from lra.record.files import find, of_kind, run_directory
from lra.record.schema import Result, RunRecord
from lra.runtime.devices import use_compilation_cache, use_every_core
from lra.runtime.progress import data_progress
from lra.training.checkpoints import Checkpoints
from lra.training.evaluation import Evaluation, evaluate
from lra.training.step_functions import StepFunctions, TrainState, encoder_config
from models import mixers
from tasks import load_task
from tasks.core import Prepared


@dataclasses.dataclass(frozen=True)
class Trained:
    """A finished run, with the parameters that were selected."""

    record: RunRecord
    functions: StepFunctions
    state: TrainState
    data: Prepared


def trained(name: str) -> Trained:
    """Load a run of `runs/` in this process, and print a note if other code trained it.

    Args:
      name: of a run in `runs/`, or a path to its directory

    Raises:
      ConfigError: the mixer or its options are no longer valid.
      RunError: there is no such run, it has no record yet, its data or checkpoint have changed, or its mixer's file
        has, of which an earlier version of the suite made no copy.
    """
    directory = run_directory(name)
    records = of_kind(find([(directory / "records", "committed")]), RunRecord)  # no other run
    if not records:
        raise RunError(f"{directory.name} has no record yet, because it is not finished; `train` resumes it")
    record = records[0].record
    config = _own_code(RunConfig.read(directory / "config.json"), directory)
    _compare_code(record, config)
    card = load_task(config.task).CARD
    check_mixer(mixers.resolve(config.mixer), config.mixer_options, encoder_config(config, card).dims)
    data = prepare(config.task, config.variant, config.source, progress=data_progress)
    if data.sha256 != (trained_on := record.column.data_sha256):
        raise RunError(f"{directory.name} was trained on data {trained_on[:8]}, this is {data.sha256[:8]}")
    use_compilation_cache()
    use_every_core()
    functions = StepFunctions(config, card)
    kind, step = "latest" if record.selection.best_step is None else "best", record.selection.step
    loaded = Checkpoints(directory / "checkpoints").load(kind, functions.init(), step)
    if loaded is None:
        raise RunError(f"{directory.name}: the checkpoint of step {step} is gone or damaged")
    return Trained(record, functions, loaded[0], data)


def _own_code(config: RunConfig, directory: Path) -> RunConfig:
    """Return the configuration of a run with the copy of the user's mixer that its directory contains."""
    if config.mixer_sha256 is None:
        return config
    copy = copied_mixer(directory)
    spec = config.mixer if copy is None else f"{copy}:{config.mixer.rpartition(':')[2]}"
    try:
        mixer, _ = find_mixer(spec, config.mixer_options)
    except ConfigError as error:
        raise RunError(f"{directory.name}: its mixer cannot be loaded: {error}") from error
    if copy is None and mixer.sha256 != config.mixer_sha256:
        raise RunError(
            f"{directory.name} contains no copy of its mixer, and {config.mixer} is no longer {config.mixer_label}: "
            "undo the changes to the mixer's file and to the files that it imports"
        )
    return dataclasses.replace(config, mixer=mixer.spec, mixer_sha256=mixer.sha256)


def _compare_code(record: RunRecord, config: RunConfig) -> None:
    now = computing(config)
    before = record.code.computing
    if before is None or before.sha256 != now.sha256:
        difference = changes(None if before is None else before.files, now.files)
        commit = record.code.git_commit
        print(
            f"note: the code here is not that which trained {record.id}"
            f"{f' (commit {commit})' if commit else ''}: {difference}",
            file=sys.stderr,
            flush=True,
        )


def evaluate_run(name: str) -> tuple[Evaluation, Result]:
    """Test the selected checkpoint of a run again; return the evaluation and the recorded result. See `trained`.

    Raises:
      RunError: the run diverged, so that it was never tested.
    """
    run = trained(name)
    if run.record.test is None:
        raise RunError(f"{run.record.id} diverged: it has no test to repeat")
    dataset = run.functions.dataset(run.data.splits["test"], limit=run.functions.config.limit)
    return evaluate(run.functions, run.state, dataset), run.record.test
