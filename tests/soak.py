"""Kills a tiny run again and again, until it is whole, and again: nothing may be lost, nothing may be other.

    python -m tests.soak --rounds 200

Each kill is SIGKILL at a random moment, from the import of JAX to the writing of the record. A run that was killed any
number of times must end with the curve, the validations, the predictions and the parameters of one that was not, bit by
bit. Prints a line for each run and a verdict; the exit status is 0 if all are equal.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from lra.paths import ROOT
from lra.record import files as record
from lra.training.checkpoints import PROGRESS

RUN = [
    *("train", "--task", "listops", "--mixer", "cosformer", "--protocol", "quick", "--source", "sample"),
    *("--limit", "50", "--train.batch-size", "8", "--train.eval-every", "20", "--train.steps", "500"),
    *("--model.layers", "1", "--model.d-model", "16", "--model.qkv-dim", "16", "--model.mlp-dim", "16"),
    *("--model.dropout", "0.1", "--model.attention-dropout", "0.1", "--max-len", "64"),
]
COMPARED = ("curve", "validation", "selection", "test", "steps", "config_sha256")


def start(runs: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "LRA_RUNS": str(runs), "LRA_PREPARED": str(ROOT / ".cache" / "prepared-for-tests")}
    words = [sys.executable, str(ROOT / "run_lra.py"), *RUN]
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def result(runs: Path) -> dict[str, Any] | None:
    paths = list(runs.glob("*/records/*.json"))
    return record.read(paths[0]).as_json() if paths else None


def parameters(runs: Path) -> dict[str, np.ndarray]:
    """Return every array of the last checkpoint, under its path."""
    newest = max(runs.glob("*/checkpoints/latest/*.npz"), key=lambda path: int(path.stem))
    with np.load(newest) as file:
        return {name: file[name] for name in file.files if name != PROGRESS}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="kills")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    place, draw = Path(tempfile.mkdtemp(prefix="soak-")), random.Random(args.seed)
    begun = time.monotonic()
    start(place / "whole").wait()
    took = time.monotonic() - begun
    want = result(place / "whole")
    assert want is not None, "the uninterrupted run wrote no record"
    numbers = parameters(place / "whole")
    kills = runs = unequal = 0
    while kills < args.rounds:
        runs += 1
        here, mine = place / f"run{runs}", 0
        while result(here) is None:
            process, begun = start(here), time.monotonic()
            try:
                process.wait(took * draw.uniform(0.3, 1.0) if kills < args.rounds else None)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                mine, kills = mine + 1, kills + 1
            else:
                took = min(took, time.monotonic() - begun) if mine == 0 else took
        got, found = result(here), parameters(here)
        assert got is not None
        same = all(got[k] == want[k] for k in COMPARED) and found.keys() == numbers.keys()
        same = same and all(np.array_equal(found[name], numbers[name]) for name in numbers)
        unequal += not same
        print(f"run {runs}: {mine} kills, {'equal' if same else 'NOT EQUAL'}; {kills} kills in all", flush=True)
        shutil.rmtree(here)
    print(f"{kills} kills, {runs} runs, {unequal} of them not equal to the uninterrupted one")
    shutil.rmtree(place)
    return 1 if unequal else 0


if __name__ == "__main__":
    sys.exit(main())
