"""Compare softmax attention, forward and backward, with PyTorch's `scaled_dot_product_attention` on the CPU.

python benchmarks/softmax_attention.py                       # needs torch: pip install torch
python benchmarks/softmax_attention.py --lengths 1024 4096 16384

float32, without a mask in torch and with a full one in JAX. torch uses its kernel of FlashAttention, except with
dropout, for which it has none on the CPU. Both alternate in one process on all cores; the examples of JAX are sharded
as in the trainer. Times are medians of rounds, the ratio is JAX to torch. Outputs and gradients without dropout must
agree before anything is timed. Memory is that of the compiled JAX step without arguments and results. `time ~` and
`memory ~` are powers of the length relative to the row before. Use an idle machine.
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


def jax_step(arrays: list[np.ndarray], rate: float) -> tuple[Callable[[], Any], float]:
    """Return a step (y, and the gradients of q, k, v, all [B, L, H, K]), and its temporary memory in bytes."""
    b, length = arrays[0].shape[:2]
    mask, rng_keys = jnp.ones((b, length), bool), jax.random.split(jax.random.key(0), b)

    mesh = device_mesh(b, None, 1)
    spec = PartitionSpec("data")

    @partial(jax.jit, compiler_options=compiler_options())
    @partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    def both(
        q: jax.Array, k: jax.Array, v: jax.Array, dy: jax.Array, mask: jax.Array, rng_keys: jax.Array
    ) -> tuple[jax.Array, ...]:
        def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            return softmax_attention(q, k, v, mask, dropout_rate=rate, rng_keys=rng_keys)

        y, back = jax.vjp(attend, q, k, v)
        return y, *back(dy)

    inputs = jax.device_put((*map(jnp.asarray, arrays), mask, rng_keys), NamedSharding(mesh, spec))
    compiled = both.lower(*inputs).compile()
    memory: Any = compiled.memory_analysis()
    return lambda: jax.block_until_ready(compiled(*inputs)), mesh.size * memory.temp_size_in_bytes


def torch_step(arrays: list[np.ndarray], rate: float) -> Callable[[], Any]:
    """Return the same step in torch, whose layout is [B, H, L, K]."""
    q, k, v, dy = (torch.from_numpy(x).transpose(1, 2).contiguous() for x in arrays)
    for x in (q, k, v):
        x.requires_grad_()

    def step() -> tuple[Any, ...]:
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=rate)
        return y.detach(), *torch.autograd.grad(y, (q, k, v), dy)

    return step


def seconds(step: Callable[[], Any]) -> float:
    """Return the time of a second call; in the first, threads of the other library may still be active."""
    step()
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def compare(batch: int, length: int, rate: float, rounds: int) -> tuple[float, float, float]:
    """Return median seconds of JAX and of torch, and bytes of JAX."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((batch, length, HEADS, WIDTH), np.float32) for _ in range(4)]
    if not rate:
        for a, b in zip(jax_step(arrays, 0.0)[0](), torch_step(arrays, 0.0)(), strict=True):
            np.testing.assert_allclose(a, b.transpose(1, 2), atol=1e-4)
    ours, bytes_ = jax_step(arrays, rate)
    other = torch_step(arrays, rate)
    times = [(seconds(ours), seconds(other)) for _ in range(rounds)]
    jax_time, torch_time = (statistics.median(column) for column in zip(*times, strict=True))
    return jax_time, torch_time, bytes_


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS)
    parser.add_argument("--dropout", nargs="+", type=float, default=(0.0, 0.1), help="rates")
    parser.add_argument("--tokens", type=int, default=1024, help="per core, but at least one example")
    parser.add_argument("--rounds", type=int, default=15, help="one step of each in every round; fewer beyond 4096")
    args = parser.parse_args()
    use_every_core()
    e = environment()
    torch.set_num_threads(e["cores"])
    print(f"{e['device']}, {e['cores']} cores, jax {e['jax']}, torch {torch.__version__}; H={HEADS}, K={WIDTH}\n")
    print("| dropout | batch | length | torch, ms | jax, ms | ratio | time ~ | jax, MiB | memory ~ |")
    print("| --: " * 9 + "|")
    for rate in args.dropout:
        before: tuple[int, float, float] | None = None
        for length in args.lengths:
            batch = e["cores"] * max(1, args.tokens // length)
            rounds = args.rounds if length <= 4096 else max(3, args.rounds // 5)
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
