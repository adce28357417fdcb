"""S4D, a diagonal state space model (Gu et al., 2022, arXiv:2206.11893).

    y = k * u + k' *' u + d u,    k_l = 2 Re sum_n c_n b_n (exp(dt a_n) - 1) / a_n exp(l dt a_n)

One system per channel: N/2 complex modes, each standing for a conjugate pair, discretised by zero-order hold
(ZOH). *' runs from the right and begins at lag 1, as in state-spaces/s4: its kernel k' has a c of its own and
shares the rest. The block is conv, GELU, dropout, Linear D -> 2D, GLU; norm and residual are the encoder's. Re a =
-exp(.) and dt = exp(.), so every mode decays; a, b and dt learn at `lr_scale` of the rate, without decay.

Initial a: lin  -1/2 + i pi n;    inv  -1/2 + i N/pi (N/(2n+1) - 1);    legs  the normal part of HiPPO-LegS.
S4's Long Range Arena runs are bidirectional, hence the default, with dt in [1e-3, 1e-1] ([1e-4, 1e-1] on Path-X);
published rows of ListOps, Text and Retrieval also have state=4, systems=1.

Deviations: the kernel is never built as a table [D, N/2, L] but as products of two of length sqrt(L); the published
blocks have BatchNorm, which would make examples see each other, and no MLP between the mixers, as the encoder has.
u is zeroed at padding, which is exact: zero states from zero inputs are how the backward direction starts too.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from models.convolution import exponential_kernel, long_convolution
from models.core import Dims, dropout, fold, gelu, projection

COMPLEXITY = ("L log L", "L")


def s4d_kernel(dt: jax.Array, a: jax.Array, b: jax.Array, c: jax.Array, length: int) -> jax.Array:
    """dt [D], a [D, M], b [D, M], c [D, G, M], the last three complex, M = N/2 -> kernels [D, G, L], real."""
    rates = dt[:, None] * a
    return 2 * exponential_kernel(c * (b * jnp.expm1(rates) / a)[:, None], rates, length)


def initial_rates(init: str, state: int) -> np.ndarray:
    """Complex a [N/2] of a state of size N, the half with imaginary part >= 0."""
    n = np.arange(state // 2)
    if init == "lin":
        return -0.5 + 1j * np.pi * n
    if init == "inv":
        return -0.5 + 1j * state / np.pi * (state / (2 * n + 1) - 1)
    root = np.sqrt(2 * np.arange(state) + 1)
    hippo = np.tril(np.outer(root, root), -1)  # below its diagonal; normal part = -1/2 + a skew-symmetric matrix
    return -0.5 + 1j * np.linalg.eigvalsh(-0.5j * (hippo - hippo.T))[state // 2 :]


class S4D(nnx.Module):
    """S4D with its GLU. `state` is N, even; `systems` sets of a and b are shared by the channels, None: one each."""

    def __init__(
        self,
        dims: Dims,
        *,
        init: Literal["lin", "inv", "legs"] = "legs",
        state: int = 64,
        systems: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        bidirectional: bool = True,
        lr_scale: float = 0.1,
        rngs: nnx.Rngs,
    ) -> None:
        width = dims.d_model
        systems = width if systems is None else systems
        if init not in ("lin", "inv", "legs"):
            raise ValueError(f"s4d: init {init!r} is not one of lin, inv, legs")
        if state < 2 or state % 2:
            raise ValueError(f"s4d: state {state} is not an even number >= 2: modes come in conjugate pairs")
        if systems < 1 or width % systems:
            raise ValueError(f"s4d: systems {systems} does not divide d_model {width}; None gives each channel its own")
        if not 0 < dt_min <= dt_max:
            raise ValueError(f"s4d: dt_min {dt_min} and dt_max {dt_max} are not 0 < dt_min <= dt_max")

        def slow(value: jax.Array) -> nnx.Param:
            return nnx.Param(value, lr_scale=lr_scale, decay=False)

        self.dims = dims
        shape = (systems, state // 2)
        a = jnp.broadcast_to(jnp.asarray(initial_rates(init, state), jnp.complex64)[None], shape)
        uniform = jax.random.uniform(rngs.params(), (width,))
        self.log_dt = slow(math.log(dt_min) + uniform * math.log(dt_max / dt_min))
        self.log_decay = slow(jnp.log(-a.real))
        self.frequency = slow(a.imag)
        self.b = slow(jnp.stack([jnp.ones(shape), jnp.zeros(shape)]))  # real, imaginary part
        self.c = nnx.Param(math.sqrt(0.5) * jax.random.normal(rngs.params(), (2, width, 1 + bidirectional, state // 2)))
        self.d = nnx.Param(jax.random.normal(rngs.params(), (width,)))
        self.output = projection(dims, width, 2 * width, bias=True, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array, *, keys: jax.Array | None = None) -> jax.Array:
        wide = jnp.promote_types(x.dtype, jnp.float32)
        u = jnp.where(mask[..., None], x, 0).astype(wide)
        kernel = self.kernel(x.shape[1], wide)
        backward = kernel[:, 1, :-1] if kernel.shape[1] == 2 else None
        y = long_convolution(u, kernel[:, 0], backward) + self.d[...][None, None] * u
        y = gelu(y).astype(self.dims.dtype)
        return jax.nn.glu(self.output(dropout(y, self.dims.hidden_dropout, fold(keys, 0))))

    def kernel(self, length: int, dtype: jnp.dtype) -> jax.Array:
        """Kernels [D, 1 or 2, L] of the forward and the backward direction."""
        decay, frequency, b, c = (p[...].astype(dtype) for p in (self.log_decay, self.frequency, self.b, self.c))
        copies = (self.dims.d_model // len(decay), 1)  # channel i has the system i mod `systems`
        a = jnp.tile(jax.lax.complex(-jnp.exp(decay), frequency), copies)
        b = jnp.tile(jax.lax.complex(b[0], b[1]), copies)
        return s4d_kernel(jnp.exp(self.log_dt[...].astype(dtype)), a, b, jax.lax.complex(c[0], c[1]), length)
