"""Part 3: speed and memory of training steps from 1K to 16K tokens, by `lra.bench`; each cell is its own process.

This process starts no JAX, because on a GPU the first process that does reserves the memory.
"""

from __future__ import annotations

import dataclasses
import typing
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu import lines
from benchmarks.gpu.lines import Settings
from benchmarks.gpu.smoke import TINY
from benchmarks.gpu.worker import Case
from lra.api import configure
from lra.bench import roofline
from lra.bench.roofline import Roofline
from lra.bench.run import measure_in_subprocess
from models import mixers
from tasks.processes import run_in_subprocess

MIXERS = ("cosformer", "linear", "softmax", "performer")
LENGTHS = (1_024, 4_096, 16_384, 2_048, 8_192)  # where the time ends early, the first three show the growth
BATCH = 32
DTYPE = "float32"
SECONDS = 15.0  # of a cell, compilation included
ROOFLINE = "roofline"


def cases(settings: Settings) -> dict[str, Case]:
    """Return the roofline, then a case for each length, mixer and implementation of the mixer."""
    found: dict[str, Case] = {ROOFLINE: _roofline}
    lengths, names = ((32,), ("softmax",)) if settings.tiny else (LENGTHS, MIXERS)
    for length in lengths:
        for mixer in names:
            for options in implementations(mixer):
                label = mixers.label(mixer, options)
                found[f"{label} {length}"] = partial(_measure, settings, mixer, options, length)
    return found


def implementations(mixer: str) -> list[dict[str, Any]]:
    """Return the options that select each implementation of a mixer; [{}] if it has one."""
    option = mixers.options(mixers.resolve(mixer).cls).get("implementation")
    choices = typing.get_args(option.annotation) if option else ()
    return [{"implementation": choice} for choice in choices] or [{}]


def _roofline() -> dict[str, Any]:
    return dataclasses.asdict(run_in_subprocess(roofline.measure, DTYPE))


def _measure(settings: Settings, mixer: str, options: dict[str, Any], length: int) -> dict[str, Any]:
    sizes = {**TINY, "train.batch_size": 2} if settings.tiny else {"train.batch_size": BATCH}
    overrides = {**sizes, "max_len": length, "model.dtype": DTYPE}
    config = configure("text", mixer, protocol="small", options=options, overrides=overrides)
    cell = measure_in_subprocess(config, 1.0 if settings.tiny else SECONDS)
    fields = dataclasses.asdict(cell)
    fields |= {"status": "ok" if cell.status == "measured" else cell.status, "error": cell.reason or None}
    if cell.training is None or cell.flops is None or cell.moved_bytes is None:
        return fields
    fields |= {"steps_per_second": cell.training.per_second, "flops_per_second": cell.flops * cell.training.per_second}
    measured = lines.results(Path(settings.output), settings.part)[ROOFLINE]
    if measured["status"] != "ok":
        return fields
    roof = Roofline(measured["flops_per_second"], measured["bytes_per_second"])
    return fields | {"roofline_share": roof.bound(cell.flops, cell.moved_bytes) * cell.training.per_second}
