"""The process of one part: `python -m benchmarks.gpu.worker SETTINGS`, started by `benchmarks.gpu.__main__`.

Each part is a module with `cases(settings)`: functions by name, which return the fields of their result. A case that
raises is recorded, and the next one runs. After an error of the device the process ends with the status `RESTART`,
because CUDA refuses every later call of a process after some errors; the remaining cases run in a new process.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu import lines
from benchmarks.gpu.lines import Settings
from lra.errors import describe
from tasks.errors import DataError

Case = Callable[[], dict[str, Any]]
RESTART = 75
MODULES = ("environment", "smoke", "numerics", "speed", "utilisation", "training")  # by the number of the part
LONGEST_ERROR = 500  # characters


def run(settings: Settings, cases: Mapping[str, Case]) -> int:
    """Run the cases of a part that have no result yet, and return the exit status of this process."""
    output, part = Path(settings.output), settings.part
    done = lines.results(output, part)
    if not any(line["kind"] == "plan" for line in lines.read(output, part)):
        lines.append(output, part, "plan", cases=list(cases))
    for name in (name for name in cases if name not in done):
        lines.append(output, part, "start", case=name)
        begin, restart = time.perf_counter(), False
        try:
            fields = {"status": "ok", **cases[name]()}
        except DataError as error:
            fields = {"status": "no data", "error": str(error)}
        except Exception as error:
            traceback.print_exc()
            fields = {"status": "failed", "error": describe(error)[:LONGEST_ERROR]}
            restart = type(error).__name__ == "JaxRuntimeError" and "RESOURCE_EXHAUSTED" not in str(error)
        lines.append(output, part, "result", case=name, seconds=time.perf_counter() - begin, **fields)
        if restart:
            return RESTART
    return 0


def _end_with_the_parent() -> None:
    """Kill this process and those that it started once standard input, a pipe, is closed."""

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def main() -> int:
    _end_with_the_parent()
    fields = json.loads(sys.argv[1])
    settings = Settings(**fields | {"mixers": tuple(fields["mixers"])})
    return run(settings, importlib.import_module(f"benchmarks.gpu.{MODULES[settings.part]}").cases(settings))


if __name__ == "__main__":
    sys.exit(main())
