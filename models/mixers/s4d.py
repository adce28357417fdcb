"""S4D, a diagonal state space model (Gu et al., 2022, arXiv:2206.11893).

    y = k * u + k' *' u + d u,    k_l = 2 Re sum_n c_n b_n (exp(dt a_n) - 1) / a_n exp(l dt a_n)

Each channel has one system of N/2 complex modes. A mode stands for a conjugate pair and is discretised by zero-order
hold (ZOH). *' is the convolution from the right, which starts at lag 1 as in S4's code; its kernel k' has its own c and
shares a, b and dt. The block is convolution, GELU, dropout, Linear D -> 2D, GLU; norm and residual connection are the
encoder's. Re a = -exp(.) and dt = exp(.), so every mode decays.

Initial values by `init`, with n = 0 .. N/2 - 1:

    lin   a_n = -1/2 + i pi n                          b_n = 1
    inv   a_n = -1/2 + i N/pi (N/(2n+1) - 1)           b_n = 1
    legs  a, b of HiPPO-LegS, A_nk = -sqrt((2n+1)(2k+1)) for n > k and -(n+1) for n = k, B_n = sqrt(2n+1): a are the
          eigenvalues of its normal part A + p p^T, p_n = sqrt(n + 1/2), with eigenvectors V; b = V* B, the imaginary
          part clipped to [-2, 2]

c is complex normal, d normal, and dt log-uniform between `dt_min` and `dt_max` (Path-X: 1e-4 to 1e-1).

S4's code is github.com/state-spaces/s4 at commit e757cef, to which the following file names refer. b of legs follows
`nplr` in src/models/hippo/hippo.py and `dplr` in src/models/sequence/kernels/dplr.py. The clip acts on the imaginary
part, so the phase of each eigenvector matters: there, as in LAPACK, its first component is real; here it is real and
positive. S4 keeps the modes with negative imaginary part; these are their conjugates. Neither difference changes the
distribution of k.

Learning rates: a, b and dt have the absolute peak rate `lr` without weight decay, as in configs/experiment/lra, where
it is 1e-3 and other parameters have 1e-3 to 1e-2. ListOps, Text and Retrieval use it for a and b only; their dt has the
rate of the other parameters. If the base rate is below 1e-3, S4's code (`configure_optimizers` in train.py) still gives
a, b and dt the higher rate; here the rate of no parameter exceeds the protocol's peak.

Published rows: S4's runs on Long Range Arena are bidirectional, hence the default. Those of ListOps, Text and Retrieval
have state=4 and systems=1.

Deviations from S4's code: the kernel is not computed as a table [D, N/2, L] but as a product of two tables of length
sqrt(L). The published blocks have BatchNorm, by which examples depend on each other, and no MLP between the mixers,
which the encoder has. u is set to zero at padding, which is exact: the backward direction also starts from a zero
state.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from models.convolution import exponential_kernel, long_convolution
from models.core import MAX_SIZE, Dims, check_range, projection
from models.dropout import dropout, fold_in_keys
from models.hippo import legs
from models.ops import gelu

COMPLEXITY = ("L log L", "L")
VERSION = 2  # version 1: b = 1 for legs too, and a tenth of the protocol's learning rate for a, b and dt


def s4d_kernel(dt: Array, a: Array, b: Array, c: Array, length: int) -> Array:
    """Compute the kernels of diagonal systems, with M = N/2 modes and G kernels per channel.

    Args:
      dt: [D]
      a: complex [D, M]
      b: complex [D, M]
      c: complex [D, G, M]
      length: L

    Returns:
      real [D, G, L]
    """
    rates = dt[:, None] * a
    return 2 * exponential_kernel(c * (b * jnp.expm1(rates) / a)[:, None], rates, length)


def initial_system(init: str, state: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the initial a and b of a state of size N, complex [N/2], for the modes with imaginary part >= 0."""
    n = np.arange(state // 2)
    ones = np.ones(state // 2, complex)
    if init == "lin":
        return -0.5 + 1j * np.pi * n, ones
    if init == "inv":
        return -0.5 + 1j * state / np.pi * (state / (2 * n + 1) - 1), ones
    eigenvalues, vectors, hippo_b = legs(state)
    b = vectors.conj().T @ hippo_b
    return eigenvalues, b.real + 1j * np.clip(b.imag, -2, 2)


class S4D(nnx.Module):
    """S4D with its GLU.

    init:           initial values of a and b
    state:          N, even
    systems:        number of sets of a and b, which channels share; None: each channel has its own
    dt_min, dt_max: bounds of the initial dt
    bidirectional:  add a second kernel from the right
    lr:             peak learning rate of a, b and dt, at most the protocol's
    """

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
        lr: float = 1e-3,
        rngs: nnx.Rngs,
    ) -> None:
        check_range(2, 1024, state=state)
        check_range(1, MAX_SIZE, systems=systems)
        check_range(1e-8, 10.0, dt_min=dt_min, dt_max=dt_max)
        check_range(1e-9, 1.0, lr=lr)
        width = dims.d_model
        systems = width if systems is None else systems
        if state % 2:
            raise ValueError(f"option state={state}: must be even, because modes are conjugate pairs")
        if width % systems:
            raise ValueError(f"option systems={systems}: must divide d_model {width}; none gives each channel its own")
        if dt_min > dt_max:
            raise ValueError(f"option dt_min={dt_min}: must be at most dt_max={dt_max}")

        def state_param(value: Array) -> nnx.Param:
            return nnx.Param(value, lr=lr, decay=False)

        self.dims = dims
        a, b = (
            jnp.broadcast_to(jnp.asarray(x, jnp.complex64)[None], (systems, state // 2))
            for x in initial_system(init, state)
        )
        uniform = jax.random.uniform(rngs.params(), (width,))
        self.log_dt = state_param(math.log(dt_min) + uniform * math.log(dt_max / dt_min))
        self.log_decay = state_param(jnp.log(-a.real))
        self.frequency = state_param(a.imag)
        self.b = state_param(jnp.stack([b.real, b.imag]))  # real and imaginary part
        self.c = nnx.Param(math.sqrt(0.5) * jax.random.normal(rngs.params(), (2, width, 1 + bidirectional, state // 2)))
        self.d = nnx.Param(jax.random.normal(rngs.params(), (width,)))
        self.output = projection(dims, width, 2 * width, bias=True, rngs=rngs)

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        accum_dtype = jnp.promote_types(x.dtype, jnp.float32)
        u = jnp.where(mask[..., None], x, 0).astype(accum_dtype)
        kernel = self.kernel(x.shape[1], accum_dtype)
        backward = kernel[:, 1, :-1] if kernel.shape[1] == 2 else None
        y = long_convolution(u, kernel[:, 0], backward) + self.d[...][None, None] * u
        y = gelu(y).astype(self.dims.dtype)
        return jax.nn.glu(self.output(dropout(y, self.dims.hidden_dropout, fold_in_keys(rng_keys, 0))))

    def kernel(self, length: int, dtype: jnp.dtype) -> Array:
        """Compute the kernels of the forward and, if bidirectional, the backward direction, [D, 1 or 2, L]."""
        decay, frequency, b, c = (p[...].astype(dtype) for p in (self.log_decay, self.frequency, self.b, self.c))
        copies = (self.dims.d_model // len(decay), 1)  # channel i has system i mod `systems`
        a = jnp.tile(jax.lax.complex(-jnp.exp(decay), frequency), copies)
        b = jnp.tile(jax.lax.complex(b[0], b[1]), copies)
        return s4d_kernel(jnp.exp(self.log_dt[...].astype(dtype)), a, b, jax.lax.complex(c[0], c[1]), length)
