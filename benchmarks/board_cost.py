"""What a full board costs in arithmetic: every mixer on every task, with Path-X, under `small` and `lra`.

    python -m benchmarks.board_cost --seeds 5 > board_cost.md

Operations are those of a training step whose examples all fill the length (`lra.training.flops`), times the
protocol's steps and the seeds. This is an upper bound, because batches are cut to the lengths of their examples. Tests
and validations, a few per cent, are left out. Nothing is run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from lra.api import configure
from lra.bench.measure import Subject
from lra.config import TASKS
from models.mixers import available

PATHX: Mapping[str, object] = {"variant": "128", "max_len": 128 * 128}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--mixers", nargs="+", default=available())
    args = parser.parse_args()
    columns = [*TASKS, "path-x"]
    for protocol in ("small", "lra"):
        print(f"\n**`{protocol}`**, 10^15 operations of {args.seeds} seeds\n")
        print("| mixer | " + " | ".join(columns) + " | sum |\n| :-- |" + " --: |" * (len(columns) + 1))
        sums = [0.0] * (len(columns) + 1)
        for mixer in args.mixers:
            row = []
            for column in columns:
                task = "pathfinder" if column == "path-x" else column
                overrides = PATHX if column == "path-x" else None
                config = configure(task, mixer, protocol=protocol, overrides=overrides)
                row.append(Subject(config).flops() * config.train.steps * args.seeds / 1e15)
                print(f"{protocol} {mixer} {column}", file=sys.stderr, flush=True)
            row.append(sum(row))
            sums = [a + b for a, b in zip(sums, row, strict=True)]
            print(f"| {mixer} | " + " | ".join(f"{v:,.0f}" for v in row) + " |", flush=True)
        print("| **all** | " + " | ".join(f"{v:,.0f}" for v in sums) + " |", flush=True)


if __name__ == "__main__":
    main()
