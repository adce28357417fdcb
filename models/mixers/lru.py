"""LRU, the linear recurrent unit (Orvieto et al., 2023, arXiv:2303.06349).

    x_t = lambda x_{t-1} + gamma (B u_t),    y_t = Re(C x_t) + d u_t,    lambda = exp(-exp(nu) + i exp(theta))

lambda is diagonal and complex, and |lambda| < 1 by construction. At initialisation its squared modulus is uniform
between r_min^2 and r_max^2, and its phase uniform between 0 and max_phase. gamma is initialised as
sqrt(1 - |lambda|^2), which keeps x at the size of its input. The block is LRU, GELU, dropout, GLU. Norm and residual
connection are the encoder's.

The learning rate of lambda, gamma and B is the fraction `lr_scale` of the protocol's rate, without weight decay. It is
a fraction, not an absolute rate as in S4D, because the paper states one: 0.1 to 0.5, depending on the task.

The paper is bidirectional on Pathfinder and Path-X and unidirectional on other tasks. Here bidirectional is the default
because it suits every task and every pooling: in one direction, position 0, which the poolings `cls` and `first` read,
sees only itself. The published rows of ListOps, Text, Retrieval and Image have bidirectional=false. Both directions
share lambda, gamma and B, as in S5, and each has its own C. The paper's (r_min, r_max) are (0, 0.99) for ListOps,
(0.5, 0.9) for Text and Retrieval, and (0.9, 0.999) for Image and Pathfinder; N is 0.75 D to 2 D.

Deviations: there is no BatchNorm, by which examples would depend on each other. The encoder's MLP follows, which the
paper does not have. u is set to zero at padding, which is exact: the backward direction then reaches the last real
token with a zero state.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.core import MAX_SIZE, Dims, check_range, projection
from models.diagonal_recurrence import linear_recurrence
from models.dropout import dropout, fold_in_keys
from models.ops import gelu

COMPLEXITY = ("L", "L")


class LRU(nnx.Module):
    """LRU with its GLU.

    state:         N; None: d_model
    r_min, r_max:  bounds of the initial |lambda|
    max_phase:     upper bound of the initial phase of lambda
    bidirectional: add the recurrence from the right
    lr_scale:      learning rate of lambda, gamma and B as a fraction of the protocol's
    """

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
        check_range(1, MAX_SIZE, state=state)
        check_range(0.0, 1.0, r_min=r_min)
        check_range(1e-6, 1.0, r_max=r_max)
        check_range(1e-6, 2 * math.pi, max_phase=max_phase)
        check_range(1e-9, 1.0, lr_scale=lr_scale)
        if r_min > r_max or r_min == 1:
            raise ValueError(f"option r_min={r_min}: must be at most r_max={r_max} and below 1")
        state = width if state is None else state

        def slow_param(value: Array) -> nnx.Param:
            return nnx.Param(value, lr_scale=lr_scale, decay=False)

        def normal(*shape: int) -> Array:
            return jax.random.normal(rngs.params(), shape)

        u, phase = jax.random.uniform(rngs.params(), (2, state), minval=1e-6)  # not 0, because of the logarithm
        nu = jnp.log(-0.5 * jnp.log(jnp.minimum(u * (r_max**2 - r_min**2) + r_min**2, 1 - 1e-7)))
        self.dims = dims
        self.nu = slow_param(nu)
        self.theta = slow_param(jnp.log(max_phase * phase))
        self.log_gamma = slow_param(0.5 * jnp.log(-jnp.expm1(-2 * jnp.exp(nu))))
        self.b = slow_param(normal(2, width, state) / math.sqrt(2 * width))  # real and imaginary part
        self.c = nnx.Param(normal(1 + bidirectional, 2, state, width) / math.sqrt(state))
        self.d = nnx.Param(normal(width))
        self.output = projection(dims, width, 2 * width, bias=True, rngs=rngs)

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        accum_dtype = jnp.promote_types(x.dtype, jnp.float32)
        nu, theta, log_gamma, b, c = (
            p[...].astype(accum_dtype) for p in (self.nu, self.theta, self.log_gamma, self.b, self.c)
        )
        u = jnp.where(mask[..., None], x, 0).astype(accum_dtype)
        decay = jnp.exp(jax.lax.complex(-jnp.exp(nu), jnp.exp(theta)))
        b = b * jnp.exp(log_gamma)[None, None]
        inputs = jax.lax.complex(u @ b[0], u @ b[1])  # [B, L, N]
        y = self.d[...][None, None] * u + _output(linear_recurrence(decay, inputs), c[0])
        if len(c) == 2:
            y = y + _output(linear_recurrence(decay, inputs[:, ::-1])[:, ::-1], c[1])
        y = gelu(y).astype(self.dims.dtype)
        return jax.nn.glu(self.output(dropout(y, self.dims.hidden_dropout, fold_in_keys(rng_keys, 0))))


def _output(x: Array, c: Array) -> Array:
    """Compute Re(C x) of complex x [B, L, N] and c [2, N, D], real and imaginary part -> [B, L, D]."""
    return x.real @ c[0] - x.imag @ c[1]
