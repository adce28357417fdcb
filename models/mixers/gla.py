"""GLA, gated linear attention (Yang et al., 2024, arXiv:2312.06635), in both directions.

    S_t = diag(a_t) S_{t-1} + k_t v_t^T,    y_t = S_t^T q_t / sqrt(K),    a_t = sigmoid(W_2 W_1 x_t + b)^(1/16)

Each channel of a key has a decay a_t of its own, which depends on the token. The output of a head is normalised by its
root mean square and multiplied by silu(W_g x). Keys and queries have half the width of values, so the layer has about
as many parameters as softmax attention.

The paper is causal. Here the recurrence also runs from right to left, with the same queries, keys and values and a
decay of its own; the sum of both contains each position once. This is how LION (arXiv:2502.16249) makes linear
attention bidirectional. No published row of the Long-Range Arena has this form.

Padding: keys and values are zero and the decay is 1 there, so the state passes through it unchanged.

Deviations from the code of its authors (fla, commit bc3b101): the number of heads is the protocol's, not 4.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.core import MAX_SIZE, Dims, check_range, project, projection
from models.decayed_attention import two_sided_attention
from models.ops import rms_norm, zero_padding

COMPLEXITY = ("L", "L")
NORMALIZER = 16.0  # the decay is the 16th root of a sigmoid, so that it starts close to 1


class GLA(nnx.Module):
    """Gated linear attention.

    gate_rank:     width of W_1 x
    output_gate:   multiply the output by silu(W_g x)
    bidirectional: add the recurrence from right to left
    """

    def __init__(
        self,
        dims: Dims,
        *,
        gate_rank: int = 16,
        output_gate: bool = True,
        bidirectional: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
        check_range(1, MAX_SIZE, gate_rank=gate_rank)
        width, heads = dims.qkv_dim, dims.num_heads
        self.key_width = max(1, width // heads // 2)
        self.dims, self.bidirectional = dims, bidirectional

        def layer(d_in: int, d_out: int, *, bias: bool = False) -> nnx.Linear:
            return projection(dims, d_in, d_out, bias=bias, rngs=rngs)

        self.query, self.key = (layer(dims.d_model, heads * self.key_width) for _ in range(2))
        self.value = layer(dims.d_model, width)
        self.gate = layer(dims.d_model, width) if output_gate else None
        self.decay_in = layer(dims.d_model, gate_rank)
        self.decay_out = layer(gate_rank, (1 + bidirectional) * heads * self.key_width, bias=True)
        self.norm_scale = nnx.Param(jnp.ones(width // heads))
        self.output = layer(width, dims.d_model)

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        x = zero_padding(x, mask)
        b, length, h = *x.shape[:2], self.dims.num_heads
        q, k, v, a = project(x, self.query, self.key, self.value, self.decay_in)
        q, k, v = (y.reshape(b, length, h, -1) for y in (q, k, v))  # zero at padding, because x is
        logits = self.decay_out(a).reshape(b, length, h, -1).astype(jnp.promote_types(x.dtype, jnp.float32))
        log_decay = zero_padding(jax.nn.log_sigmoid(logits) / NORMALIZER, mask)
        forward, backward = jnp.split(log_decay, 2, -1) if self.bidirectional else (log_decay, None)
        y = two_sided_attention(q * self.key_width**-0.5, k, v.astype(log_decay.dtype), forward, backward)
        y = rms_norm(y, self.norm_scale[...]).astype(x.dtype).reshape(b, length, -1)
        return self.output(y if self.gate is None else y * jax.nn.silu(self.gate(x)))
