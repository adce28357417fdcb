"""Finished runs: their selected parameters, loaded again, and their test, repeated."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from lra import config_file
from lra.config import RunConfig
from lra.data.prepare import prepare
from lra.errors import RunError
from lra.paths import runs_directory
from lra.provenance.code import changes, computing
from lra.record import files as rec
from lra.runtime.devices import use_compilation_cache, use_every_core
from lra.runtime.progress import data_progress
from lra.training.checkpoints import Checkpoints
from lra.training.evaluation import Evaluation, evaluate
from lra.training.step_functions import StepFunctions, TrainState
from tasks import load_task
from tasks.core import Prepared


@dataclasses.dataclass(frozen=True)
class Trained:
    """A finished run, with the parameters that were selected."""

    record: dict[str, Any]
    functions: StepFunctions
    state: TrainState
    data: Prepared


def trained(name: str) -> Trained:
    """Load a run of `runs/` in this process, and print a note if the code that trained it is not the code here.

    Args:
      name: of a run in `runs/`, or a path to its directory

    Raises:
      RunError: there is no such run, it has no record yet, or its data or checkpoint have changed.
    """
    directory = Path(name) if Path(name).is_dir() else runs_directory() / name
    if not (directory / "config.json").exists():
        there = ", ".join(sorted(p.parent.name for p in runs_directory().glob("*/config.json"))) or "none"
        raise RunError(f"no run {name!r} in {runs_directory()}; there are: {there}")
    found = rec.find([(directory / "records", "committed")])  # of this run alone
    if not found:
        raise RunError(f"{directory.name} has no record yet: it was not finished; `train` goes on with it")
    record = found[0].record
    config = config_file.read(directory / "config.json")
    _compare_code(record, config)
    card = load_task(config.task).CARD
    data = prepare(config.task, config.variant, config.source, allow_sample=config.allow_sample, progress=data_progress)
    if data.sha256 != record["column"]["data_sha256"]:
        raise RunError(
            f"{directory.name} was trained on data {record['column']['data_sha256'][:8]}, this is {data.sha256[:8]}"
        )
    use_compilation_cache()
    use_every_core()
    functions = StepFunctions(config, card)
    kind, step = "latest" if record["selection"]["best_step"] is None else "best", record["selection"]["step"]
    loaded = Checkpoints(directory / "checkpoints").load(kind, functions.init(), step)
    if loaded is None:
        raise RunError(f"{directory.name}: the checkpoint of step {step} is gone or damaged")
    return Trained(record, functions, loaded[0], data)


def _compare_code(record: dict[str, Any], config: RunConfig) -> None:
    now = computing(config)
    before = record["code"].get("computing")
    if before is None or before["sha256"] != now.sha256:
        difference = changes(None if before is None else before["files"], now.files)
        commit = record["code"]["git_commit"]
        print(
            f"note: the code here is not that which trained {record['id']}"
            f"{f' (commit {commit})' if commit else ''}: {difference}",
            file=sys.stderr,
            flush=True,
        )


def evaluate_run(name: str) -> tuple[Evaluation, dict[str, Any]]:
    """Test the selected checkpoint of a run again; return the evaluation and the run's newest record. See `trained`."""
    run = trained(name)
    dataset = run.functions.dataset(run.data.splits["test"], limit=run.functions.config.limit)
    return evaluate(run.functions, run.state, dataset), run.record
