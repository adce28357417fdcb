"""Commands on mixers: `list` them, `check` them against their contract, and measure their speed with `bench`."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lra.commands.arguments import MixerOptions, Output
from lra.paths import runs_directory

MixerNames = Positional[Annotated[tuple[str, ...], arg(name="mixers", metavar="[MIXER ...]")]]


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
    seconds: Annotated[float, arg(metavar="SECONDS")] = 60.0
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
