"""Many runs: tasks x mixers x seeds, each in a process of its own.

A process of its own makes the measured peak of memory true, and a run that dies takes no other with it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lra.api import configure
from lra.data import prepare
from lra.floors import write_floors
from lra.interrupt import Interrupted
from lra.progress import data_progress
from tasks import load_task

RUN_LRA = Path(__file__).resolve().parent.parent / "run_lra.py"


def suite(
    tasks: Sequence[str], mixers: Sequence[str], *, protocol: str, seeds: int = 1, max_minutes: float | None = None
) -> list[str]:
    """Runs what is not complete yet, and computes the floors of each task; returns the runs that failed.

    Args:
      seeds: how many: 0 .. seeds - 1
      max_minutes: of each run

    Raises:
      ConfigError, DataError: before the first run starts.
      Interrupted: by Ctrl-C or SIGTERM; the run under way has saved its state.
    """
    runs = [(task, mixer, seed) for task in tasks for mixer in mixers for seed in range(seeds)]
    configs = {run: configure(run[0], run[1], protocol=protocol, seed=run[2]) for run in runs}
    for task in tasks:
        config = next(c for run, c in configs.items() if run[0] == task)
        data = prepare(task, config.variant, allow_sample=config.allow_sample, progress=data_progress)
        write_floors(data, load_task(task).CARD)
    failed = []
    for number, (task, mixer, seed) in enumerate(runs, 1):
        print(f"[{number}/{len(runs)}] {task} {mixer} seed {seed}", file=sys.stderr, flush=True)
        words = ["--task", task, "--mixer", mixer, "--protocol", protocol, "--seed", str(seed)]
        if max_minutes is not None:
            words += ["--max-minutes", str(max_minutes)]
        status = _run([sys.executable, str(RUN_LRA), "train", *words])
        if status == Interrupted.exit_status:
            raise Interrupted(f"suite: stopped in run {number} of {len(runs)}; the same command goes on from there")
        if status:
            failed.append(f"{task} {mixer} seed {seed} (exit status {status})")
    return failed


def _run(command: list[str]) -> int:
    """The exit status of a child. A terminal's Ctrl-C reaches it by itself; SIGTERM is passed on."""
    child = subprocess.Popen(command)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        return child.wait()
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
