"""Commands on many runs: a `suite` of them, their `status`, and `repro`, which reproduces an expected score."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lra import config as cfg
from lra.commands.arguments import Minutes, ProtocolName, Task, TaskName
from lra.commands.results import print_results
from lra.errors import ConfigError


@dataclasses.dataclass
class Suite:
    """Run tasks x mixers x seeds, then show the results. Complete runs are skipped, interrupted runs are resumed.

    Example: suite --protocol quick --mixers my_file.py softmax --parallel 2

    On a Slurm cluster, `--launcher slurm` submits the runs and returns.
    """

    protocol: ProtocolName
    tasks: tuple[Task, ...] = ()
    """Default: all tasks that have the protocol."""
    mixers: Annotated[tuple[str, ...], arg(metavar="MIXER [MIXER ...]")] = ("cosformer", "softmax")
    seeds: int = 1
    """Number of seeds per task and mixer, from 0."""
    max_minutes: Minutes = None
    """Time limit of each run."""
    tune: bool = False
    """Try 0.3, 1 and 3 times the protocol's learning rate, and use the best on validation."""
    parallel: Annotated[int | None, arg(metavar="N")] = None
    """Largest number of runs at the same time, which share the cores. Default: one for each GPU, one on a CPU."""
    launcher: Literal["local", "slurm"] = "local"
    """local: on this machine. slurm: as a job array."""
    slurm: cfg.Slurm = dataclasses.field(default_factory=cfg.Slurm)

    def run(self) -> int:
        from lra import api
        from lra.sweep import plan

        if self.launcher == "local" and self.slurm != cfg.Slurm():
            raise ConfigError("--slurm.* options need --launcher slurm")
        if self.launcher == "slurm" and self.parallel is not None:
            raise ConfigError("--parallel is for this machine; use --slurm.at-once with --launcher slurm")
        for name, number in (("--seeds", self.seeds), ("--parallel", self.parallel)):
            if number is not None and number < 1:
                raise ConfigError(f"{name} must be at least 1, not {number}")
        api.check_minutes(self.max_minutes)
        tasks = self.tasks or tuple(base.task for base in cfg.protocols_named(self.protocol))
        sweep = plan.Sweep(
            tasks,
            self.mixers,
            protocol=self.protocol,
            seeds=self.seeds,
            max_minutes=self.max_minutes,
            tune=self.tune,
        )
        if self.launcher == "slurm":
            for line in plan.submit(sweep, self.slurm):
                print(line)
            return 0
        failed = plan.suite(sweep, self.parallel)
        labels = {
            api.configure(task, mixer, protocol=self.protocol).mixer_label for task in tasks for mixer in self.mixers
        }
        print_results(self.protocol, labels)
        for name in failed:
            print(f"failed: {name}", file=sys.stderr)
        return 1 if failed else 0


@dataclasses.dataclass
class Status:
    """Show the state of every run in runs/: running, died, failed, stopped, waiting, diverged or finished."""

    watch: bool = False
    """Update the table until Ctrl-C."""
    format: Literal["table", "json"] = "table"

    def run(self) -> int:
        from rich.console import Console

        from lra.record import status

        if self.watch:
            status.watch(Console())
        elif self.format == "json":
            print(status.as_json(status.statuses()))
        else:
            Console().print(status.as_table(status.statuses()))
        return 0


@dataclasses.dataclass
class Repro:
    """Reproduce an expected score: run missing seeds, and print PASS, FAIL or NOTHING EXPECTED with the reason."""

    task: TaskName
    mixer: Positional[Annotated[str, arg(metavar="MIXER")]]
    """A name from `run_lra.py list`, package.module:Class, or path/my_file.py:Class."""
    protocol: ProtocolName = "small"
    seeds: int = 3
    """Number of seeds, from 0; their mean is compared."""
    max_minutes: Minutes = None
    """Time limit of each run. A truncated run counts as FAIL, and the same command resumes it."""

    def run(self) -> int:
        from lra.sweep.reproduce import reproduce

        verdict = reproduce(
            self.task, self.mixer, protocol=self.protocol, seeds=self.seeds, max_minutes=self.max_minutes
        )
        print(verdict.text())
        return 0 if verdict.passes else 1
