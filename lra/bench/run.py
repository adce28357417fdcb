"""`run_lra.py bench`: speed and memory of mixers at several lengths, as in the efficiency tables of LRA's papers.

Each cell is measured in a process of its own (`lra.bench.measure`), so a peak of memory is its own and a cell that dies
takes no other with it. This process never starts JAX, for an accelerator may be had by one process only. `bench.json`
is written after every cell: what was measured by the same code, under the same protocol, in the same environment is
not measured again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loky.process_executor import TerminatedWorkerError

from lra import config as cfg
from lra.api import configure, find_mixer
from lra.bench import roofline as bench_roofline
from lra.bench.measure import Cell, Speed, measure
from lra.bench.roofline import Roofline
from lra.config import RunConfig
from lra.errors import ConfigError, Interrupted
from lra.provenance.environment import code_state, environment, now
from lra.runtime.devices import use_every_core
from lra.typed import mistyped
from models import mixers
from tasks.core import in_a_process

LONGEST = 65_536
SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class Setting:
    """What cells of one table have in common.

    protocol: `lra@1`: that of Text, with the length of the cell
    dtype:    of the computation; parameters are float32
    command:  the last one
    """

    created: str
    command: str
    protocol: str
    batch_size: int
    dtype: str
    roofline: Roofline
    environment: dict[str, Any]
    code: dict[str, Any]

    def same_as(self, other: Setting) -> bool:
        """Whether cells of both may stand in one table."""

        def meaning(s: Setting) -> tuple[Any, ...]:
            return s.protocol, s.batch_size, s.dtype, s.environment, s.code["sha256"]

        return meaning(self) == meaning(other)


@dataclasses.dataclass(frozen=True)
class Results:
    """What `bench.json` holds: a cell for each (mixer, length), in the order of measuring."""

    setting: Setting
    cells: tuple[Cell, ...] = ()

    def with_cell(self, cell: Cell) -> Results:
        others = (c for c in self.cells if (c.mixer, c.length) != (cell.mixer, cell.length))
        return dataclasses.replace(self, cells=(*others, cell))

    def write(self, path: Path) -> None:
        """As a whole or not at all."""
        said = {"schema": SCHEMA, "kind": "bench", **dataclasses.asdict(self.setting)}
        said["cells"] = [dataclasses.asdict(c) for c in self.cells]
        scratch = path.with_name(f".{path.name}.{os.getpid()}.partial")
        scratch.write_text(json.dumps(said, indent=1) + "\n")
        scratch.replace(path)

    @classmethod
    def read(cls, path: Path) -> Results:
        """Raises ConfigError: the file is not what `write` writes."""
        try:
            said = json.loads(path.read_text())
            if (said.pop("schema"), said.pop("kind")) != (SCHEMA, "bench"):
                raise ValueError("another kind or schema")
            cells = tuple(map(_cell, said.pop("cells")))
            said["roofline"] = Roofline(**said["roofline"])
            found = cls(Setting(**said), cells)
            if wrong := mistyped(found, cls):
                raise ValueError(wrong)
            return found
        except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ConfigError(f"{path} is not a benchmark of this version ({error}); give another --output") from error


def _cell(fields: dict[str, Any]) -> Cell:
    speeds = {
        name: Speed(fields[name]["steps"], tuple(fields[name]["seconds"]))
        for name in ("training", "inference")
        if fields[name] is not None
    }
    return Cell(**{**fields, **speeds})


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
    """Measures what `directory/bench.json` does not hold yet; cells that failed are tried again.

    Args:
      names: of mixers, see `models.mixers`; none: all of the project
      protocol: gives the sizes; None: `lra` on an accelerator, `small` on a CPU
      dtype: float32 or bfloat16, of the computation
      seconds: of a cell, see `lra.bench.measure.measure`

    Raises:
      ConfigError: there is no such mixer or protocol, or a length or the batch cannot be; nothing was run.
      Interrupted: by Ctrl-C; the cells that were done are kept.
    """
    names = tuple(names) or mixers.available()
    _check(lengths, batch_size, seconds)
    for name in names:
        find_mixer(name)
    here: dict[str, Any] = in_a_process(_environment)
    protocol = protocol or ("small" if here["backend"] == "cpu" else "lra")
    overrides = {"train.batch_size": batch_size, "model.dtype": dtype}
    configs = {
        (name, length): configure(
            "text", name, protocol=protocol, options={}, overrides={**overrides, "max_len": length}
        )
        for length in sorted(set(lengths))  # mixers of one length one after another: a slow hour falls on all alike
        for name in dict.fromkeys(names)
    }
    words = [*names, "--lengths", *map(str, lengths), "--protocol", protocol]
    words += ["--batch-size", str(batch_size), "--dtype", dtype, "--seconds", f"{seconds:g}"]
    setting = Setting(
        created=now(),
        command=f"python run_lra.py bench {shlex.join(Path(w).name if '.py' in w else w for w in words)}",
        protocol=f"{protocol}@{cfg.protocol('text', protocol).version}",
        batch_size=batch_size,
        dtype=dtype,
        roofline=in_a_process(bench_roofline.measure, dtype),
        environment=here,
        code=code_state(),
    )
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "bench.json"
    results = go_on(path, setting)
    results.write(path)
    done = {(c.mixer, c.length) for c in results.cells if c.status != "failed"}
    for number, ((name, length), config) in enumerate(configs.items(), 1):
        if (config.mixer_label, length) in done:
            continue
        place = f"[{number}/{len(configs)}] {name} {length:,}"
        try:
            cell = measured_apart(config, seconds)
        except KeyboardInterrupt:
            raise Interrupted(f"bench: stopped in {place}; the same command resumes it") from None
        results = results.with_cell(cell)
        results.write(path)
        print(f"{place}: {summary(cell)}", file=sys.stderr, flush=True)
    return results


def go_on(path: Path, setting: Setting) -> Results:
    """The results at `path` if they are of the same setting. Others are set aside under a name with their date."""
    if not path.exists():
        return Results(setting)
    earlier = Results.read(path)
    if earlier.setting.same_as(setting):
        kept = dataclasses.replace(setting, created=earlier.setting.created, roofline=earlier.setting.roofline)
        return Results(kept, earlier.cells)
    aside = path.with_name(f"bench-{earlier.setting.created.translate({ord(c): None for c in '-:+'})}.json")
    path.replace(aside)
    print(f"{path}: of other code, protocol, batch, dtype or environment; now {aside.name}", file=sys.stderr)
    return Results(setting)


def measured_apart(config: RunConfig, seconds: float) -> Cell:
    """The cell, measured in a process of its own; one that failed if that process dies."""
    try:
        return in_a_process(measure, config, seconds)
    except TerminatedWorkerError as error:
        killed = "SIGKILL" in str(error)
        reason = "its process was killed; for memory, most likely" if killed else f"its process died: {error}"
        return Cell(config.mixer_label, config.max_len, "failed", " ".join(reason.split()))


def summary(cell: Cell) -> str:
    """One line about a cell."""
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
    for length in lengths:
        if not 1 <= length <= LONGEST:
            raise ConfigError(f"--lengths {length}: a length is 1 to {LONGEST:,}")
    if not lengths:
        raise ConfigError("--lengths: at least one")
    if batch_size < 1:
        raise ConfigError(f"--batch-size {batch_size}: at least 1")
    if not seconds > 0:
        raise ConfigError(f"--seconds {seconds:g}: more than 0")
