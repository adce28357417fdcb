"""The two roofs of this machine, measured: the speed of a matrix product, and of reading and writing memory.

Held against them, a step's operations and bytes say which of the two bounds it, and how far it is from there
(Williams, Waterman and Patterson, 2009, "Roofline").
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lra.runtime.devices import use_every_core

ROUNDS = 7


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Of all local devices together.

    flops_per_second: of a square matrix product in the dtype of the computation, float32 at the precision `highest`
    bytes_per_second: read and written by c = a + b on arrays that no cache holds
    """

    flops_per_second: float
    bytes_per_second: float

    def bound(self, flops: float, moved: float) -> float:
        """Seconds that so many operations and bytes take at least."""
        return max(flops / self.flops_per_second, moved / self.bytes_per_second)


def measure(dtype: str) -> Roofline:
    """Takes a few seconds. Each figure is the best of several rounds: a roof is what nothing goes above."""
    use_every_core()
    side, numbers = (1_536, 2**24) if jax.default_backend() == "cpu" else (8_192, 2**28)
    mesh = Mesh(jax.local_devices(), ("data",))
    dealt = NamedSharding(mesh, PartitionSpec("data"))
    devices = mesh.size

    def ones(*shape: int, dtype: Any) -> jax.Array:
        return jax.jit(lambda: jnp.ones((devices, *shape), dtype), out_shardings=dealt)()

    square, line = ones(side, side, dtype=jnp.dtype(dtype)), ones(numbers, dtype=jnp.float32)
    with jax.default_matmul_precision("highest"):
        product = _seconds(jax.jit(lambda a, b: a @ b, out_shardings=dealt), square)
    added = _seconds(jax.jit(lambda a, b: a + b, out_shardings=dealt), line)
    return Roofline(devices * 2 * side**3 / product, 3 * line.nbytes / added)


def _seconds(function: Callable[[jax.Array, jax.Array], jax.Array], operand: jax.Array) -> float:
    other = operand + 1
    jax.block_until_ready(function(operand, other))
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        jax.block_until_ready(function(operand, other))
        best = min(best, time.perf_counter() - begin)
    return best
