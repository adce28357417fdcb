"""Draw the attention weights of trained mixers on one test example, as in figure 5 of the cosFormer paper.

    python examples/attention_maps.py              # trains cosformer and softmax for a few minutes
    python examples/attention_maps.py RUN RUN      # draws finished runs: names in runs/, or paths

The picture has one row per layer and one column per head. Mixers that are not linear in v, or whose weights differ
between the features of a head, have no such weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lra
from lra.analysis import attention_maps
from lra.paths import runs_directory

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("runs", nargs="*", help="finished runs of one task; none: train cosformer and softmax")
parser.add_argument("--task", default="pathfinder", help="the task to train on")
parser.add_argument("--steps", type=int, help="training steps; default: those of the protocol quick")
parser.add_argument("--example", type=int, default=0, help="index in the test split")
parser.add_argument("--output", type=Path, default=Path("attention_maps.png"))
arguments = parser.parse_args()

runs = arguments.runs
if not runs:
    overrides = {"train.steps": arguments.steps} if arguments.steps else {}
    for mixer in ("cosformer", "softmax"):
        record = lra.run(arguments.task, mixer, protocol="quick", seed=0, overrides=overrides)
        print(f"{mixer}: test accuracy {record.test.accuracy:.1%}, {record.seconds:.0f} s")
        runs.append(str(runs_directory() / record.id))

for line in attention_maps.draw(runs, arguments.example, arguments.output):
    print(line)
print(arguments.output)
