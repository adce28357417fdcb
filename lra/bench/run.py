"""Measure speed and memory of mixers at several lengths (`run_lra.py bench`), as in the efficiency tables of LRA.

Each mixer at each length is measured in its own process (`lra.bench.measure`), so that peak memory is its own and a
crash affects no other result. This process never starts JAX, because only one process can use an accelerator.
`bench.json` is written after every result. Results of the same code, protocol and environment are not measured again.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from loky.process_executor import TerminatedWorkerError

from lra import config as cfg
from lra.api import configure, find_mixer
from lra.bench import roofline as bench_roofline
from lra.bench.measure import BenchResult, measure
from lra.bench.roofline import Roofline
from lra.config import RunConfig
from lra.errors import ConfigError, Interrupted
from lra.paths import write_atomically
from lra.provenance.environment import code_state, environment, now
from lra.runtime.devices import use_every_core
from lra.typed_json import from_json
from models import mixers
from tasks.processes import run_in_subprocess

LONGEST = 65_536
SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class BenchSetting:
    """What the results of one table have in common.

    Attributes:
      command: the last one
      protocol: name and version, as in `lra@1`, of the task Text
      dtype: of the computation; parameters are float32
    """

    created: str
    command: str
    protocol: str
    batch_size: int
    dtype: str
    roofline: Roofline
    environment: dict[str, Any]
    code: dict[str, Any]

    def comparable(self, other: BenchSetting) -> bool:
        """Return whether results of both settings can be listed in one table."""
        fields = attrgetter("protocol", "batch_size", "dtype", "environment")
        return fields(self) == fields(other) and self.code["sha256"] == other.code["sha256"]


@dataclasses.dataclass(frozen=True)
class Results:
    """The content of `bench.json`: one result for each (mixer, length), in the order of measurement."""

    setting: BenchSetting
    cells: tuple[BenchResult, ...] = ()

    def with_cell(self, cell: BenchResult) -> Results:
        """Return these results with that of `cell.mixer` and `cell.length` added or replaced."""
        others = (c for c in self.cells if (c.mixer, c.length) != (cell.mixer, cell.length))
        return dataclasses.replace(self, cells=(*others, cell))

    def write(self, path: Path) -> None:
        """Write the results as JSON."""
        fields = {"schema": SCHEMA, "kind": "bench", **dataclasses.asdict(self.setting)}
        fields["cells"] = [dataclasses.asdict(c) for c in self.cells]
        write_atomically(path, json.dumps(fields, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read what `write` wrote.

        Raises:
          ConfigError: the file has another schema or a field of the wrong type
        """
        try:
            fields = json.loads(path.read_text())
            if (fields.pop("schema"), fields.pop("kind")) != (SCHEMA, "bench"):
                raise ValueError("another kind or schema")
            nested = json.dumps({"cells": fields.pop("cells"), "setting": fields})
            return from_json(cls, nested)
        except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ConfigError(f"{path} is not a benchmark of this version ({error}); give another --output") from error


def bench(
    names: Sequence[str],
    lengths: Sequence[int],
    *,
    protocol: str | None,
    batch_size: int,
    dtype: str,
    seconds: float,
    directory: Path,
) -> Results:
    """Measure what `directory/bench.json` does not contain yet, or contains as failed.

    Args:
      names: of mixers, see `models.mixers`; none: all of the project
      protocol: gives the sizes; None: `lra` on an accelerator, `small` on a CPU
      dtype: float32 or bfloat16, of the computation
      seconds: for each result, see `lra.bench.measure.measure`

    Raises:
      ConfigError: a mixer or protocol is unknown, or a length or the batch is invalid; nothing was run.
      Interrupted: by Ctrl-C; finished results are kept.
    """
    names = tuple(names) or mixers.available()
    _check(lengths, batch_size, seconds)
    for name in names:
        find_mixer(name)
    current: dict[str, Any] = run_in_subprocess(_environment)
    protocol = protocol or ("small" if current["backend"] == "cpu" else "lra")
    overrides = {"train.batch_size": batch_size, "model.dtype": dtype}
    configs = [
        configure("text", name, protocol=protocol, options={}, overrides={**overrides, "max_len": length})
        for length in sorted(set(lengths))  # all mixers of one length in turn: load on the machine affects them all
        for name in dict.fromkeys(names)
    ]
    words = [*names, "--lengths", *map(str, lengths), "--protocol", protocol]
    words += ["--batch-size", str(batch_size), "--dtype", dtype, "--seconds", f"{seconds:g}"]
    setting = BenchSetting(
        created=now(),
        command=f"python run_lra.py bench {shlex.join(Path(w).name if '.py' in w else w for w in words)}",
        protocol=f"{protocol}@{cfg.protocol('text', protocol).version}",
        batch_size=batch_size,
        dtype=dtype,
        roofline=run_in_subprocess(bench_roofline.measure, dtype),
        environment=current,
        code=code_state(),
    )
    path = directory / "bench.json"
    results = resume(path, setting)
    results.write(path)
    done = {(c.mixer, c.length) for c in results.cells if c.status != "failed"}
    for number, config in enumerate(configs, 1):
        if (config.mixer_label, config.max_len) in done:
            continue
        title = f"[{number}/{len(configs)}] {config.mixer_label} {config.max_len:,}"
        try:
            cell = measure_in_subprocess(config, seconds)
        except KeyboardInterrupt:
            raise Interrupted(f"bench: stopped in {title}; the same command resumes it") from None
        results = results.with_cell(cell)
        results.write(path)
        print(f"{title}: {summary(cell)}", file=sys.stderr, flush=True)
    return results


def resume(path: Path, setting: BenchSetting) -> Results:
    """Return the results at `path` if their setting is comparable; else rename the file and return empty results."""
    if not path.exists():
        return Results(setting)
    earlier = Results.read(path)
    if earlier.setting.comparable(setting):
        kept = dataclasses.replace(setting, created=earlier.setting.created, roofline=earlier.setting.roofline)
        return Results(kept, earlier.cells)
    renamed = path.replace(path.with_name(f"bench-{earlier.setting.created.replace('-', '').replace(':', '')}.json"))
    print(f"{path}: of other code, protocol, batch, dtype or environment; renamed {renamed.name}", file=sys.stderr)
    return Results(setting)


def measure_in_subprocess(config: RunConfig, seconds: float) -> BenchResult:
    """Return `measure` of a process of its own; a failed result if that process dies."""
    try:
        return run_in_subprocess(measure, config, seconds)
    except TerminatedWorkerError as error:
        killed = "SIGKILL" in str(error)
        reason = "its process was killed, probably for lack of memory" if killed else f"its process died: {error}"
        return BenchResult(config.mixer_label, config.max_len, "failed", " ".join(reason.split()))


def summary(cell: BenchResult) -> str:
    """Return a result in one line."""
    if cell.status == "oom" and cell.needed_bytes and cell.limit_bytes:
        return f"OOM: needs {cell.needed_bytes / 2**30:.1f} GiB of {cell.limit_bytes / 2**30:.1f}"
    if cell.training is None or cell.inference is None:
        return f"{'OOM' if cell.status == 'oom' else 'failed'}: {cell.reason}"
    speeds = f"{cell.training.per_second:.3g} training and {cell.inference.per_second:.3g} inference steps/s"
    return f"{speeds} ({cell.training.steps} and {cell.inference.steps} steps)"


def _environment() -> dict[str, Any]:
    use_every_core()
    return environment()


def _check(lengths: Sequence[int], batch_size: int, seconds: float) -> None:
    if not lengths:
        raise ConfigError("--lengths: at least one is needed")
    for length in lengths:
        if not 1 <= length <= LONGEST:
            raise ConfigError(f"--lengths {length}: a length is 1 to {LONGEST:,}")
    if batch_size < 1:
        raise ConfigError(f"--batch-size {batch_size}: must be at least 1")
    if not seconds > 0:
        raise ConfigError(f"--seconds {seconds:g}: must be more than 0")
