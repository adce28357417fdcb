"""LRU, the linear recurrent unit (Orvieto et al., 2023, arXiv:2303.06349).

    x_t = lambda x_{t-1} + gamma (B u_t),    y_t = Re(C x_t) + d u_t,    lambda = exp(-exp(nu) + i exp(theta))

lambda is diagonal and complex, with |lambda| < 1 by construction. At the start its squared modulus is uniform between
r_min^2 and r_max^2 and its phase uniform between 0 and max_phase. gamma starts as sqrt(1 - |lambda|^2), which keeps x
at the size of its input. The block is LRU, GELU, dropout, GLU; norm and residual are the encoder's.

lambda, gamma and B learn at the fraction `lr_scale` of the protocol's rate, without weight decay. It is a fraction, not
an absolute rate as in S4D, because the paper gives one: 0.1 to 0.5, by task.

The paper is bidirectional on Pathfinder and Path-X and unidirectional elsewhere. Here bidirectional is the default,
because it suits every task and every pooling: in one direction position 0, which the poolings `cls` and `first` read,
sees only itself. The published rows of ListOps, Text, Retrieval and Image have bidirectional=false. Both directions
share lambda, gamma and B, as in S5, and each has a C of its own. Per task (r_min, r_max) are 0, 0.99 for ListOps, 0.5,
0.9 for Text and Retrieval, 0.9, 0.999 for Image and Pathfinder; N is 0.75 to 2 D.

Deviations: there is no BatchNorm, by which examples would depend on one another; the encoder's MLP follows, which the
paper does not have. u is zeroed at padding. That is exact: the backward direction then reaches the last real token in a
zero state.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models.core import Dims, projection
from models.dropout import dropout, fold_in_keys
from models.ops import gelu

COMPLEXITY = ("L", "L")


@jax.custom_vjp
def linear_recurrence(decay: jax.Array, inputs: jax.Array) -> jax.Array:
    """x_t = decay x_{t-1} + inputs_t, x_{-1} = 0. decay [N], inputs [B, L, N], both real or both complex -> [B, L, N].

    L is cut into about sqrt(L) blocks: a loop over the places of a block, all blocks at once, then one over
    the blocks, which hands on their last states. Twice the work of a loop over L, and sqrt(L) steps.
    """
    b, length, n = inputs.shape
    size = math.isqrt(length - 1) + 1
    count = -(-length // size)
    blocks = jnp.pad(inputs, ((0, 0), (0, count * size - length), (0, 0))).reshape(b, count, size, n)

    def within(carry: tuple[jax.Array, jax.Array], u: jax.Array) -> tuple[Any, Any]:
        x, power = decay * carry[0] + u, decay * carry[1]
        return (x, power), (x, power)

    decay = decay[None, None]
    start = (jnp.zeros((b, count, n), inputs.dtype), jnp.ones_like(decay))
    (last, power), (x, powers) = jax.lax.scan(within, start, blocks.transpose(2, 0, 1, 3))

    def across(state: jax.Array, last: jax.Array) -> tuple[jax.Array, jax.Array]:
        return power[0] * state + last, state

    _, states = jax.lax.scan(across, jnp.zeros((b, n), inputs.dtype), last.swapaxes(0, 1))  # [count, B, N]
    x = x + powers * states.swapaxes(0, 1)[None]  # [size, B, count, N]
    return x.transpose(1, 2, 0, 3).reshape(b, count * size, n)[:, :length]


def _forward(decay: jax.Array, inputs: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    x = linear_recurrence(decay, inputs)
    return x, (decay, x)


def _backward(residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same recurrence from the right: a fraction of what the derivative of the loops takes and keeps."""
    decay, x = residuals
    of_inputs = linear_recurrence(decay, cotangent[:, ::-1])[:, ::-1]
    return (x[:, :-1] * of_inputs[:, 1:]).sum((0, 1)), of_inputs


linear_recurrence.defvjp(_forward, _backward)


class LRU(nnx.Module):
    """LRU with its GLU. `state` is N, None: d_model; `bidirectional` adds the opposite direction."""

    def __init__(
        self,
        dims: Dims,
        *,
        state: int | None = None,
        r_min: float = 0.0,
        r_max: float = 0.99,
        max_phase: float = 2 * math.pi,
        bidirectional: bool = True,
        lr_scale: float = 0.5,
        rngs: nnx.Rngs,
    ) -> None:
        width = dims.d_model
        state = width if state is None else state
        if state < 1:
            raise ValueError(f"lru: state {state} is less than 1; None takes d_model {width}")
        if not (0 <= r_min <= r_max <= 1 and r_min < 1 and r_max > 0):
            raise ValueError(f"lru: r_min {r_min} and r_max {r_max} are no part of (0, 1): 0 <= r_min <= r_max <= 1")
        if not 0 < max_phase <= 2 * math.pi:
            raise ValueError(f"lru: max_phase {max_phase} is not in (0, 2 pi]")

        def slow(value: jax.Array) -> nnx.Param:
            return nnx.Param(value, lr_scale=lr_scale, decay=False)

        def normal(*shape: int) -> jax.Array:
            return jax.random.normal(rngs.params(), shape)

        u, phase = jax.random.uniform(rngs.params(), (2, state), minval=1e-6)  # not 0: its logarithm is taken
        nu = jnp.log(-0.5 * jnp.log(jnp.minimum(u * (r_max**2 - r_min**2) + r_min**2, 1 - 1e-7)))
        self.dims = dims
        self.nu = slow(nu)
        self.theta = slow(jnp.log(max_phase * phase))
        self.log_gamma = slow(0.5 * jnp.log(-jnp.expm1(-2 * jnp.exp(nu))))
        self.b = slow(normal(2, width, state) / math.sqrt(2 * width))  # real, imaginary part
        self.c = nnx.Param(normal(1 + bidirectional, 2, state, width) / math.sqrt(state))
        self.d = nnx.Param(normal(width))
        self.output = projection(dims, width, 2 * width, bias=True, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: jax.Array | None = None) -> jax.Array:
        accum_dtype = jnp.promote_types(x.dtype, jnp.float32)
        nu, theta, log_gamma, b, c = (
            p[...].astype(accum_dtype) for p in (self.nu, self.theta, self.log_gamma, self.b, self.c)
        )
        u = jnp.where(mask[..., None], x, 0).astype(accum_dtype)
        decay = jnp.exp(jax.lax.complex(-jnp.exp(nu), jnp.exp(theta)))
        b = b * jnp.exp(log_gamma)[None, None]
        inputs = jax.lax.complex(u @ b[0], u @ b[1])  # [B, L, N]
        y = self.d[...][None, None] * u + _read(linear_recurrence(decay, inputs), c[0])
        if len(c) == 2:
            y = y + _read(linear_recurrence(decay, inputs[:, ::-1])[:, ::-1], c[1])
        y = gelu(y).astype(self.dims.dtype)
        return jax.nn.glu(self.output(dropout(y, self.dims.hidden_dropout, fold_in_keys(rng_keys, 0))))


def _read(x: jax.Array, c: jax.Array) -> jax.Array:
    """Re(C x): x [B, L, N] complex, c [2, N, D] -> [B, L, D]."""
    return x.real @ c[0] - x.imag @ c[1]
