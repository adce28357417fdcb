"""Softmax attention, forward and backward, against PyTorch's `scaled_dot_product_attention`, on the CPU.

python benchmarks/softmax_attention.py                       # needs torch: pip install torch
python benchmarks/softmax_attention.py --lengths 1024 4096 16384

float32, no mask in torch and a full one here. At equal shapes torch uses its own kernel of FlashAttention, but for
dropout, for which it has none on the CPU. Both take turns in one process, both on all cores: examples are dealt to
ours, as the trainer deals them. Times are medians of rounds, the ratio is ours to torch's. Before anything is timed,
results and gradients without dropout must agree. Memory is what our compiled step needs beside its arguments and
results; `time ~` and `memory ~` are powers of the length, against the row before. Let nothing else run.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from lra.provenance.environment import environment
from lra.runtime.devices import compiler_options, device_mesh, use_every_core
from models.mixers.softmax import softmax_attention

try:
    import torch
    from torch.nn import functional as F
except ImportError:
    sys.exit(
        "benchmarks/softmax_attention.py compares with PyTorch, which is not installed: .venv/bin/pip install torch"
    )

LENGTHS = (256, 1024, 2048, 4096, 8192, 16384)
HEADS, WIDTH = 2, 32  # of the protocol `small`


def ours(arrays: list[np.ndarray], rate: float) -> tuple[Callable[[], Any], float]:
    """A step (y, and the gradients of q, k, v, all [B, L, H, K]), and its temporary memory in bytes."""
    b, length = arrays[0].shape[:2]
    mask, rng_keys = jnp.ones((b, length), bool), jax.random.split(jax.random.key(0), b)

    mesh = device_mesh(b, None, 1)
    dealt = PartitionSpec("data")

    @partial(jax.jit, compiler_options=compiler_options())
    @partial(jax.shard_map, mesh=mesh, in_specs=dealt, out_specs=dealt, check_vma=False)
    def both(
        q: jax.Array, k: jax.Array, v: jax.Array, dy: jax.Array, mask: jax.Array, rng_keys: jax.Array
    ) -> tuple[jax.Array, ...]:
        def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            return softmax_attention(q, k, v, mask, dropout_rate=rate, rng_keys=rng_keys)

        y, back = jax.vjp(attend, q, k, v)
        return y, *back(dy)

    inputs = jax.device_put((*map(jnp.asarray, arrays), mask, rng_keys), NamedSharding(mesh, dealt))
    compiled = both.lower(*inputs).compile()
    memory: Any = compiled.memory_analysis()
    return lambda: jax.block_until_ready(compiled(*inputs)), mesh.size * memory.temp_size_in_bytes


def theirs(arrays: list[np.ndarray], rate: float) -> Callable[[], Any]:
    """The same step in torch, whose layout is [B, H, L, K]."""
    q, k, v, dy = (torch.from_numpy(x).transpose(1, 2).contiguous() for x in arrays)
    for x in (q, k, v):
        x.requires_grad_()

    def step() -> tuple[Any, ...]:
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=rate)
        return y.detach(), *torch.autograd.grad(y, (q, k, v), dy)

    return step


def seconds(step: Callable[[], Any]) -> float:
    """Of a second call: in the first the other's threads may still spin."""
    step()
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def compare(batch: int, length: int, rate: float, rounds: int) -> tuple[float, float, float]:
    """Median seconds of ours and of torch, and bytes of ours."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((batch, length, HEADS, WIDTH), np.float32) for _ in range(4)]
    if not rate:
        for a, b in zip(ours(arrays, 0.0)[0](), theirs(arrays, 0.0)(), strict=True):
            np.testing.assert_allclose(a, b.transpose(1, 2), atol=1e-4)
    mine, bytes_ = ours(arrays, rate)
    torchs = theirs(arrays, rate)
    times = [(seconds(mine), seconds(torchs)) for _ in range(rounds)]
    own, other = (statistics.median(column) for column in zip(*times, strict=True))
    return own, other, bytes_


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS)
    parser.add_argument("--dropout", nargs="+", type=float, default=(0.0, 0.1), help="rates")
    parser.add_argument("--tokens", type=int, default=1024, help="for each core, one example at least")
    parser.add_argument("--rounds", type=int, default=15, help="one step of each in every round; fewer beyond 4096")
    words = parser.parse_args()
    use_every_core()
    e = environment()
    torch.set_num_threads(e["cores"])
    print(f"{e['device']}, {e['cores']} cores, jax {e['jax']}, torch {torch.__version__}; H={HEADS}, K={WIDTH}\n")
    print("| dropout | batch | length | torch, ms | ours, ms | ratio | time ~ | ours, MiB | memory ~ |")
    print("| --: " * 9 + "|")
    for rate in words.dropout:
        before: tuple[int, float, float] | None = None
        for length in words.lengths:
            batch = e["cores"] * max(1, words.tokens // length)
            rounds = words.rounds if length <= 4096 else max(3, words.rounds // 5)
            own, other, bytes_ = compare(batch, length, rate, rounds)
            powers = ["", ""]
            if before and batch == e["cores"] and length != before[0]:
                step = math.log(length / before[0])
                powers = [f"L^{math.log(b / a) / step:.2f}" for a, b in zip(before[1:], (own, bytes_), strict=True)]
            before = (length, own, bytes_) if batch == e["cores"] else None
            cells = [f"{rate}", f"{batch}", f"{length}", f"{1e3 * other:.1f}", f"{1e3 * own:.1f}", f"{own / other:.2f}"]
            cells += [powers[0], f"{bytes_ / 2**20:.1f}", powers[1]]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
