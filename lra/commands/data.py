"""Commands on data: `prepare`, `verify`, `show` and `export` it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from lra import config as cfg
from lra.commands.arguments import Output, Source, Task, TaskName, Variant
from tasks.errors import DataError


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
