"""HGRN2, gated linear recurrence with state expansion (Qin et al., 2024, arXiv:2404.07904), in both directions.

    S_t = diag(f_t) S_{t-1} + (1 - f_t) v_t^T,    y_t = S_t^T q_t
    f_t = c + (1 - c) sigmoid(W_f x_t),    q_t = silu(W_q x_t),    v_t = W_v x_t

The key of a token is 1 minus its decay, so each row of the state is a moving average of values. The output is divided
by its root mean square over all heads. It has the 4 D^2 parameters of softmax attention.

The recurrence also runs from right to left with the same q, f and v, and both contain the position itself once. c is
the option `lower_bound`. In the paper, lower bounds are learned and grow with the layer, which a mixer does not know.

The published rows of HGRN2 on Image, Pathfinder and Path-X scan the two dimensions of the image; this file does not.

Padding: keys and values are zero and the decay is 1 there, so the state passes through it unchanged.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.core import Dims, check_range, project, projection
from models.decayed_attention import two_sided_attention
from models.ops import rms_norm, zero_padding

COMPLEXITY = ("L", "L")


class HGRN2(nnx.Module):
    """HGRN2 with one decay for each channel.

    lower_bound: the smallest decay, c
    """

    def __init__(self, dims: Dims, *, lower_bound: float = 0.0, rngs: nnx.Rngs) -> None:
        check_range(0.0, 0.999, lower_bound=lower_bound)
        self.dims, self.lower_bound = dims, lower_bound
        self.query, self.forget, self.value = (
            projection(dims, dims.d_model, dims.qkv_dim, bias=False, rngs=rngs) for _ in range(3)
        )
        self.norm_scale = nnx.Param(jnp.ones(dims.qkv_dim))
        self.output = projection(dims, dims.qkv_dim, dims.d_model, bias=False, rngs=rngs)

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        x = zero_padding(x, mask)
        heads = (*x.shape[:2], self.dims.num_heads, self.dims.head_dim)
        dtype, c = jnp.promote_types(x.dtype, jnp.float32), self.lower_bound
        q, f, v = (y.reshape(heads) for y in project(x, self.query, self.forget, self.value))
        f = f.astype(dtype)
        k = zero_padding((1 - c) * jax.nn.sigmoid(-f), mask)  # 1 minus the decay, exact where the decay is close to 1
        log_decay = jnp.log(c + (1 - c) * jax.nn.sigmoid(f)) if c else jax.nn.log_sigmoid(f)
        log_decay = zero_padding(log_decay, mask)
        y = two_sided_attention(jax.nn.silu(q), k, v.astype(dtype), log_decay, log_decay)
        return self.output(rms_norm(y.reshape(*x.shape[:2], -1), self.norm_scale[...]).astype(x.dtype))
