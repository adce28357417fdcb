"""Retention (Sun et al., 2023, arXiv:2307.08621), in both directions.

    y_i = sum_j g^|i - j| (R_i q_i) . (R_j k_j) v_j / sqrt(K),    g = 1 - 2^(-5 - h) of head h = 0, 1, ...

R_i rotates pairs of channels by angles that are proportional to the position (`models.rotary`). The output of a head is
divided by its root mean square, without a learned scale, and multiplied by silu(W_g x). The sum runs over both
directions as two recurrences, so time and memory are linear in the length.

Values are `expand` times as wide as keys. With the paper's 2 the layer has 8 D^2 parameters, softmax attention 4 D^2.

The paper is causal. The authors' code (torchscale) divides the weights of a query by the root of their decays' sum and
by the absolute value of their sum; the division by the root mean square cancels both. No row of the Long-Range Arena is
published.

Padding: keys and values are zero there.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from models.core import Dims, check_range, project, projection
from models.decayed_attention import two_sided_attention
from models.ops import rms_norm, zero_padding
from models.rotary import BASE, rotate

COMPLEXITY = ("L", "L")


class RetNet(nnx.Module):
    """Retention with a fixed decay of each head.

    expand: width of values relative to keys
    """

    def __init__(self, dims: Dims, *, expand: int = 2, rngs: nnx.Rngs) -> None:
        check_range(1, 16, expand=expand)

        def layer(d_in: int, d_out: int) -> nnx.Linear:
            return projection(dims, d_in, d_out, bias=False, rngs=rngs)

        width = dims.qkv_dim
        self.dims = dims
        self.query, self.key = layer(dims.d_model, width), layer(dims.d_model, width)
        self.value, self.gate = layer(dims.d_model, expand * width), layer(dims.d_model, expand * width)
        self.output = layer(expand * width, dims.d_model)

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        x = zero_padding(x, mask)
        b, length, h = *x.shape[:2], self.dims.num_heads
        q, k, v, gate = project(x, self.query, self.key, self.value, self.gate)
        q, k, v = (y.reshape(b, length, h, -1) for y in (q, k, v))  # zero at padding, because x is
        angles = BASE ** -np.linspace(0, 1, self.dims.head_dim // 2)
        q, k = (rotate(y, angles) for y in (q, k))
        decay = jnp.asarray(np.log1p(-(2.0 ** (-5.0 - np.arange(h))))[:, None], jnp.promote_types(x.dtype, jnp.float32))
        y = two_sided_attention(q * self.dims.head_dim**-0.5, k, v.astype(decay.dtype), decay, decay)
        return self.output(rms_norm(y).astype(x.dtype).reshape(b, length, -1) * jax.nn.silu(gate))
