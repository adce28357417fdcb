"""Measure the seconds from the command `train` to its first step, with an empty and with a filled compilation cache.

python benchmarks/start_up.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lra.paths import ROOT

CHILD = """
import runpy, sys, time
sys.path.insert(0, {root!r})
from lra import api
from lra.training import trainer
real = trainer.train_steps

def first(*arguments):
    import jax
    jax.block_until_ready(real(*arguments))
    print(time.time())
    sys.exit()

trainer.train_steps = first
from lra.runtime import devices
devices.ROOT = type(devices.ROOT)({cache!r})
sys.argv = ["run_lra.py", "train", "--task", {task!r}, "--mixer", {mixer!r}, "--protocol", "small", "--seed", "{seed}"]
runpy.run_path({root!r} + "/run_lra.py", run_name="__main__")
"""


def first_step(task: str, mixer: str, seed: int, cache: Path) -> float:
    """Return the seconds from the start of the interpreter until the parameters of step 1 are computed."""
    child = CHILD.format(root=str(ROOT), cache=str(cache), task=task, mixer=mixer, seed=seed)
    environment = {**os.environ, "LRA_RUNS": str(cache / "runs")}
    begin = time.time()
    done = subprocess.run([sys.executable, "-c", child], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout.split()[-1]) - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="listops")
    parser.add_argument("--mixer", default="cosformer")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        cold = first_step(args.task, args.mixer, 0, Path(cache))
        warm = [first_step(args.task, args.mixer, 1 + n, Path(cache)) for n in range(args.rounds)]
    print(f"{args.task} {args.mixer}: first step after {cold:.1f} s with an empty compilation cache,")
    print(f"then, with other seeds, after {statistics.median(warm):.1f} s ({min(warm):.1f} to {max(warm):.1f})")


if __name__ == "__main__":
    main()
