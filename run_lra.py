#!/usr/bin/env python
"""Train sequence mixers on the Long-Range Arena, and compare them.

Start:      suite --protocol quick      trains two mixers on every task, in minutes

Train:      train --task listops --mixer cosformer
            evaluate RUN
            attention RUN RUN           plots attention weights

Many runs:  suite --protocol laptop --tasks listops text --seeds 3
            status --watch
            repro listops softmax       reproduces a published score

Results:    leaderboard --protocol laptop
            validate; submit RUN        checks records; copies one to results/

Mixers:     list; check my_file.py; bench cosformer softmax

Data:       data prepare; data verify; data show image; data export text DIRECTORY
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parent))

if sys.platform == "win32":
    raise SystemExit("error: Windows is not supported; use WSL (docs/reliability.md)")
try:
    import tyro
except ModuleNotFoundError:
    raise SystemExit(
        "error: the dependencies are not installed in this Python. `make install` installs them into .venv;\n"
        "then `source .venv/bin/activate`, or use `.venv/bin/python run_lra.py`"
    ) from None
from tyro.conf import OmitArgPrefixes, OmitSubcommandPrefixes, Positional, arg, subcommand

from lra import config as cfg
from lra.errors import ConfigError, Interrupted, LraError
from lra.paths import explain, runs_directory
from tasks.errors import DataError

if TYPE_CHECKING:
    Task: TypeAlias = str
    ProtocolName: TypeAlias = str
else:
    Task = Literal[cfg.TASKS]
    ProtocolName = Annotated[
        Literal[cfg.PROTOCOL_NAMES], arg(metavar=f"{{{','.join(cfg.PROTOCOLS)}}}[+{{{','.join(cfg.RECIPES)}}}]")
    ]
Source = Literal["official", "generated", "tfds", "sample"]
BoardFormat = Literal["table", "md", "csv", "json", "latex", "html"]
RunName = Positional[Annotated[str, arg(name="run", metavar="RUN")]]
RunNames = Positional[Annotated[tuple[str, ...], arg(name="runs", metavar="RUN [RUN ...]")]]
TaskName = Positional[Annotated[Task, arg(name="task", metavar="TASK", help=f"One of {', '.join(cfg.TASKS)}.")]]
MixerNames = Positional[Annotated[tuple[str, ...], arg(name="mixers", metavar="[MIXER ...]")]]
MixerName = Annotated[str, arg(metavar="MIXER")]
MixerOptions = Annotated[tuple[str, ...], arg(metavar="[NAME=VALUE ...]")]
VARIANTS = (
    "Variant of the data: full; short (listops); cut (text, retrieval); 16 (image); "
    "12, 16-short, 32-easy, 32-intermediate, 64, 128, 256 (pathfinder)."
)
Variant = Annotated[str, arg(metavar="VARIANT", help=VARIANTS)]
Output = Annotated[Path | None, arg(metavar="PATH")]
Seconds = Annotated[float, arg(metavar="SECONDS")]
Minutes = Annotated[float | None, arg(metavar="MINUTES")]


@dataclasses.dataclass
class Train:
    """Train a mixer on a task, test it once, and write the record. The same command resumes an interrupted run.

    Example: train --task text --mixer softmax --protocol laptop --max-minutes 60

    The defaults of `max-len`, `variant`, `model.*` and `train.*` are those of the given --task and --protocol.
    """

    task: Task
    mixer: MixerName
    """A name from `run_lra.py list`, package.module:Class, or path/my_file.py:Class."""
    max_len: int
    """Cut longer inputs to this many tokens."""
    variant: Variant
    model: cfg.Model
    train: cfg.Train
    protocol: ProtocolName = "quick"
    """A protocol, or with a recipe of the task `small+RECIPE`, which has columns of its own (docs/recipes.md)."""
    seed: int = 0
    """Seed of parameters, batches and dropout; it does not change the data."""
    mixer_options: MixerOptions = ()
    """Options of the mixer, as in `--mixer-options window=64`. Default: those of the protocol's source."""
    source: Source | None = None
    """Source of the data. Default: that of the protocol, else the first available source of the task."""
    limit: Annotated[int | None, arg(metavar="N")] = None
    """Evaluate on at most N examples. The leaderboard then lists the run as modified, apart from the others."""
    max_minutes: Minutes = None
    """Time limit. The run is tested before it, and recorded as truncated; the same command resumes it."""
    tensorboard: bool = False
    """Also write event files for TensorBoard, into runs/RUN/tensorboard. Every run writes runs/RUN/metrics.csv."""
    distributed: bool = False
    """This process is one of several that train the run: see docs/clusters.md."""

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
        print(api.summary(api.run_config(config, max_minutes=self.max_minutes, tensorboard=self.tensorboard)))
        return 0


@dataclasses.dataclass
class Evaluate:
    """Run the test of a finished run again, and compare the accuracy with its record."""

    run_name: RunName
    """Name of the run in runs/, or path of its directory."""

    def run(self) -> int:
        from lra.finished import evaluate_run

        result, recorded = evaluate_run(self.run_name)
        same = result.correct.sum() == recorded.correct
        print(f"test accuracy {result.accuracy:.4%} ({result.correct.sum()} of {len(result.correct)})")
        print(f"as recorded   {recorded.accuracy:.4%}: {'the same' if same else 'NOT THE SAME'}")
        return 0 if same else 1


@dataclasses.dataclass
class Attention:
    """Plot the L x L attention weights of trained mixers on one test example, one row per layer."""

    run_names: RunNames
    """Names of runs in runs/, or paths of their directories; all of the same task."""
    example: int = 0
    """Index of the example in the test split."""
    output: Path = Path("attention.png")

    def run(self) -> int:
        from lra.analysis import attention_maps

        for line in attention_maps.draw(self.run_names, self.example, self.output):
            print(line)
        print(self.output)
        return 0


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
        _print_results(self.protocol, labels)
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


@dataclasses.dataclass
class Submit:
    """Copy the record of a finished run from runs/ to results/ if it passes validation."""

    run_name: RunName
    """Name of the run in runs/, or path of its directory."""

    def run(self) -> int:
        from lra.record.submit import submit

        for path in submit(self.run_name):
            print(path)
        return 0


@dataclasses.dataclass
class Validate:
    """Check result records: schema, hashes, protocol, and the score if the task's labels are available."""

    paths: Positional[Annotated[tuple[Path, ...], arg(metavar="[PATH ...]")]] = ()
    """Files or directories. Default: results/."""

    def run(self) -> int:
        from rich.console import Console

        from lra.record.validate import validate, validation_table

        reports = validate(self.paths)
        Console().print(validation_table(reports))
        return 1 if any(r.verdict == "FAIL" for r in reports) else 0


@dataclasses.dataclass
class Leaderboard:
    """Show the leaderboard of your own runs and the committed records."""

    format: BoardFormat = "table"
    protocol: ProtocolName | None = None
    """Show one protocol. Default: all."""

    def run(self) -> int:
        _print_board(self.format, self.protocol)
        return 0


@dataclasses.dataclass
class List:
    """List tasks, mixers with their options, and protocols."""

    def run(self) -> int:
        from rich.console import Console

        from lra import catalog

        console = Console()
        for part in catalog.everything():
            console.print(part)
        return 0


@dataclasses.dataclass
class Check:
    """Test mixers: padding, gradients, dropout, precision, saving, and scaling with the length."""

    mixers: MixerNames = ()
    """Names from `run_lra.py list`, package.module:Class, or path/my_file.py:Class. Default: all in `models/mixers`."""
    mixer_options: MixerOptions = ()
    """Options of the mixer, as in `--mixer-options window=64`."""
    quick: bool = False
    """Skip the slow checks: long inputs, a new process, scaling."""

    def run(self) -> int:
        from lra.contract import report as check
        from lra.runtime.devices import use_compilation_cache

        use_compilation_cache()
        return 0 if check.check_all(self.mixers, self.mixer_options, quick=self.quick) else 1


@dataclasses.dataclass
class Bench:
    """Measure speed, memory and scaling of mixers on random bytes. The same command resumes it."""

    mixers: MixerNames = ()
    """Names from `run_lra.py list`, package.module:Class, or path/my_file.py:Class. Default: all in `models/mixers`."""
    lengths: tuple[int, ...] = (1024, 2048, 3072, 4096)
    """Up to 65,536."""
    protocol: Literal["small", "lra"] | None = None
    """Protocol whose model sizes are used. Default: lra on an accelerator, small on a CPU."""
    batch_size: int = 32
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation; parameters, normalizers and sums stay float32."""
    seconds: Seconds = 60.0
    """Time per mixer and length, including compilation; at least one step is measured."""
    output: Output = None
    """Directory of bench.json, bench.md and bench.png. Default: runs/bench."""

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
    """Read or generate the data of tasks, check it, and store it."""

    tasks: tuple[Task, ...] = cfg.TASKS
    variant: Variant = "full"
    source: Source | None = None
    """Source of the data. Default: the first available source of the task."""

    def run(self) -> int:
        from lra.data.prepare import prepare
        from lra.runtime.progress import data_progress

        missing = 0
        for task in self.tasks:
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
    """Check the data of tasks: counts, class balance, lengths, hashes, duplicates."""

    tasks: tuple[Task, ...] = cfg.TASKS
    variant: Variant = "full"
    source: Source | None = None
    """Source of the data. Default: the first available source of the task."""

    def run(self) -> int:
        from rich.console import Console

        from lra.data.prepare import prepare
        from lra.data.verify import verify, verify_table
        from lra.runtime.progress import data_progress
        from tasks import load_task

        console, missing, bad = Console(), [], []
        for task in self.tasks:
            try:
                data = prepare(task, self.variant, self.source, progress=data_progress)
            except DataError as error:
                print(f"error: {error}", file=sys.stderr)
                missing.append(task)
                continue
            report = verify(data, load_task(task).CARD)
            console.print(verify_table(report))
            bad += [] if report.ok else [task]
        for names, what in ((missing, "no data"), (bad, "data with problems")):
            if names:
                print(f"{what}: {', '.join(names)} ({len(names)} of {len(self.tasks)} tasks)", file=sys.stderr)
        return 1 if missing or bad else 0


@dataclasses.dataclass
class Show:
    """Draw examples of a task: images by class, or excerpts of texts."""

    task: TaskName
    variant: Variant = "full"
    source: Source | None = None
    """Source of the data. Default: the first available source of the task."""
    output: Output = None
    """PNG file to write. Default: TASK-VARIANT.png."""

    def run(self) -> int:
        from lra.data.prepare import prepare
        from lra.data.preview import show
        from lra.runtime.progress import data_progress
        from tasks import load_task

        data = prepare(self.task, self.variant, self.source, allow_sample=True, progress=data_progress)
        path = self.output or Path(f"{self.task}-{self.variant}.png")
        print(show(data, load_task(self.task).CARD, path))
        return 0


@dataclasses.dataclass
class Export:
    """Write a task's data for other programs: in LRA's official layout, or as a tensorflow-datasets directory."""

    task: TaskName
    directory: Positional[Annotated[Path, arg(metavar="DIRECTORY")]]
    """Directory to write to; it is created."""
    format: Literal["lra", "tfds"] = "tfds"
    variant: Variant = "full"
    source: Source | None = None
    """Source of the data. Default: the first available source of the task."""

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

    verb: OmitArgPrefixes[Prepare | Verify | Show | Export]

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


def _print_results(protocol: str, labels: set[str]) -> None:
    """Print the results of a suite, write the leaderboard as a web page, and print what to do next."""
    from rich.console import Console

    from lra.leaderboard import build as leaderboard
    from lra.leaderboard.summary import summary
    from lra.paths import write_atomically
    from lra.record import files as record

    board = leaderboard.board(record.find())
    print()
    Console().print(summary(board, protocol, labels))
    page = runs_directory() / "leaderboard.html"
    write_atomically(page, str(leaderboard.render(board, "html")) + "\n")
    shown = page.relative_to(Path.cwd()) if page.is_relative_to(Path.cwd()) else page
    print(f"All results:    python run_lra.py leaderboard, or the page {shown}")
    print("Next:           python run_lra.py train --task listops --mixer cosformer --protocol laptop")
    print("Documentation:  docs/README.md")


def _train_defaults(argv: list[str]) -> Train:
    """Return the command `train` with the defaults of the task, protocol and mixer in the arguments."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument("--task", default="listops")
    peek.add_argument("--protocol", default="quick")
    peek.add_argument("--mixer", default="softmax")
    peek.add_argument("--mixer-options", nargs="*")
    known, _ = peek.parse_known_args(argv)
    valid = cfg.protocols(known.task if known.task in cfg.TASKS else "listops") or cfg.protocols("listops")
    base = next(iter(valid.values()))
    with contextlib.suppress(ConfigError):  # tyro reports an unknown task or protocol
        base = cfg.protocol(base.task, known.protocol)
    if known.mixer in base.forms:
        from lra import api

        with contextlib.suppress(ConfigError):  # `run` reports it
            base, _, _ = api.protocol_and_mixer(base.task, known.mixer, base.name, known.mixer_options or None)
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
    except BrokenPipeError:  # the reader of standard output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (LraError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "exit_status", 1)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return Interrupted.exit_status
    except OSError as error:
        if (message := explain(error)) is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 1


def command_line() -> int:
    """Run `main` in a process of its own; the entry point of the command `lra`."""
    gc.set_threshold(50_000)  # objects made by imports and tracing stay, so collecting often only costs time
    for stream in (sys.stdout, sys.stderr):
        # A terminal of another encoding shows "?" for a character that it lacks. Files are UTF-8 everywhere.
        encoding = {} if stream.isatty() else {"encoding": "utf-8"}
        stream.reconfigure(errors="replace", line_buffering=True, **encoding)  # type: ignore[union-attr]
    return main()


if __name__ == "__main__":
    sys.exit(command_line())
