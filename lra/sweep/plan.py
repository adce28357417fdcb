"""Many runs: tasks x mixers x seeds, each in its own process; with `tune`, learning rates too.

Separate processes make the measured peak memory correct, and a run that crashes does not end the others.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product

import jax

from lra import config as cfg
from lra.api import configure
from lra.config import RunConfig
from lra.data.prepare import prepare
from lra.errors import RunError
from lra.paths import runs_directory, write_atomically
from lra.provenance.code import computing
from lra.record import earlier
from lra.record.baselines import write_baselines
from lra.runtime.devices import slots
from lra.runtime.progress import data_progress
from lra.sweep import slurm, tuning
from lra.sweep.job import Job
from lra.sweep.local import run_jobs
from tasks import load_task
from tasks.errors import DataError
from tasks.processes import run_in_subprocess


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Which runs to make.

    Attributes:
      seeds: number of seeds, from 0 to seeds - 1
      max_minutes: time limit of each run
      tune: choose each mixer's learning rate on validation first (`lra.sweep.tuning`); a task without a validation
        split keeps the protocol's rate
    """

    tasks: Sequence[str]
    mixers: Sequence[str]
    protocol: str
    seeds: int = 1
    max_minutes: float | None = None
    tune: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    """The jobs that remain and can run now, and the tasks and mixers without a learning rate, with reasons."""

    jobs: list[Job]
    untuned: list[str]


def suite(sweep: Sweep, parallel: int | None = None) -> list[str]:
    """Run on this machine what is not complete yet; return what failed.

    Args:
      parallel: largest number of runs at the same time; None: one for each GPU, one on a CPU

    Raises:
      ConfigError, DataError: before the first run starts
      Interrupted: by Ctrl-C or SIGTERM; the runs in progress have saved their state
    """
    jax.config.update("jax_platforms", "cpu")  # this process must not reserve the memory of the GPU
    data = prepare_data(sweep)
    first = make_plan(sweep, data)
    if not (first.jobs or first.untuned):
        return []
    device_slots = run_in_subprocess(partial(slots, parallel and min(parallel, max(len(first.jobs), 1))))
    failed = run_jobs(first.jobs, device_slots)
    if not first.untuned:
        return failed
    second = make_plan(sweep, data)
    failed += run_jobs([job for job in second.jobs if job not in first.jobs], device_slots)
    return failed + second.untuned


def submit(sweep: Sweep, options: cfg.Slurm) -> list[str]:
    """Submit what is not complete yet as a job array; return lines to print.

    Raises:
      ConfigError, DataError, RunError: nothing was submitted
    """
    plan = make_plan(sweep, prepare_data(sweep))
    if not plan.jobs:
        return ["nothing to submit: all runs are complete", *plan.untuned]
    job_ids = slurm.submit(plan.jobs, options)
    lines = [f"{job_id}  {job.name}" for job_id, job in zip(job_ids, plan.jobs, strict=True)]
    lines.append(f"{len(job_ids)} jobs; they print to {slurm.logs_directory()}")
    lines.append("python run_lra.py status --watch shows their progress; the same command submits failed runs again")
    if plan.untuned:
        lines += [*plan.untuned, "when the trials are complete, the same command submits the seeds at the chosen rates"]
    return lines


def prepare_data(sweep: Sweep) -> dict[str, tuple[str, str]]:
    """Prepare the data and write the trivial baselines of each task, once for all runs.

    Returns:
      `Prepared.name` of each task.

    Raises:
      ConfigError: of any run
      DataError: what is missing, of all tasks
    """
    configs = {pair: configure(*pair, protocol=sweep.protocol) for pair in product(sweep.tasks, sweep.mixers)}
    names, problems = {}, []
    for task in sweep.tasks:
        config = next(c for (name, _), c in configs.items() if name == task)
        try:
            data = prepare(task, config.variant, config.source, progress=data_progress)
        except DataError as error:
            problems.append(str(error))
            continue
        write_baselines(data, load_task(task).CARD)
        names[task] = data.name
    if problems:
        raise DataError("\n".join(problems))
    return names


def make_plan(sweep: Sweep, data: Mapping[str, tuple[str, str]]) -> Plan:
    """List what remains to be done. From now on, `status` shows these runs as waiting.

    Args:
      data: `Prepared.name` of each task
    """
    jobs: list[Job] = []
    untuned: list[str] = []
    for task, mixer in product(sweep.tasks, sweep.mixers):
        name = f"{task} {mixer}"
        arguments = ["--task", task, "--mixer", mixer, "--protocol", sweep.protocol]
        if sweep.max_minutes is not None:
            arguments += ["--max-minutes", str(sweep.max_minutes)]
        overrides = {}
        if sweep.tune and load_task(task).CARD.selection == "validation":
            trials = tuning.trials(task, mixer, sweep.protocol)
            records = {rate: tuning.run_record(config, data[task]) for rate, config in trials.items()}
            if untried := [rate for rate, record in records.items() if record is None]:
                for rate in untried:
                    trial_arguments = [*arguments, "--train.learning-rate", str(rate)]
                    jobs.append(_job(f"{name} rate {rate:g}", trial_arguments, trials[rate], data[task]))
                untuned.append(f"{name}: not every learning rate of the grid is complete, so none was chosen")
                continue
            try:
                rate = tuning.write_tuning({rate: record for rate, record in records.items() if record is not None})
            except RunError as error:
                untuned.append(f"{name}: {error}")
                continue
            overrides["train.learning_rate"] = rate
            arguments += ["--train.learning-rate", str(rate)]
        elif sweep.tune:
            print(f"{name}: {task} has no validation split to choose a learning rate by", file=sys.stderr)
        for seed in range(sweep.seeds):
            config = configure(task, mixer, protocol=sweep.protocol, seed=seed, overrides=overrides)
            jobs.append(_job(f"{name} seed {seed}", [*arguments, "--seed", str(seed)], config, data[task]))
    return Plan([job for job in jobs if not job.complete], untuned)


def _job(name: str, arguments: Sequence[str], config: RunConfig, data: tuple[str, str]) -> Job:
    data_sha256, variant = data
    directory = runs_directory() / config.run_id(data_sha256, computing(config).sha256, variant)
    earlier.remove_unbegun(config, directory.name)
    if not (directory / "config.json").exists():
        write_atomically(directory / "config.json", config.as_text())
    return Job(name, tuple(arguments), directory)
