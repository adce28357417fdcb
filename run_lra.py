#!/usr/bin/env python
"""The command line of the Long-Range Arena: parse, call `lra`, print.

python run_lra.py train --task listops --mixer cosformer --protocol laptop
python run_lra.py suite --protocol quick
python run_lra.py leaderboard
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from lra.errors import ConfigError
from lra.paths import runs_directory

sys.path.insert(0, str(Path(__file__).resolve().parent))

import tyro
from tyro.conf import OmitSubcommandPrefixes, Positional, arg, subcommand

from lra import config as cfg
from lra.errors import LraError
from tasks.errors import DataError

Task = Literal["listops", "text", "retrieval", "image", "pathfinder"]
ProtocolName = Literal["quick", "laptop", "small", "lra"]
Source = Literal["official", "generated", "tfds", "sample"]
BoardFormat = Literal["table", "md", "csv", "json", "latex", "html"]
TASKS: tuple[Task, ...] = get_args(Task)


@dataclasses.dataclass
class Train:
    """Train a mixer on a task, test it once, write the record. Run it again to go on after an interruption.

    Defaults of `max-len`, `variant`, `model.*` and `train.*` are those of the --task and --protocol given.
    """

    task: Task
    mixer: str
    """One of `run_lra.py list`, or package.module:Class, or path/my_file.py:Class."""
    max_len: int
    """Longer inputs are cut to this many tokens."""
    variant: str
    model: cfg.Model
    train: cfg.Train
    protocol: ProtocolName = "small"
    seed: int = 0
    """Of parameters, batches and dropout; never of the data."""
    mixer_options: tuple[str, ...] = ()
    """Options of the mixer, as in `--mixer-options window=64`. Without any, those of the protocol's source."""
    source: Source | None = None
    """Of the data; without it, the first of the task's sources that is at hand."""
    limit: int | None = None
    """Evaluate on only so many examples."""
    max_minutes: float | None = None
    """Stop before, test, and record what was reached as truncated; the same command goes on."""
    distributed: bool = False
    """This is one of several processes that train the run together: see docs/scale.md."""

    def run(self) -> int:
        from lra import api
        from lra.runtime import distributed

        if self.distributed:
            distributed.initialize()
        options = self.mixer_options or None
        base, _, _ = api.protocol_and_mixer(self.task, self.mixer, self.protocol, options)
        config = api.configure(
            self.task,
            self.mixer,
            protocol=self.protocol,
            seed=self.seed,
            options=options,
            source=self.source,
            limit=self.limit,
            overrides=cfg.differences(self, base),
        )
        print(api.summary(api.run_config(config, max_minutes=self.max_minutes)))
        return 0


@dataclasses.dataclass
class Evaluate:
    """Test a finished run again, in this process: it must give the number that training gave."""

    run_name: Positional[Annotated[str, arg(name="RUN")]]
    """Its name in runs/, or the path of its directory."""

    def run(self) -> int:
        from lra.finished import evaluate_run

        result, record = evaluate_run(self.run_name)
        same = result.correct.sum() == record["test"]["correct"]
        print(f"test accuracy {result.accuracy:.4%} ({result.correct.sum()} of {len(result.correct)})")
        print(f"as recorded   {record['test']['accuracy']:.4%}: {'the same' if same else 'NOT THE SAME'}")
        return 0 if same else 1


@dataclasses.dataclass
class Attention:
    """Draw the L x L weights that trained mixers imply on one test example, a row of pictures for each layer."""

    run_names: Positional[Annotated[tuple[str, ...], arg(name="RUN")]]
    """Names in runs/, or paths of their directories; of one task, to stand beside each other."""
    example: int = 0
    """Of the test split."""
    output: Path = Path("attention.png")

    def run(self) -> int:
        from lra.analysis import attention_maps as attention

        for line in attention.draw(self.run_names, self.example, self.output):
            print(line)
        print(self.output)
        return 0


@dataclasses.dataclass
class Suite:
    """Run tasks x mixers x seeds and show the board. Skips what is complete, goes on with the rest.

    On a Slurm cluster, `--launcher slurm` submits them and returns.
    """

    protocol: ProtocolName
    tasks: tuple[Task, ...] = TASKS
    mixers: tuple[str, ...] = ("cosformer", "softmax")
    seeds: int = 1
    """Seeds 0 .. N - 1 of each."""
    max_minutes: float | None = None
    """For each run."""
    tune: bool = False
    """Try 0.3, 1 and 3 times the protocol's learning rate for each, and go on with the best on validation."""
    launcher: Literal["local", "slurm"] = "local"
    """local: on this machine, on all GPUs side by side. slurm: as a job array."""
    slurm: cfg.Slurm = dataclasses.field(default_factory=cfg.Slurm)

    def run(self) -> int:
        from lra.sweep import plan as sweep

        wanted = sweep.Sweep(
            self.tasks,
            self.mixers,
            protocol=self.protocol,
            seeds=self.seeds,
            max_minutes=self.max_minutes,
            tune=self.tune,
        )
        if self.launcher == "slurm":
            for line in sweep.submit(wanted, self.slurm):
                print(line)
            return 0
        failed = sweep.suite(wanted)
        _print_board("table", self.protocol)
        for name in failed:
            print(f"failed: {name}", file=sys.stderr)
        return 1 if failed else 0


@dataclasses.dataclass
class Status:
    """Show where the runs of runs/ stand: running, died, failed, stopped, waiting, diverged, finished."""

    watch: bool = False
    """Keep the table up to date, until Ctrl-C."""
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
    """Reproduce a score: run what is missing, and print PASS, FAIL or NOTHING EXPECTED, with the reason."""

    task: Positional[Task]
    mixer: Positional[str]
    protocol: ProtocolName = "small"
    seeds: int = 3
    """Seeds 0 .. N - 1; their mean is judged."""
    max_minutes: float | None = None
    """For each run; one that is stopped FAILS, and the same command goes on."""

    def run(self) -> int:
        from lra.sweep import reproduce as reproduction

        verdict = reproduction.reproduce(
            self.task, self.mixer, protocol=self.protocol, seeds=self.seeds, max_minutes=self.max_minutes
        )
        print(verdict.text())
        return 0 if verdict.passes else 1


@dataclasses.dataclass
class Submit:
    """Copy the record of a finished run from runs/ to results/, if it passes validation."""

    run_name: Positional[Annotated[str, arg(name="RUN")]]
    """Its name in runs/, or the path of its directory."""

    def run(self) -> int:
        from lra.record.submit import submit

        for path in submit(self.run_name):
            print(path)
        return 0


@dataclasses.dataclass
class Validate:
    """Check records: schema, hashes, protocol, and the score against the task's labels where they are at hand."""

    paths: Positional[tuple[Path, ...]] = ()
    """Files or directories; none: results/."""

    def run(self) -> int:
        from rich.console import Console

        from lra.record.validate import validate, validation_table

        reports = validate(self.paths)
        Console().print(validation_table(reports))
        return 1 if any(r.verdict == "FAIL" for r in reports) else 0


@dataclasses.dataclass
class Leaderboard:
    """Show the results: your own runs, and beside them the committed records."""

    format: BoardFormat = "table"
    protocol: ProtocolName | None = None
    """Only this one; without it, all."""

    def run(self) -> int:
        _print_board(self.format, self.protocol)
        return 0


@dataclasses.dataclass
class List:
    """Show tasks with their cards, mixers with their options, and protocols."""

    def run(self) -> int:
        from rich.console import Console

        from lra import catalog as listing

        console = Console()
        for part in listing.everything():
            console.print(part)
        return 0


@dataclasses.dataclass
class Check:
    """Put mixers to their contract: padding, gradients, dropout, precision, saving, growth with the length."""

    mixers: Positional[tuple[str, ...]] = ()
    """Of `run_lra.py list`, or package.module:Class, or path/my_file.py:Class; none: all of the project."""
    mixer_options: tuple[str, ...] = ()
    """Options of the mixer, as in `--mixer-options window=64`."""
    quick: bool = False
    """Only what takes seconds: no long inputs, no new process, no growth."""

    def run(self) -> int:
        from lra.contract import report as check
        from lra.runtime.devices import use_compilation_cache

        use_compilation_cache()
        return 0 if check.check_all(self.mixers, self.mixer_options, quick=self.quick) else 1


@dataclasses.dataclass
class Bench:
    """Measure speed and memory of mixers against the length, on inputs of random bytes. Goes on where it stopped."""

    mixers: Positional[tuple[str, ...]] = ()
    """Of `run_lra.py list`, or package.module:Class, or path/my_file.py:Class; none: all of the project."""
    lengths: tuple[int, ...] = (1024, 2048, 3072, 4096)
    """Up to 65,536."""
    protocol: Literal["small", "lra"] | None = None
    """Gives the sizes; without it, lra on an accelerator and small on a CPU."""
    batch_size: int = 32
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; parameters, normalisers and sums stay float32."""
    seconds: float = 60.0
    """For each mixer at each length, compiling included; at least one step is measured."""
    output: Path | None = None
    """Directory of bench.json, bench.md and bench.png; bench/ in the directory of runs without it."""

    def run(self) -> int:
        from rich.console import Console

        from lra.bench import report as bench_report
        from lra.bench import run as bench
        from lra.bench import tables as bench_tables
        from lra.record import files as record

        directory = self.output or runs_directory() / "bench"
        results = bench.bench(
            self.mixers,
            self.lengths,
            protocol=self.protocol,
            batch_size=self.batch_size,
            dtype=self.dtype,
            seconds=self.seconds,
            directory=directory,
        )
        Console().print(bench_tables.as_table(results))
        print(bench_report.write(results, record.find(), directory))
        return 1 if any(c.status == "failed" for c in results.cells) else 0


@dataclasses.dataclass
class Prepare:
    """Prepare data once: read or generate it, check it, keep it."""

    tasks: tuple[Task, ...] = TASKS
    variant: str = "full"
    source: Source | None = None

    def run(self) -> int:
        from lra.data.prepare import prepare
        from lra.runtime.progress import data_progress
        from tasks.errors import DataError

        missing = 0
        for task in self.tasks:  # one without its files does not keep the others waiting
            try:
                data = prepare(task, self.variant, self.source, progress=data_progress)
            except DataError as error:
                print(f"error: {error}", file=sys.stderr)
                missing += 1
                continue
            sizes = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
            print(f"{task} {data.column_variant}: {sizes}; source: {data.source}; {data.sha256[:12]}")
        return 1 if missing else 0


@dataclasses.dataclass
class Verify:
    """Check prepared data: counts, balance, lengths, hashes."""

    tasks: tuple[Task, ...] = TASKS
    variant: str = "full"
    source: Source | None = None

    def run(self) -> int:
        from rich.console import Console

        from lra.data.prepare import prepare
        from lra.data.verify import verify, verify_table
        from lra.runtime.progress import data_progress
        from tasks import load_task

        console, problems = Console(), 0
        for task in self.tasks:
            card = load_task(task).CARD
            report = verify(prepare(task, self.variant, self.source, progress=data_progress), card)
            console.print(verify_table(report))
            problems += len(report.problems)
        return 1 if problems else 0


@dataclasses.dataclass
class Show:
    """Write a picture of a task: images by class, or excerpts."""

    task: Positional[Task]
    variant: str = "full"
    source: Source | None = None
    output: Path | None = None
    """A PNG file; TASK-VARIANT.png without it."""

    def run(self) -> int:
        from lra.data.prepare import prepare
        from lra.data.preview import show
        from lra.runtime.progress import data_progress
        from tasks import load_task

        data = prepare(self.task, self.variant, self.source, allow_sample=True, progress=data_progress)
        path = self.output or Path(f"{self.task}-{self.variant}.png")
        print(show(self.task, data, load_task(self.task).CARD, path))
        return 0


@dataclasses.dataclass
class Export:
    """Write a task's data for other code bases: in LRA's official layout, or as a tensorflow-datasets directory."""

    task: Positional[Task]
    directory: Positional[Path]
    format: Literal["lra", "tfds"] = "tfds"
    variant: str = "full"
    source: Source | None = None

    def run(self) -> int:
        from lra.data.export import export
        from lra.data.prepare import prepare
        from lra.runtime.progress import data_progress
        from tasks import load_task

        data = prepare(self.task, self.variant, self.source, allow_sample=True, progress=data_progress)
        print(export(data, load_task(self.task).CARD, self.directory, self.format))
        return 0


@dataclasses.dataclass
class Data:
    """Prepare, verify, show or export data."""

    verb: Prepare | Verify | Show | Export

    def run(self) -> int:
        return self.verb.run()


def _print_board(form: BoardFormat, protocol: str | None) -> None:
    from rich.console import Console

    from lra.leaderboard import build as leaderboard
    from lra.record import files as record

    shown = leaderboard.render(leaderboard.board(record.find(), protocol), form)
    if isinstance(shown, str):
        print(shown)
    else:
        Console().print(shown)


def _train_defaults(argv: list[str]) -> Train:
    """Return the command `train` with the defaults of the task, protocol and mixer that the line names."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument("--task", default="listops")
    peek.add_argument("--protocol", default="small")
    peek.add_argument("--mixer", default="softmax")
    peek.add_argument("--mixer-options", nargs="*")
    known, _ = peek.parse_known_args(argv)
    task = known.task if known.task in cfg.TASKS else "listops"  # tyro reports what is wrong with another
    base = cfg.protocol(task, known.protocol if known.protocol in cfg.PROTOCOLS else "small")
    if known.mixer in base.forms:
        from lra import api

        with contextlib.suppress(ConfigError):  # `run` reports it
            base, _, _ = api.protocol_and_mixer(task, known.mixer, base.name, known.mixer_options or None)
    missing: Any = tyro.MISSING
    return Train(
        task=missing, mixer=missing, max_len=base.max_len, variant=base.variant, model=base.model, train=base.train
    )


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    commands = (
        Annotated[Train, subcommand("train", default=_train_defaults(argv))]
        | Annotated[Evaluate, subcommand("evaluate")]
        | Annotated[Attention, subcommand("attention")]
        | Annotated[Suite, subcommand("suite")]
        | Annotated[Status, subcommand("status")]
        | Annotated[Repro, subcommand("repro")]
        | Annotated[Submit, subcommand("submit")]
        | Annotated[Validate, subcommand("validate")]
        | Annotated[Leaderboard, subcommand("leaderboard")]
        | Annotated[Check, subcommand("check")]
        | Annotated[Bench, subcommand("bench")]
        | Annotated[List, subcommand("list")]
        | Annotated[Data, subcommand("data")]
    )
    try:
        command = tyro.cli(OmitSubcommandPrefixes[commands], args=argv, description=__doc__)  # type: ignore[misc]
        return command.run()
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (LraError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "exit_status", 1)


if __name__ == "__main__":
    gc.set_threshold(50_000)  # imports and tracing make what stays: to look for garbage among it is lost time
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a closed pipe is told in `main`, not after it
    sys.exit(main())
