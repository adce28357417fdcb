"""Scaling of a mixer with the length: counted operations, memory by the compiler, measured time."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lra.contract.harness import split
from lra.training.flops import flops
from models import mixers
from models.core import Dims

LENGTHS = (1024, 2048, 4096)
CLAIM_FORMAT = re.compile(r"L(?:\^(?P<power>[0-9.]+))?(?P<log> log L)?")


@dataclasses.dataclass(frozen=True)
class ScalingPoint:
    """Costs of one forward and backward step of one layer on one example of `length` tokens.

    Attributes:
      bytes: temporary memory and results of the compiled step, without the parameters
    """

    length: int
    flops: float
    bytes: int
    seconds: float


def measure(
    cls: type, options: Mapping[str, Any], dims: Dims, lengths: Sequence[int] = LENGTHS, rounds: int = 5
) -> list[ScalingPoint]:
    """Return a point for each length, with `dims.max_len` of that length. Time is the best of `rounds`."""
    steps = {length: _step(cls, options, dataclasses.replace(dims, max_len=length)) for length in lengths}
    seconds = dict.fromkeys(lengths, math.inf)
    for _ in range(rounds):  # all lengths in turn, so that load on the machine does not affect one alone
        for length, (run, _, _) in steps.items():
            begin = time.perf_counter()
            run()
            seconds[length] = min(seconds[length], time.perf_counter() - begin)
    return [ScalingPoint(length, count, size, seconds[length]) for length, (_, count, size) in steps.items()]


def _step(cls: type, options: Mapping[str, Any], dims: Dims) -> tuple[Callable[[], Any], float, int]:
    """Return a compiled step at `dims.max_len`, which has run once, its operations and its bytes."""
    graph, params, buffers = split(mixers.build(cls, dims, options, nnx.Rngs(params=0)))
    x = jax.random.normal(jax.random.key(1), (1, dims.max_len, dims.d_model), dims.dtype)
    arguments = (params, x, buffers, jnp.ones((1, dims.max_len), bool))

    def loss(params: Any, x: jax.Array, buffers: Any, mask: jax.Array) -> jax.Array:
        return (nnx.merge(graph, params, buffers)(x, mask).astype(jnp.float32) ** 2).sum()

    gradient = jax.grad(loss, (0, 1))
    compiled = jax.jit(gradient).lower(*arguments).compile()
    memory: Any = compiled.memory_analysis()
    jax.block_until_ready(compiled(*arguments))
    size = memory.temp_size_in_bytes + memory.output_size_in_bytes
    return lambda: jax.block_until_ready(compiled(*arguments)), flops(gradient, *arguments), size


def exponent(first: ScalingPoint, last: ScalingPoint, cost: str) -> float:
    """Return p in cost ~ L^p between two points; the cost is flops, bytes or seconds."""
    return math.log(getattr(last, cost) / getattr(first, cost)) / math.log(last.length / first.length)


def claimed_exponent(claim: str, first: ScalingPoint, last: ScalingPoint) -> float:
    """Return the exponent between two points by a claim such as "L", "L log L" or "L^1.5".

    Raises:
      ValueError: the claim has another form.
    """
    parts = CLAIM_FORMAT.fullmatch(claim)
    if parts is None:
        raise ValueError(f"COMPLEXITY {claim!r} is not of the form L, L log L, L^1.5 or L^2")
    logarithm = math.log(math.log(last.length) / math.log(first.length)) / math.log(last.length / first.length)
    return float(parts["power"] or 1) + (logarithm if parts["log"] else 0)
