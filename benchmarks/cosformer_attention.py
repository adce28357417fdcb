"""Measure time and memory of cosFormer attention alone, forward and backward, and their exponents of the length.

python benchmarks/cosformer_attention.py                 # 1K to 64K, both forms; some minutes on two cores
python benchmarks/cosformer_attention.py --lengths 1024 4096

One example, two heads of width 32 as in `small`, float32. Time is the best of the rounds; memory is that of the
compiled program without its arguments. Use an idle machine.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax

from lra.provenance.environment import environment
from lra.runtime.devices import compiler_options
from models.mixers.cosformer import cosformer_attention

HEADS, WIDTH = 2, 32


def compiled(length: int, causal: bool) -> tuple[Callable[[], Any], int]:
    """Return a step at a length, and the bytes of its temporaries and results."""
    shape = (1, length, HEADS, WIDTH)
    arrays = [jax.random.normal(jax.random.key(i), shape) for i in range(3)]

    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return (cosformer_attention(q, k, v, causal=causal) ** 2).sum()

    gradient = jax.jit(jax.grad(loss, (0, 1, 2)), compiler_options=compiler_options())
    program = gradient.lower(*arrays).compile()
    memory: Any = program.memory_analysis()
    return lambda: jax.block_until_ready(program(*arrays)), memory.temp_size_in_bytes + memory.output_size_in_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[2**n for n in range(10, 17)])
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    e = environment()
    print(f"{e['device']}, {e['cores']} cores, jax {e['jax']}\n")
    print("| form | length | ms | MiB | ms: exponent | MiB: exponent |")
    print("| :-- | --: | --: | --: | --: | --: |")
    for causal in (False, True):
        steps = {length: compiled(length, causal) for length in sorted(args.lengths)}
        best = dict.fromkeys(steps, math.inf)
        for _ in range(args.rounds):
            for length, (step, _) in steps.items():
                begin = time.perf_counter()
                step()
                best[length] = min(best[length], time.perf_counter() - begin)
        exponents = {}
        for short, long in itertools.pairwise(steps):
            ratios = best[long] / best[short], steps[long][1] / steps[short][1]
            exponents[long] = [f"{math.log(r) / math.log(long / short):.2f}" for r in ratios]
        for length, (_, size) in steps.items():
            grown = " | ".join(exponents.get(length, ["", ""]))
            form = "causal" if causal else "bidirectional"
            print(f"| {form} | {length:,} | {1e3 * best[length]:.2f} | {size / 2**20:.1f} | {grown} |", flush=True)
        ends = min(steps), max(steps)
        overall = math.log(best[ends[1]] / best[ends[0]]) / math.log(ends[1] / ends[0]) if len(steps) > 1 else math.nan
        print(f"| {form} | {ends[0]:,} to {ends[1]:,} | | | {overall:.2f} | |")


if __name__ == "__main__":
    main()
