"""Many runs: tasks x mixers x seeds, each in a process of its own; with `tune`, learning rates too.

A process of its own makes the measured peak of memory true, and a run that dies takes no other with it.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from itertools import product

import jax

from lra import config as cfg
from lra import config_file
from lra.api import configure
from lra.config import RunConfig
from lra.data.prepare import prepare
from lra.errors import RunError
from lra.paths import runs_directory, write_atomically
from lra.provenance.code import computing
from lra.record import earlier
from lra.record.baselines import write_floors
from lra.runtime.devices import places
from lra.runtime.progress import data_progress
from lra.sweep import slurm, tuning
from lra.sweep.job import Cell
from lra.sweep.local import run_cells
from tasks import load_task
from tasks.core import in_a_process
from tasks.errors import DataError


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Which runs.

    seeds:       how many: 0 .. seeds - 1
    together:    all seeds of a task and mixer in one process and program
    max_minutes: of each run
    tune:        choose each mixer's learning rate on validation first (`lra.sweep.tuning`); a task without a
                 validation split keeps the protocol's rate
    """

    tasks: Sequence[str]
    mixers: Sequence[str]
    protocol: str
    seeds: int = 1
    together: bool = False
    max_minutes: float | None = None
    tune: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    """cells: not complete, and fit to run now; undecided: of which task and mixer no rate is chosen, and why."""

    cells: list[Cell]
    undecided: list[str]


def suite(sweep: Sweep) -> list[str]:
    """Runs on this machine what is not complete yet, all devices side by side; returns what failed.

    Raises:
      ConfigError, DataError: before the first run starts.
      Interrupted: by Ctrl-C or SIGTERM; the runs under way have saved their state.
    """
    jax.config.update("jax_platforms", "cpu")  # JAX on a GPU would take most of its memory from the runs
    data = prepare_data(sweep)
    first = plan(sweep, data)
    if not (first.cells or first.undecided):
        return []
    devices = in_a_process(places)
    failed = run_cells(first.cells, devices)
    if not first.undecided:
        return failed
    second = plan(sweep, data)
    failed += run_cells([cell for cell in second.cells if cell not in first.cells], devices)
    return failed + second.undecided


def submit(sweep: Sweep, options: cfg.Slurm) -> list[str]:
    """Submits what is not complete yet as a job array; returns what there is to say of it.

    Raises:
      ConfigError, DataError, RunError: nothing was submitted.
    """
    now = plan(sweep, prepare_data(sweep))
    if not now.cells:
        return ["nothing to submit: all runs are complete", *now.undecided]
    jobs = slurm.submit(now.cells, options)
    told = [f"{job}  {cell.name}" for job, cell in zip(jobs, now.cells, strict=True)]
    told.append(f"{len(jobs)} jobs; what they print: {slurm.logs_directory()}")
    told.append("python run_lra.py status --watch shows how they get on; give the same command again for what failed")
    if now.undecided:
        told += [*now.undecided, "once the trials are complete, the same command submits the seeds at the chosen rates"]
    return told


def prepare_data(sweep: Sweep) -> dict[str, tuple[str, str]]:
    """The name of each task's data (`Prepared.name`), prepared and with its floors written, once for all runs.

    Raises:
      ConfigError: of any run.
      DataError: what is missing, of all tasks.
    """
    configs = {cell: configure(*cell, protocol=sweep.protocol) for cell in product(sweep.tasks, sweep.mixers)}
    names, missing = {}, []
    for task in sweep.tasks:
        config = next(c for (name, _), c in configs.items() if name == task)
        try:
            data = prepare(task, config.variant, allow_sample=config.allow_sample, progress=data_progress)
        except DataError as error:
            missing.append(str(error))
            continue
        write_floors(data, load_task(task).CARD)
        names[task] = data.name
    if missing:
        raise DataError("\n".join(missing))
    return names


def plan(sweep: Sweep, data: Mapping[str, tuple[str, str]]) -> Plan:
    """What is to be done, by the records that there are. `status` shows all of it as waiting from now on.

    Args:
      data: the name of each task's data (`Prepared.name`)
    """
    cells: list[Cell] = []
    undecided: list[str] = []
    for task, mixer in product(sweep.tasks, sweep.mixers):
        name = f"{task} {mixer}"
        words = ["--task", task, "--mixer", mixer, "--protocol", sweep.protocol]
        if sweep.max_minutes is not None:
            words += ["--max-minutes", str(sweep.max_minutes)]
        overrides = {}
        if sweep.tune and load_task(task).CARD.selection == "validation":
            trials = tuning.trials(task, mixer, sweep.protocol)
            records = {rate: tuning.run_record(config, data[task]) for rate, config in trials.items()}
            if untried := [rate for rate, record in records.items() if record is None]:
                for rate in untried:
                    rate_words = [*words, "--train.learning-rate", str(rate)]
                    cells.append(_cell(f"{name} rate {rate:g}", rate_words, [trials[rate]], data[task]))
                undecided.append(f"{name}: not every rate of the grid came to its end, so none was chosen")
                continue
            try:
                rate = tuning.write_tuning({rate: record for rate, record in records.items() if record is not None})
            except RunError as error:
                undecided.append(f"{name}: {error}")
                continue
            overrides["train.learning_rate"] = rate
            words += ["--train.learning-rate", str(rate)]
        elif sweep.tune:
            print(f"{name}: {task} has no validation split to choose a rate by", file=sys.stderr)
        configs = [
            configure(task, mixer, protocol=sweep.protocol, seed=seed, overrides=overrides)
            for seed in range(sweep.seeds)
        ]
        if sweep.together and sweep.seeds > 1:
            words += ["--together", str(sweep.seeds)]
            cells.append(_cell(f"{name} seeds 0 to {sweep.seeds - 1}", words, configs, data[task]))
            continue
        for seed, config in enumerate(configs):
            cells.append(_cell(f"{name} seed {seed}", [*words, "--seed", str(seed)], [config], data[task]))
    return Plan([cell for cell in cells if not cell.complete], undecided)


def _cell(name: str, words: Sequence[str], configs: Sequence[RunConfig], data: tuple[str, str]) -> Cell:
    code_sha256, (data_sha256, variant) = computing(configs[0]).sha256, data
    directories = [runs_directory() / config.run_id(data_sha256, code_sha256, variant) for config in configs]
    for place, config in zip(directories, configs, strict=True):
        earlier.remove_unbegun(config, place.name)
        if not (place / "config.json").exists():
            write_atomically(place / "config.json", config_file.as_text(config))
    return Cell(name, tuple(words), tuple(directories))
