"""Gated DeltaNet (Yang et al., 2024, arXiv:2412.06464), in both directions.

    S_t = a_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T,    y_t = S_t^T q_t / sqrt(K)
    a_t = exp(-exp(A) softplus(W_a x_t + c)),    b_t = sigmoid(W_b x_t)

q, k and v are silu of a depthwise convolution of a projection of x; q and k are then divided by their lengths. So the
layer is an associative memory: writing a value removes the earlier one of the same key. With `decay=False`, a is 1 and
the layer is DeltaNet (arXiv:2406.06484). The output of a head is normalised by its root mean square and, with
`output_gate`, multiplied by silu(W_g x).

Keys have three quarters of the width and values twice the width of keys, so the layer has about 6 D^2 parameters;
softmax attention has 4 D^2.

The paper is causal. Here the recurrence also runs from right to left, with the same q, k and v and with a and b of its
own, as Hydra does for Mamba-2, and both outputs are added; each contains the position itself. The convolution is
centred and 5 long, where the paper has a causal one of 4. There is no published row of the Long-Range Arena.

Padding: the input of the convolution, q, k, v and b are zero and a is 1 there, so the state passes through it
unchanged. Initial A and c are as in the authors' code (fla, commit bc3b101); no weight decay acts on them.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.convolution import short_convolution
from models.core import Dims, project, projection
from models.delta_rule import gated_delta_rule
from models.ops import rms_norm, zero_padding

COMPLEXITY = ("L", "L")
TAPS = 5


class GatedDeltaNet(nnx.Module):
    """The gated delta rule in both directions.

    decay:         let the state decay; False is DeltaNet
    output_gate:   multiply the output by silu(W_g x)
    bidirectional: add the recurrence from right to left
    """

    def __init__(
        self,
        dims: Dims,
        *,
        decay: bool = True,
        output_gate: bool = True,
        bidirectional: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
        heads = dims.num_heads
        self.dims, self.directions = dims, 1 + bidirectional
        self.key_width = max(1, 3 * dims.qkv_dim // (4 * heads))
        keys, values = heads * self.key_width, 2 * heads * self.key_width

        def layer(d_in: int, d_out: int) -> nnx.Linear:
            return projection(dims, d_in, d_out, bias=False, rngs=rngs)

        self.query, self.key = layer(dims.d_model, keys), layer(dims.d_model, keys)
        self.value = layer(dims.d_model, values)
        self.beta = layer(dims.d_model, self.directions * heads)
        limit = 1 / math.sqrt(TAPS)
        self.taps = nnx.Param(jax.random.uniform(rngs.params(), (TAPS, 2 * keys + values), minval=-limit, maxval=limit))
        self.decay = layer(dims.d_model, self.directions * heads) if decay else None
        if decay:
            a = jax.random.uniform(rngs.params(), (self.directions * heads,), minval=1e-4, maxval=16)
            log_step = jax.random.uniform(
                rngs.params(), (self.directions * heads,), minval=math.log(1e-3), maxval=math.log(0.1)
            )
            step = jnp.exp(log_step)
            self.log_a = nnx.Param(jnp.log(a), decay=False)
            self.step_bias = nnx.Param(step + jnp.log(-jnp.expm1(-step)), decay=False)  # softplus of it is the step
        self.gate = layer(dims.d_model, values) if output_gate else None
        self.norm_scale = nnx.Param(jnp.ones(2 * self.key_width))
        self.output = layer(values, dims.d_model)

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        x = zero_padding(x, mask)
        b, length, h = *x.shape[:2], self.dims.num_heads
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        qkv = jnp.concatenate(project(x, self.query, self.key, self.value), -1)
        qkv = zero_padding(jax.nn.silu(short_convolution(qkv, self.taps[...].astype(qkv.dtype))), mask)
        q, k, v = jnp.split(qkv, [h * self.key_width, 2 * h * self.key_width], -1)
        q, k, v = (y.reshape(b, length, h, -1) for y in (q, k, v))
        q, k = (_normalised(y.astype(dtype)) for y in (q, k))
        beta = zero_padding(jax.nn.sigmoid(self.beta(x).astype(dtype)), mask)
        log_decay = zero_padding(self._log_decay(x, beta), mask)

        def both(y: Array) -> Array:  # one batch: the sequence, and the sequence from right to left
            return jnp.concatenate([y, y[:, ::-1]]) if self.directions == 2 else y

        def own(y: Array) -> Array:  # [B, L, 2 H]: the first half is of the first direction
            return jnp.concatenate([y[..., :h], y[:, ::-1, h:]]) if self.directions == 2 else y

        y = gated_delta_rule(both(q * self.key_width**-0.5), both(k), both(v.astype(dtype)), own(beta), own(log_decay))
        if self.directions == 2:
            first, second = jnp.split(y, 2)
            y = first + second[:, ::-1]
        y = rms_norm(y, self.norm_scale[...]).astype(x.dtype).reshape(b, length, -1)
        return self.output(y if self.gate is None else y * jax.nn.silu(self.gate(x)))

    def _log_decay(self, x: Array, beta: Array) -> Array:
        """Return the logarithm of a, like beta [B, L, directions H]."""
        if self.decay is None:
            return jnp.zeros_like(beta)
        log_a, bias = (p[...].astype(beta.dtype)[None, None] for p in (self.log_a, self.step_bias))
        return -jnp.exp(log_a) * jax.nn.softplus(self.decay(x).astype(beta.dtype) + bias)


def _normalised(x: Array) -> Array:
    """Divide by the length of the last axis; zeros stay zeros."""
    return x * jax.lax.rsqrt((x * x).sum(-1, keepdims=True) + 1e-6)
