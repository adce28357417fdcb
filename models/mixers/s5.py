"""S5, simplified structured state spaces (Smith et al., 2023, arXiv:2208.04933).

    x_t = L x_{t-1} + B u_t,    y_t = 2 Re(C x_t) + d u_t,    L = exp(a dt),    B = (L - 1) / a B_0

One system with many inputs and outputs: a is diagonal and complex [P/2], B_0 is [P/2, D], C is [D, P/2]. The other half
of the states are conjugates, hence the factor 2. a starts as the eigenvalues of the normal part of HiPPO-LegS, in
`blocks` equal blocks; B_0 and C are real and complex normal matrices in its eigenbasis; dt of each state is
log-uniform. The block is S5, GELU, and a gate, y sigmoid(W y).

Both directions share a, dt and B_0, and each has its own C, so the position itself is counted by both, as in the
authors' code (lindermanlab/S5, commit 3c18fdb), whose rows of the Long-Range Arena are bidirectional. The learning rate
of a, dt and B_0 is `lr`, without weight decay.

Deviations: the encoder's LayerNorm takes the place of BatchNorm, by which examples would depend on each other; the
encoder's MLP follows, which the paper does not have; the real part of a is at most -1e-4, an option there. u is zero at
padding, so the backward direction reaches the last real token with a zero state.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from models.core import Dims, check_range, projection
from models.diagonal_recurrence import linear_recurrence
from models.dropout import dropout, fold_in_keys
from models.hippo import legs
from models.ops import gelu, zero_padding

COMPLEXITY = ("L", "L")
LARGEST_REAL = -1e-4  # of a, so that no state grows


class S5(nnx.Module):
    """S5 with its gate.

    state:          P, twice the number of complex states
    blocks:         number of blocks of the initial a; P / blocks is even
    dt_min, dt_max: bounds of the initial dt
    bidirectional:  add the recurrence from right to left
    lr:             peak learning rate of a, dt and B_0, at most the protocol's
    """

    def __init__(
        self,
        dims: Dims,
        *,
        state: int = 64,
        blocks: int = 4,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        bidirectional: bool = True,
        lr: float = 1e-3,
        rngs: nnx.Rngs,
    ) -> None:
        check_range(2, 1024, state=state)
        check_range(1, 512, blocks=blocks)
        check_range(1e-9, 1e3, dt_min=dt_min, dt_max=dt_max)
        check_range(1e-9, 1.0, lr=lr)
        if state % (2 * blocks):
            raise ValueError(f"option blocks={blocks}: state={state} must be an even multiple of it")
        if dt_min > dt_max:
            raise ValueError(f"option dt_min={dt_min}: must be at most dt_max={dt_max}")
        eigenvalues, vectors, _ = legs(state // blocks)
        basis = np.kron(np.eye(blocks), vectors)  # [P, P/2]
        width = dims.d_model

        def slow(value: Any) -> nnx.Param:
            return nnx.Param(jnp.asarray(value, jnp.float32), lr=lr, decay=False)

        def normal(*shape: int) -> Array:  # of variance 1 / P, truncated at two standard deviations
            return jax.random.truncated_normal(rngs.params(), -2, 2, shape) / (0.8796 * math.sqrt(state))

        def parts(matrix: Array) -> Array:  # real and imaginary part
            return jnp.stack([matrix.real, matrix.imag])

        a = np.tile(eigenvalues, blocks)
        self.dims = dims
        self.a = slow(np.stack([a.real, a.imag]))
        self.log_dt = slow(
            jax.random.uniform(rngs.params(), (state // 2,), minval=math.log(dt_min), maxval=math.log(dt_max))
        )
        self.b = slow(parts(jnp.asarray(basis.conj().T, jnp.complex64) @ normal(state, width)))  # [2, P/2, D]
        c = jax.lax.complex(normal(1 + bidirectional, width, state), normal(1 + bidirectional, width, state))
        self.c = nnx.Param(jnp.moveaxis(parts(c @ jnp.asarray(basis, jnp.complex64)), 0, 1))  # [directions, 2, D, P/2]
        self.d = nnx.Param(jax.random.normal(rngs.params(), (width,)))
        self.gate = projection(dims, width, width, bias=True, rngs=rngs)

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        u = zero_padding(x, mask).astype(dtype)
        a, b, c = (p[...].astype(dtype) for p in (self.a, self.b, self.c))
        a = jax.lax.complex(jnp.minimum(a[0], LARGEST_REAL), a[1])
        exponent = a * jnp.exp(self.log_dt[...].astype(dtype))
        b = jax.lax.complex(b[0], b[1]) * (jnp.expm1(exponent) / a)[:, None]
        inputs = jax.lax.complex(u @ b.real.T, u @ b.imag.T)  # [B, L, P/2]
        decay = jnp.exp(exponent)
        y = self.d[...].astype(dtype)[None, None] * u + _output(linear_recurrence(decay, inputs), c[0])
        if len(c) == 2:
            y = y + _output(linear_recurrence(decay, inputs[:, ::-1])[:, ::-1], c[1])
        y = dropout(gelu(y).astype(self.dims.dtype), self.dims.hidden_dropout, fold_in_keys(rng_keys, 0))
        return y * jax.nn.sigmoid(self.gate(y))


def _output(x: Array, c: Array) -> Array:
    """Compute 2 Re(C x) of complex x [B, L, P/2] and c [2, D, P/2], real and imaginary part -> [B, L, D]."""
    return 2 * (x.real @ c[0].T - x.imag @ c[1].T)
