"""A linear recurrence whose channels do not mix, as in LRU and S5."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


@jax.custom_vjp
def linear_recurrence(decay: Array, inputs: Array) -> Array:
    """Compute x_t = decay x_{t-1} + inputs_t with x_{-1} = 0.

    L is split into about sqrt(L) blocks. One loop runs over the positions of a block, for all blocks in parallel, and
    a second one over the last states of the blocks. This needs 2 sqrt(L) steps and twice the operations of one loop.

    Args:
      decay:  [N], real or complex
      inputs: [B, L, N], real or complex like decay

    Returns:
      [B, L, N]
    """
    b, length, n = inputs.shape
    size = math.isqrt(length - 1) + 1
    count = -(-length // size)
    blocks = jnp.pad(inputs, ((0, 0), (0, count * size - length), (0, 0))).reshape(b, count, size, n)

    def within_block(carry: tuple[Array, Array], u: Array) -> tuple[Any, Any]:
        x, power = decay * carry[0] + u, decay * carry[1]
        return (x, power), (x, power)

    decay = decay[None, None]
    init = (jnp.zeros((b, count, n), inputs.dtype), jnp.ones_like(decay))
    (last, power), (x, powers) = jax.lax.scan(within_block, init, blocks.transpose(2, 0, 1, 3))

    def across_blocks(state: Array, last: Array) -> tuple[Array, Array]:
        return power[0] * state + last, state

    _, states = jax.lax.scan(across_blocks, jnp.zeros((b, n), inputs.dtype), last.swapaxes(0, 1))  # [count, B, N]
    x = x + powers * states.swapaxes(0, 1)[None]  # [size, B, count, N]
    return x.transpose(1, 2, 0, 3).reshape(b, count * size, n)[:, :length]


def _forward(decay: Array, inputs: Array) -> tuple[Array, tuple[Array, Array]]:
    x = linear_recurrence(decay, inputs)
    return x, (decay, x)


def _backward(residuals: tuple[Array, Array], dx: Array) -> tuple[Array, Array]:
    """Run the recurrence from the right, which needs less time and memory than the gradient of the loops."""
    decay, x = residuals
    d_inputs = linear_recurrence(decay, dx[:, ::-1])[:, ::-1]
    return (x[:, :-1] * d_inputs[:, 1:]).sum((0, 1)), d_inputs


linear_recurrence.defvjp(_forward, _backward)
