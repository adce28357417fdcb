"""Try and measure the project on this machine's accelerator, or on its CPU: python -m benchmarks.gpu --minutes 10.

Results are appended to results.jsonl in the output directory as soon as they are known; report.md is written from them
after each part. docs/gpu.md describes both.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.gpu import lines, report
from benchmarks.gpu.lines import PARTS, Settings
from benchmarks.gpu.worker import RESTART
from lra.paths import ROOT, runs_directory
from lra.runtime.signals import stop_on_signal
from models.mixer_files import available

SHARES = {
    1: 0.30,
    2: 0.15,
    3: 0.25,
    4: 0.15,
    5: 0.15,
}  # of the time; what a part leaves is divided among the later ones
ENVIRONMENT_SECONDS = 120.0
WORKER = (sys.executable, "-m", "benchmarks.gpu.worker")
POLL_SECONDS = 0.1
LOG_CHARACTERS = 500


@dataclasses.dataclass
class Session:
    """One call of the command.

    Attributes:
      stop: set by a signal
      clock: returns seconds
      command: starts the process of a part; its settings are appended
    """

    output: Path
    mixers: tuple[str, ...]
    tiny: bool
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    clock: Callable[[], float] = time.monotonic
    command: tuple[str, ...] = dataclasses.field(default_factory=lambda: WORKER)

    def run(self, parts: Sequence[int], seconds: float) -> None:
        """Run the environment and these parts, and write the report after each.

        Args:
          seconds: for all of them, divided by `SHARES`
        """
        deadline = self.clock() + seconds
        for part in (0, *parts):
            left = deadline - self.clock()
            share = SHARES[part] / sum(SHARES[p] for p in parts if p >= part) if part else 1.0
            self.run_part(part, share * left if part else min(left, ENVIRONMENT_SECONDS))
            report.write(self.output)

    def run_part(self, part: int, seconds: float) -> None:
        """Run a part until its cases are done, its time ends, or a signal arrives, and write its `end` line.

        A case whose process dies is recorded as crashed; the remaining cases run in a new process.
        """
        print(f"part {part}, {PARTS[part]}: at most {seconds:.0f} s", file=sys.stderr, flush=True)
        self._log(part).unlink(missing_ok=True)
        begin, status, error = self.clock(), "", None
        while not status:
            exit_status = self._run_process(part, begin + seconds)
            running, waiting = lines.left(self.output, part)
            if exit_status is None:
                status = "stopped" if self.stop.is_set() else "time limit"
            elif exit_status == 0:
                status = "complete"
            elif exit_status != RESTART and not running:
                status, error = "failed", self._log_end(part)
            for case in running:
                reason = f"its process ended with status {exit_status}: {self._log_end(part)}"
                how = ("cut off", f"{status} of the part") if exit_status is None else ("crashed", reason)
                lines.append(self.output, part, "result", case=case, status=how[0], error=how[1])
            if not status and not waiting:
                status = "complete"
        used = self.clock() - begin
        ended = {"status": status, "seconds": used, "limit": seconds, "left_out": waiting, "error": error}
        lines.append(self.output, part, "end", **ended)

    def _run_process(self, part: int, deadline: float) -> int | None:
        """Run the process of a part; return its exit status, or None if it had to be killed."""
        settings = Settings(part, str(self.output), self.mixers, self.tiny, deadline - self.clock())
        if settings.seconds <= 0 or self.stop.is_set():
            return None
        command = [*self.command, json.dumps(dataclasses.asdict(settings))]
        with self._log(part).open("ab") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
            try:
                while process.poll() is None:
                    if self.stop.is_set() or self.clock() >= deadline:
                        return None
                    self.stop.wait(POLL_SECONDS)
                return process.returncode
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
                process.communicate()

    def _log(self, part: int) -> Path:
        return self.output / f"part-{part}.log"

    def _log_end(self, part: int) -> str:
        return self._log(part).read_text("utf-8", errors="replace").strip()[-LOG_CHARACTERS:]


def main(words: Sequence[str] | None = None) -> int:
    """Return 0, 1 if something failed, or 130 after a signal."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="time limit of everything; default 10")
    parser.add_argument("--parts", type=int, nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--mixers", nargs="+", default=list(available()), help="of parts 1 and 2; default: all")
    parser.add_argument("--output", type=Path, default=runs_directory() / "gpu", help="default: runs/gpu")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try the command itself on a CPU")
    args = parser.parse_args(words)
    if not args.minutes > 0:
        parser.error(f"--minutes {args.minutes:g}: must be more than 0")
    output = args.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    earlier, now = output / lines.NAME, datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    if earlier.exists():
        earlier.replace(output / f"results-before-{now}.jsonl")
    with stop_on_signal() as stop:
        session = Session(output, tuple(args.mixers), args.tiny, stop)
        session.run(sorted(set(args.parts)), 60 * args.minutes)
    print(output / report.NAME)
    return 130 if stop.is_set() else int(bool(report.failures(output)))


if __name__ == "__main__":
    sys.exit(main())
