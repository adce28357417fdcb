"""Mega, moving average equipped gated attention (Ma et al., 2022, arXiv:2209.10655); it replaces the whole block.

    X' = EMA(X),    Z, G = silu(X' [Wz, Wg]),    U = sigmoid(X' Wu),    V = silu(X Wv)
    Q, K = k1 Z + m1, k2 Z + m2,    O = f(Q K^T / t + b_{i-j}) V
    Y = U silu(X' Wh + (G O) Uh) + (1 - U) X,    then an MLP with residual connection

EMA is h damped averages per channel and direction, x_t = (1 - alpha delta) x_{t-1} + alpha beta u_t, combined by eta: a
convolution with a sum of exponentials. `attention` selects f and t. softmax has t = sqrt(z). laplace is
f(x) = (1 + erf((x - sqrt(1/2)) / (sqrt(2) sigma))) / 2 with sigma^2 = 1/(4 pi), where t is the number of real keys that
a query sees. Softmax does not depend on m2, which is omitted for it.

`chunk` limits attention to chunks that start at position 0 (Mega-chunk: 128), so that time and memory are linear except
for the FFT of the EMA. `norm`: the paper normalises after the residual connection for text, with softmax, and before
it for images, with laplace. "pre" is the default because the encoder's last norm expects it and all other rows have
it. `ema="code"` is the form of the authors' code (facebookresearch/mega): eta / sqrt(h), a skip connection with
weights omega, and SiLU; their runs cut the kernel at `taps` of 1024. z and v are D/2 and 2D as in most of the paper's
rows (z is 0.8 D on ListOps, 0.6 D on Image). The MLP's width and all dropout rates are the protocol's.

Deviations: LayerNorm is used, where the paper has ScaleNorm for Text and Retrieval and BatchNorm for images. Linear
layers have the protocol's initialisation instead of N(0, 0.02^2).
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.block_attention import merge_blocks, split_blocks
from models.convolution import exponential_kernel, long_convolution
from models.core import MAX_SIZE, Block, Dims, check_range, projection
from models.dropout import dropout, fold_in_keys
from models.ops import boolean_mask, masked_softmax, zero_padding

COMPLEXITY = ("L^2", "L^2")


def damped_ema(x: Array, alpha: Array, delta: Array, beta: Array, eta: Array, taps: int) -> Array:
    """Compute the sum of N damped moving averages per channel from the left and N from the right.

    Both directions include the current position.

    Args:
      x:                       [B, L, D], zero at padding
      alpha, delta, beta, eta: [2, D, N], alpha and delta in (0, 1)
      taps:                    length of the kernels, at most L

    Returns:
      [B, L, D], at least float32
    """
    weights, rates = (eta * alpha * beta), jnp.log1p(-jnp.minimum(alpha * delta, 1 - 1e-6))
    _, d, n = weights.shape
    left, right = exponential_kernel(weights.reshape(2 * d, 1, n), rates.reshape(2 * d, n), taps).reshape(2, d, taps)
    current = left[:, :1] + right[:, :1]
    return long_convolution(x, jnp.concatenate([current, left[:, 1:]], 1), right[:, 1:])


def attention_weights(q: Array, k: Array, bias: Array, mask: Array, kind: str) -> Array:
    """Compute attention weights within N chunks.

    Args:
      q, k: [B, N, S, Z]
      bias: [S, S]
      mask: [B, N, S] bool, True = real token
      kind: softmax or laplace

    Returns:
      [B, N, S, S], at least float32, zero at padded keys
    """
    mask = boolean_mask(mask)
    accum_dtype = jnp.promote_types(q.dtype, jnp.float32)
    logits = jnp.einsum("bniz,bnjz->bnij", q, k, preferred_element_type=accum_dtype)
    bias, visible = bias.astype(accum_dtype)[None, None], mask[:, :, None, :]
    if kind == "softmax":
        return masked_softmax(logits / math.sqrt(q.shape[-1]) + bias, visible)
    return jnp.where(visible, laplace(logits / jnp.maximum(visible.sum(-1, keepdims=True), 1) + bias), 0)


def laplace(x: Array) -> Array:
    """Compute the cumulative distribution function of N(sqrt(1/2), 1/(4 pi))."""
    return 0.5 * (1 + jax.lax.erf((x - math.sqrt(0.5)) * math.sqrt(2 * math.pi)))


def toeplitz(table: Array, size: int) -> Array:
    """Return [S, S] with the value of lag i - j at (i, j), from a table [2M - 1] of lags 1 - M .. M - 1; S <= M."""
    zero = len(table) // 2
    ring = [table[zero - size + 1 : zero + 1][::-1], table[:1], table[zero + 1 : zero + size][::-1]]
    rows = jnp.broadcast_to(jnp.concatenate(ring)[None], (size, 2 * size))  # the reshape shifts each row by one
    return rows.reshape(-1)[: size * (2 * size - 1)].reshape(size, 2 * size - 1)[:, :size]


class Mega(Block):
    """Mega with its MLP.

    attention: softmax or laplace
    chunk:     positions per attention chunk; None: the whole sequence
    norm:      pre = before each sub-layer; post = after its residual connection
    z_dim:     width of queries and keys; None: d_model / 2
    v_dim:     width of values; None: 2 d_model
    ema_dim:   h
    ema:       paper, or code = the form of the authors' code
    taps:      length of the EMA kernel; None: the whole sequence
    """

    def __init__(
        self,
        dims: Dims,
        *,
        attention: Literal["softmax", "laplace"] = "softmax",
        chunk: int | None = None,
        norm: Literal["pre", "post"] = "pre",
        z_dim: int | None = None,
        v_dim: int | None = None,
        ema_dim: int = 16,
        ema: Literal["paper", "code"] = "paper",
        taps: int | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        check_range(1, MAX_SIZE, chunk=chunk, z_dim=z_dim, v_dim=v_dim, ema_dim=ema_dim, taps=taps)
        d = dims.d_model
        z = max(d // 2, 1) if z_dim is None else z_dim
        v = 2 * d if v_dim is None else v_dim

        def normal(std: float, *shape: int) -> nnx.Param:
            return nnx.Param(std * jax.random.normal(rngs.params(), shape))

        self.dims, self.attention, self.norm, self.widths = dims, attention, norm, (d, z, v, d)
        self.chunk, self.taps = min(chunk or dims.max_len, dims.max_len), taps or dims.max_len
        self.ema_scale = 1 / math.sqrt(ema_dim) if ema == "code" else 1.0
        self.alpha, self.delta = normal(0.2, 2, d, ema_dim), normal(0.2, 2, d, ema_dim)
        self.beta = nnx.Param(normal(0.02, 2, d, ema_dim)[...] + (-1.0) ** jnp.arange(ema_dim)[None, None])
        self.eta = normal(1.0, 2, d, ema_dim)
        self.omega = normal(1.0, d) if ema == "code" else None
        self.value = projection(dims, d, v, bias=True, rngs=rngs)
        self.gates = projection(dims, d, 2 * d + z + v, bias=True, rngs=rngs)
        self.kappa = normal(0.02, 2, z)
        self.mu = nnx.Param(jnp.zeros((2 if attention == "laplace" else 1, z)))
        self.bias = normal(0.02, 2 * self.chunk - 1)
        self.hidden = projection(dims, v, d, bias=False, rngs=rngs)
        self.expand = projection(dims, d, dims.mlp_dim, bias=True, rngs=rngs)
        self.contract = projection(dims, dims.mlp_dim, d, bias=True, rngs=rngs)
        self.attention_norm, self.mlp_norm = (
            nnx.LayerNorm(d, epsilon=dims.norm_eps, dtype=dims.dtype, rngs=rngs) for _ in range(2)
        )

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        rate, pre, x = self.dims.hidden_dropout, self.norm == "pre", zero_padding(x, mask)
        x = self.gated(self.attention_norm(x) if pre else x, x, mask, rng_keys)
        x = x if pre else self.attention_norm(x)
        y = jax.nn.silu(self.expand(self.mlp_norm(x) if pre else x))
        x = x + dropout(self.contract(dropout(y, rate, fold_in_keys(rng_keys, 3))), rate, fold_in_keys(rng_keys, 4))
        return x if pre else self.mlp_norm(x)

    def gated(self, x: Array, residual: Array, mask: Array, rng_keys: Array | None) -> Array:
        """Apply the gated attention to x [B, L, D] and combine it with residual [B, L, D] -> [B, L, D]."""
        rate, dtype = self.dims.hidden_dropout, self.dims.dtype
        smooth = dropout(self.average(x, mask).astype(dtype), rate, fold_in_keys(rng_keys, 0))
        ends = [sum(self.widths[:i]) for i in (1, 2, 3)]
        update, z, gate, hidden = jnp.split(self.gates(smooth), ends, -1)
        update, z, gate = jax.nn.sigmoid(update), jax.nn.silu(z), jax.nn.silu(gate)
        kappa, mu = self.kappa[...].astype(dtype), self.mu[...].astype(dtype)
        q, k = z * kappa[0][None, None] + mu[0][None, None], z * kappa[1][None, None]
        k = k + mu[1][None, None] if len(mu) == 2 else k
        attended = self.attend(q, k, jax.nn.silu(self.value(x)), mask, fold_in_keys(rng_keys, 1))
        hidden = dropout(jax.nn.silu(hidden + self.hidden(gate * attended)), rate, fold_in_keys(rng_keys, 2))
        return residual + update * (hidden - residual)

    def average(self, x: Array, mask: Array) -> Array:
        """Compute X' = EMA(x) of x [B, L, D], at least float32."""
        accum_dtype = jnp.promote_types(x.dtype, jnp.float32)
        x = jnp.where(mask[..., None], x, 0).astype(accum_dtype)
        alpha, delta, beta, eta = (p[...].astype(accum_dtype) for p in (self.alpha, self.delta, self.beta, self.eta))
        taps = min(self.taps, x.shape[1])
        y = damped_ema(x, jax.nn.sigmoid(alpha), jax.nn.sigmoid(delta), beta, self.ema_scale * eta, taps)
        return y if self.omega is None else jax.nn.silu(y + self.omega[...].astype(accum_dtype)[None, None] * x)

    def attend(self, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None) -> Array:
        """Attend within chunks: q, k [B, L, Z], v [B, L, V], mask [B, L] -> [B, L, V]."""
        length, size = v.shape[1], min(self.chunk, q.shape[1])
        q, k, v, mask = (split_blocks(x, size) for x in (q, k, v, mask))
        weights = attention_weights(q, k, toeplitz(self.bias[...], size), mask, self.attention)
        # Dropout depends on the query's position and the key's index in the chunk.
        rows = dropout(weights.reshape(len(v), -1, size), self.dims.dropout, rng_keys)
        weights = rows.reshape(weights.shape).astype(v.dtype)
        return merge_blocks(jnp.einsum("bnij,bnjv->bniv", weights, v), length)
