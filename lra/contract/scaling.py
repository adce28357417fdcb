"""How time and memory of a mixer grow with the length: operations counted, memory compiled, time measured."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lra.contract.harness import split
from lra.training.flops import flops
from models import mixers
from models.core import Dims

LENGTHS = (1024, 2048, 4096)
CLAIM = re.compile(r"L(?:\^(?P<power>[0-9.]+))?(?P<log> log L)?")


@dataclasses.dataclass(frozen=True)
class Point:
    """One step, forward and backward, of one layer on one example that fills `length`.

    bytes: temporary memory and results of the compiled step, without the parameters
    """

    length: int
    flops: float
    bytes: int
    seconds: float


def measure(
    cls: type, options: Mapping[str, Any], dims: Dims, lengths: Sequence[int] = LENGTHS, rounds: int = 5
) -> list[Point]:
    """One point for each length, `dims.max_len` being that length. Time is the best of `rounds`, taken in turn."""
    steps = {length: _Step(cls, options, dataclasses.replace(dims, max_len=length)) for length in lengths}
    seconds = dict.fromkeys(lengths, math.inf)
    for _ in range(rounds):  # in turn, so that a busy moment of the machine does not fall on one length alone
        for length in lengths:
            begin = time.perf_counter()
            steps[length].run()
            seconds[length] = min(seconds[length], time.perf_counter() - begin)
    return [Point(length, step.flops, step.bytes, seconds[length]) for length, step in steps.items()]


class _Step:
    """One compiled step at `dims.max_len`."""

    def __init__(self, cls: type, options: Mapping[str, Any], dims: Dims) -> None:
        graph, params, rest = split(mixers.build(cls, dims, options, nnx.Rngs(params=0)))
        x = jax.random.normal(jax.random.key(1), (1, dims.max_len, dims.d_model), dims.dtype)
        self._arguments = (params, x, rest, jnp.ones((1, dims.max_len), bool))

        def loss(params: Any, x: jax.Array, rest: Any, mask: jax.Array) -> jax.Array:
            return (nnx.merge(graph, params, rest)(x, mask).astype(jnp.float32) ** 2).sum()

        gradient = jax.grad(loss, (0, 1))
        self.flops = flops(gradient, *self._arguments)
        self._compiled = jax.jit(gradient).lower(*self._arguments).compile()
        memory: Any = self._compiled.memory_analysis()
        self.bytes = memory.temp_size_in_bytes + memory.output_size_in_bytes
        self.run()

    def run(self) -> None:
        jax.block_until_ready(self._compiled(*self._arguments))


def exponent(first: Point, last: Point, of: str) -> float:
    """p in value ~ L^p between two points; `of` is flops, bytes or seconds."""
    return math.log(getattr(last, of) / getattr(first, of)) / math.log(last.length / first.length)


def claimed_exponent(claim: str, first: Point, last: Point) -> float:
    """What a claim like "L", "L log L", "L^1.5" says of the exponent between two points.

    Raises:
      ValueError: the claim has another form.
    """
    parts = CLAIM.fullmatch(claim)
    if parts is None:
        raise ValueError(f"COMPLEXITY {claim!r} is not of the form L, L log L, L^1.5 or L^2")
    logarithm = math.log(math.log(last.length) / math.log(first.length)) / math.log(last.length / first.length)
    return float(parts["power"] or 1) + (logarithm if parts["log"] else 0)
