"""mLSTM, the matrix memory of xLSTM (Beck et al., 2024, arXiv:2405.04517), in both directions.

    C_t = f_t C_{t-1} + i_t k_t v_t^T,    n_t = f_t n_{t-1} + i_t k_t,    h_t = C_t^T q_t / max(|n_t . q_t|, 1)
    f_t = sigmoid(W_f [q, k, v]_t + b_f),    i_t = exp(W_i [q, k, v]_t + b_i),    k_t is divided by sqrt(K)

x is projected to twice the width, as u and z. q and k are block-diagonal projections of c = silu(convolution of u), and
v is one of u. The layer returns W_o((norm(h) + s c) silu(z)) with a learned vector s; `norm` is a LayerNorm of each
head without bias. It has about 6 D^2 parameters, softmax attention 4 D^2.

The paper is causal. Here both directions run, with the same q, k and v and gates of their own, and h is their sum. The
convolution is centred and 5 long, where the paper has a causal one of 4.

The authors divide C and n by the largest exponent so far, which cancels in h. Here the exponent of i is limited to
`MAX_GATE` instead, below which float32 is exact enough and cannot overflow. Initial gates are as in the authors' code
(NX-AI/xlstm, commit 032a6fb): weights 0, b_f from 3 to 6 over the heads, b_i normal with standard deviation 0.1.

Padding: the input of the convolution, k and v are zero and f is 1 there, so the memory passes through it unchanged.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.convolution import short_convolution
from models.core import Dims, check_range, projection
from models.decayed_attention import both_directions
from models.ops import zero_padding

COMPLEXITY = ("L", "L")
TAPS = 5
BLOCK = 4  # width of the blocks of the projections to q, k and v
MAX_GATE = 30.0
NORM_EPS = 1e-5


class MLSTM(nnx.Module):
    """mLSTM with its projections and gates.

    expand: width of u relative to d_model
    """

    def __init__(self, dims: Dims, *, expand: int = 2, rngs: nnx.Rngs) -> None:
        check_range(1, 16, expand=expand)
        self.heads = dims.num_heads
        width = -(-expand * dims.d_model // self.heads) * self.heads
        block = math.gcd(BLOCK, width)
        self.dims, self.width = dims, width
        self.input = projection(dims, dims.d_model, 2 * width, bias=False, rngs=rngs)
        limit = 1 / math.sqrt(TAPS)
        self.taps = nnx.Param(jax.random.uniform(rngs.params(), (TAPS, width), minval=-limit, maxval=limit))
        self.blocks = nnx.Param(  # of q, k and v
            jax.random.normal(rngs.params(), (3, width // block, block, block)) * math.sqrt(2 / (5 * block))
        )
        self.gate_weights = nnx.Param(jnp.zeros((3 * width, 4 * self.heads)))  # i, f and again i, f from the right
        forget = jnp.linspace(3.0, 6.0, self.heads)
        first, second = 0.1 * jax.random.normal(rngs.params(), (2, self.heads))
        self.gate_biases = nnx.Param(jnp.concatenate([first, forget, second, forget]), decay=False)
        self.norm = nnx.LayerNorm(
            width // self.heads, epsilon=NORM_EPS, use_bias=False, use_scale=False, dtype=dims.dtype, rngs=rngs
        )
        self.norm_scale = nnx.Param(jnp.ones(width))
        self.skip = nnx.Param(jnp.ones(width))
        self.output = projection(dims, width, dims.d_model, bias=False, rngs=rngs)

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        b, length = x.shape[:2]
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        u, z = jnp.split(self.input(zero_padding(x, mask)), 2, -1)
        c = zero_padding(jax.nn.silu(short_convolution(u, self.taps[...].astype(u.dtype))), mask)
        blocks = self.blocks[...].astype(u.dtype)
        q, k, v = (
            jnp.einsum("blnc,ncd->blnd", y.reshape(b, length, *blocks.shape[1:3]), weights).reshape(b, length, -1)
            for y, weights in zip((c, c, u), blocks, strict=True)
        )
        gates = jnp.concatenate([q, k, v], -1).astype(dtype) @ self.gate_weights[...].astype(dtype)
        gates = gates + self.gate_biases[...].astype(dtype)[None, None]
        q, k, v = (y.reshape(b, length, self.heads, -1).astype(dtype) for y in (q, k, v))
        input_gates, forget_gates = jnp.split(gates.reshape(b, length, 2, -1), 2, -1)  # [B, L, directions, H]
        log_forget = jax.nn.log_sigmoid(forget_gates)
        h = matrix_memory(q, k, v, mask, jnp.minimum(input_gates, MAX_GATE), log_forget).sum(2)
        h = self.norm(h.astype(u.dtype)).reshape(b, length, -1) * self.norm_scale[...].astype(u.dtype)[None, None]
        return self.output((h + self.skip[...].astype(u.dtype)[None, None] * c) * jax.nn.silu(z))


def matrix_memory(q: Array, k: Array, v: Array, mask: Array, log_input: Array, log_forget: Array) -> Array:
    """Compute C_t^T q_t / max(|n_t . q_t|, 1) from left to right and from right to left.

    Args:
      q, k, v:   [B, L, H, K], [B, L, H, K], [B, L, H, V]
      mask:      [B, L] bool, True = real token
      log_input, log_forget: logarithms of i and f, [B, L, 2, H], first those from left to right

    Returns:
      [B, L, 2, H, V]
    """
    v = jnp.concatenate([v, jnp.ones_like(v[..., :1])], -1)  # the sum of this column is n . q

    def one_direction(n: int) -> tuple[Array, Array, Array, Array]:
        weight = zero_padding(jnp.exp(log_input[:, :, n]), mask) / math.sqrt(q.shape[-1])
        return q, k * weight[..., None], v, zero_padding(log_forget[:, :, n], mask)[..., None]

    y = jnp.stack(both_directions(one_direction(0), one_direction(1)), 2)
    return y[..., :-1] / jnp.maximum(jnp.abs(y[..., -1:]), 1)
