"""Mamba-2 in both directions, as in Hydra (Hwang et al., 2024, arXiv:2407.09941; Dao and Gu, 2024, arXiv:2405.21060).

For each head and direction, with d_t = softplus(W_d u_t + b) and A = -exp(a) of the head,

    S_t = exp(d_t A) S_{t-1} + d_t B_t x_t^T,    h_t = S_t^T C_t

x, B and C are silu of a centred depthwise convolution of a projection of u; all heads share B and C. The directions
share x, A and b, and each has its own d, B and C. The output of each direction is shifted by one position, so that no
position sees itself; the diagonal is a term of its own:

    y_t = h_{t-1} + h'_{t+1} + x_t (W_D x_t + D),    output = W_o (RMSNorm(y) silu(z)),    z = W_z u

The state is a matrix of N = `state` rows, so the layer is linear attention with a decay of each head. It has about
6 D^2 + 4 N D parameters, softmax attention 4 D^2.

Padding: the input of the convolution, d and x are zero there, so the state passes through it unchanged. No weight
decay acts on a, b and D. All sizes are as in the authors' code (goombalab/hydra, commit 55bef74), except that heads are
narrower if the width is not a multiple of `head_width`.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.convolution import short_convolution
from models.core import MAX_SIZE, Dims, check_range, projection
from models.decayed_attention import both_directions
from models.ops import rms_norm, zero_padding

COMPLEXITY = ("L", "L")
DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 0.1, 1e-4  # bounds of the initial step d, which is log-uniform


class Mamba2(nnx.Module):
    """Bidirectional Mamba-2 (Hydra).

    state:      rows of the state, N
    expand:     width of x relative to d_model
    head_width: width of a head of x
    kernel:     length of the convolution, odd
    """

    def __init__(
        self,
        dims: Dims,
        *,
        state: int = 64,
        expand: int = 2,
        head_width: int = 64,
        kernel: int = 7,
        rngs: nnx.Rngs,
    ) -> None:
        check_range(1, 1024, state=state, head_width=head_width)
        check_range(1, 16, expand=expand)
        check_range(1, 63, kernel=kernel)
        if kernel % 2 == 0:
            raise ValueError(f"option kernel={kernel}: must be odd, because the convolution is centred")
        if expand * dims.d_model > MAX_SIZE:
            raise ValueError(f"option expand={expand}: the width {expand * dims.d_model:,} is above {MAX_SIZE:,}")
        self.dims, self.state = dims, state
        self.width = expand * dims.d_model
        self.heads = self.width // math.gcd(self.width, head_width)
        self.convolved = self.width + 4 * state  # x, then B and C of both directions
        self.input = projection(dims, dims.d_model, self.width + self.convolved + 2 * self.heads, bias=False, rngs=rngs)
        limit = 1 / math.sqrt(kernel)
        self.taps = nnx.Param(jax.random.uniform(rngs.params(), (kernel, self.convolved), minval=-limit, maxval=limit))
        self.taps_bias = nnx.Param(jax.random.uniform(rngs.params(), (self.convolved,), minval=-limit, maxval=limit))
        log_dt = jax.random.uniform(rngs.params(), (self.heads,), minval=math.log(DT_MIN), maxval=math.log(DT_MAX))
        dt = jnp.maximum(jnp.exp(log_dt), DT_FLOOR)
        self.dt_bias = nnx.Param(dt + jnp.log(-jnp.expm1(-dt)), decay=False)  # softplus of it is dt
        self.log_a = nnx.Param(jnp.zeros(self.heads), decay=False)
        self.d = nnx.Param(jnp.ones(self.heads), decay=False)
        self.d_layer = projection(dims, self.width, self.heads, bias=False, rngs=rngs)
        self.norm_scale = nnx.Param(jnp.ones(self.width))
        self.output = projection(dims, self.width, dims.d_model, bias=False, rngs=rngs)

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        u = zero_padding(x, mask)
        b, length = u.shape[:2]
        dtype = jnp.promote_types(u.dtype, jnp.float32)
        z, convolved, dt = jnp.split(self.input(u), [self.width, self.width + self.convolved], -1)
        taps, bias = (p[...].astype(convolved.dtype) for p in (self.taps, self.taps_bias))
        convolved = zero_padding(jax.nn.silu(short_convolution(convolved, taps) + bias[None, None]), mask)
        x = convolved[..., : self.width].reshape(b, length, self.heads, -1).astype(dtype)
        bs_and_cs = jnp.split(convolved[..., None, self.width :].astype(dtype), 4, -1)  # [B, L, 1, N] each

        def one_direction(dt: Array, bs: Array, cs: Array) -> tuple[Array, ...]:
            step = jax.nn.softplus(dt.astype(dtype) + self.dt_bias[...].astype(dtype)[None, None])
            step = zero_padding(step, mask)[..., None]  # [B, L, H, 1]
            bs, cs = (jnp.broadcast_to(y, (b, length, self.heads, self.state)) for y in (bs, cs))
            return cs, bs, step * x, -jnp.exp(self.log_a[...].astype(dtype))[None, None, :, None] * step

        dts = jnp.split(dt, 2, -1)
        forward, backward = both_directions(
            one_direction(dts[0], *bs_and_cs[:2]),  # type: ignore[arg-type]
            one_direction(dts[1], *bs_and_cs[2:]),  # type: ignore[arg-type]
        )
        shifted = jnp.pad(forward[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))
        shifted = shifted + jnp.pad(backward[:, 1:], ((0, 0), (0, 1), (0, 0), (0, 0)))
        diagonal = self.d_layer(x.reshape(b, length, -1)).astype(dtype) + self.d[...].astype(dtype)[None, None]
        y = (shifted + x * diagonal[..., None]).reshape(b, length, -1)
        return self.output(rms_norm(y, self.norm_scale[...]).astype(u.dtype) * jax.nn.silu(z))
