"""Many runs: tasks x mixers x seeds, each in a process of its own; with `tune`, learning rates too.

A process of its own makes the measured peak of memory true, and a run that dies takes no other with it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lra import tuning
from lra.api import configure
from lra.data import prepare
from lra.floors import write_floors
from lra.interrupt import Interrupted
from lra.progress import data_progress
from tasks import load_task

RUN_LRA = Path(__file__).resolve().parent.parent / "run_lra.py"


def suite(
    tasks: Sequence[str],
    mixers: Sequence[str],
    *,
    protocol: str,
    seeds: int = 1,
    together: bool = False,
    max_minutes: float | None = None,
    tune: bool = False,
) -> list[str]:
    """Runs what is not complete yet, and computes the floors of each task; returns the runs that failed.

    Args:
      seeds: how many: 0 .. seeds - 1
      together: all seeds of a task and mixer in one process and program
      max_minutes: of each run
      tune: choose each mixer's learning rate on validation first (`lra.tuning`); a task without a
        validation split keeps the protocol's rate

    Raises:
      ConfigError, DataError: before the first run starts.
      Interrupted: by Ctrl-C or SIGTERM; the run under way has saved its state.
    """
    cells = [(task, mixer) for task in tasks for mixer in mixers]
    configs = {cell: configure(*cell, protocol=protocol) for cell in cells}
    data_of = {}
    for task in tasks:
        config = next(c for (name, _), c in configs.items() if name == task)
        data = prepare(task, config.variant, allow_sample=config.allow_sample, progress=data_progress)
        write_floors(data, load_task(task).CARD)
        data_of[task] = data.sha256
    failed = []
    for number, (task, mixer) in enumerate(cells, 1):
        place = f"[{number}/{len(cells)}] {task} {mixer}"
        words = ["--task", task, "--mixer", mixer, "--protocol", protocol]
        if max_minutes is not None:
            words += ["--max-minutes", str(max_minutes)]
        if tune and load_task(task).CARD.selection == "validation":
            records = {}
            for rate, config in tuning.trials(task, mixer, protocol).items():
                failed += _train(f"{place} rate {rate:g}", [*words, "--train.learning-rate", str(rate)])
                if (record := tuning.run_record(config, data_of[task])) is not None:
                    records[rate] = record
            if len(records) < len(tuning.FACTORS):
                failed.append(f"{place}: not every rate of the grid came to its end, so none was chosen")
                continue
            words += ["--train.learning-rate", str(tuning.write_tuning(records))]
        elif tune:
            print(f"{place}: {task} has no validation split to choose a rate by", file=sys.stderr)
        if together and seeds > 1:
            failed += _train(f"{place} seeds 0 to {seeds - 1}", [*words, "--together", str(seeds)])
            continue
        for seed in range(seeds):
            failed += _train(f"{place} seed {seed}", [*words, "--seed", str(seed)])
    return failed


def _train(place: str, words: list[str]) -> list[str]:
    """Runs `train` in a process of its own; what failed, for the list of the suite."""
    print(place, file=sys.stderr, flush=True)
    status = _run([sys.executable, str(RUN_LRA), "train", *words])
    if status == Interrupted.exit_status:
        raise Interrupted(f"suite: stopped in {place}; the same command goes on from there")
    return [f"{place} (exit status {status})"] if status else []


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
