"""Commands on one run: `train` it, `evaluate` it again, draw its `attention`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from lra import config as cfg
from lra.commands.arguments import Minutes, MixerOptions, ProtocolName, RunName, Source, Task, Variant
from lra.errors import ConfigError


@dataclasses.dataclass
class Train:
    """Train a mixer on a task, test it once, and write the record. The same command resumes an interrupted run.

    Example: train --task text --mixer softmax --protocol laptop --max-minutes 60

    The defaults of `max-len`, `variant`, `model.*` and `train.*` are those of the given --task and --protocol.
    """

    task: Task
    mixer: Annotated[str, arg(metavar="MIXER")]
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


def train_defaults(argv: list[str]) -> Train:
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

    run_names: Positional[Annotated[tuple[str, ...], arg(name="runs", metavar="RUN [RUN ...]")]]
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
