"""The roofline of this machine, measured: the speed of a matrix product, and of reading and writing memory.

See Williams, Waterman and Patterson (2009), "Roofline".
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
    """Speeds of all local devices together.

    Attributes:
      flops_per_second: of a square matrix product in the dtype of the computation, float32 at precision `highest`
      bytes_per_second: read and written by c = a + b on arrays larger than any cache
    """

    flops_per_second: float
    bytes_per_second: float

    def bound(self, flops: float, moved: float) -> float:
        """Return the least seconds that these operations and bytes moved can take."""
        return max(flops / self.flops_per_second, moved / self.bytes_per_second)


def measure(dtype: str) -> Roofline:
    """Measure the roofline, which takes a few seconds. Each figure is the best of several rounds."""
    use_every_core()
    side, numbers = (1_536, 2**24) if jax.default_backend() == "cpu" else (8_192, 2**28)
    mesh = Mesh(jax.local_devices(), ("data",))
    sharded = NamedSharding(mesh, PartitionSpec("data"))
    devices = mesh.size

    def ones(*shape: int, dtype: Any) -> jax.Array:
        return jax.jit(lambda: jnp.ones((devices, *shape), dtype), out_shardings=sharded)()

    square, line = ones(side, side, dtype=jnp.dtype(dtype)), ones(numbers, dtype=jnp.float32)
    with jax.default_matmul_precision("highest"):
        product = _seconds(jax.jit(lambda a, b: a @ b, out_shardings=sharded), square)
    added = _seconds(jax.jit(lambda a, b: a + b, out_shardings=sharded), line)
    return Roofline(devices * 2 * side**3 / product, 3 * line.nbytes / added)


def _seconds(function: Callable[[jax.Array, jax.Array], jax.Array], operand: jax.Array) -> float:
    other = operand + 1
    jax.block_until_ready(function(operand, other))
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        jax.block_until_ready(function(operand, other))
        times.append(time.perf_counter() - begin)
    return min(times)
