"""Part 5: cosFormer under `small`, on as many tasks as fit. Runs are resumed by the next call of the same command."""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu.lines import Settings
from benchmarks.gpu.smoke import TINY
from benchmarks.gpu.worker import Case
from lra import api
from lra import config as cfg
from lra.data.prepare import prepare
from lra.paths import runs_directory
from lra.runtime.progress import data_progress

TASKS = ("listops", "text", "image", "pathfinder")  # the one whose data take longest to generate last
MIXER = "cosformer"
COPIES = "trained"  # not `records`: a run's directory has that name
SHARE = 0.85  # of the time of a task, for training and its test; the rest is for compilation


def cases(settings: Settings) -> dict[str, Case]:
    """Return a case for each task. Each has an equal share of the time that the earlier ones have left."""
    end = time.monotonic() + settings.seconds
    tasks = TASKS[:2] if settings.tiny else TASKS
    return {task: partial(_train, settings, task, end, len(tasks) - n) for n, task in enumerate(tasks)}


def _train(settings: Settings, task: str, end: float, tasks_left: int) -> dict[str, Any]:
    tiny = settings.tiny
    protocol, source = ("quick", "sample" if task == "listops" else "official") if tiny else ("small", None)
    begin = time.monotonic()
    data = prepare(task, cfg.protocol(task, protocol).variant, source, progress=data_progress)
    prepared = time.monotonic()
    minutes = SHARE * max((end - prepared) / tasks_left, 1.0) / 60
    overrides = {**TINY, "train.steps": 4} if tiny else {}
    record = api.run(task, MIXER, protocol=protocol, source=source, max_minutes=minutes, overrides=overrides)
    copies = Path(settings.output) / COPIES
    copies.mkdir(exist_ok=True)
    for path in (runs_directory() / record.id / "records").glob("[!.]*.json"):
        shutil.copy(path, copies)
    return {
        "task": task,
        "source": data.source,
        "preparation_seconds": prepared - begin,
        "run": record.id,
        "run_status": record.status,
        "steps_done": record.steps.done,
        "steps_planned": record.steps.planned,
        "steps_per_second": record.steps_per_second,
        "test_accuracy": record.test.accuracy if record.test else None,
        "peak_bytes": record.peak_bytes,
    }
