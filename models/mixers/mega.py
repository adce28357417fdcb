"""Mega, moving average equipped gated attention (Ma et al., 2022, arXiv:2209.10655): it is the whole block.

    X' = EMA(X),    Z, G = silu(X' [Wz, Wg]),    U = sigmoid(X' Wu),    V = silu(X Wv)
    Q, K = k1 Z + m1, k2 Z + m2,    O = f(Q K^T / t + b_{i-j}) V
    Y = U silu(X' Wh + (G O) Uh) + (1 - U) X,    then an MLP with residual

EMA is h damped averages per channel and direction, x_t = (1 - alpha delta) x_{t-1} + alpha beta u_t, read by eta: a
convolution with a sum of exponentials. f and t: softmax, sqrt(z); or laplace, (1 + erf((x - sqrt(1/2)) / (sqrt(2)
sigma))) / 2 with sigma^2 = 1/(4 pi), and t the number of real keys in sight. Softmax is blind to m2, which is left out.

`chunk` bounds attention to chunks from position 0 (Mega-chunk: 128), which makes time and memory linear but for EMA's
FFT. `norm`: the paper normalises after the residual for text, with softmax, and before it for images, with laplace.
"pre" is the default for it is what the encoder's last norm is made for, and what all other rows have.
`ema="code"` is the authors' (facebookresearch/mega): eta / sqrt(h), a skip with weights omega, SiLU after; their runs
cut the kernel at `taps` of 1024. z and v are D/2 and 2D as in most of the paper's rows (z 0.8 D on ListOps, 0.6 D on
Image); the MLP's width and all rates of dropout are the protocol's.

Deviations: LayerNorm, where Text and Retrieval had ScaleNorm and images BatchNorm; the house's xavier-uniform
kernels, not N(0, 0.02^2).
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from models.block_attention import cut, join
from models.convolution import exponential_kernel, long_convolution
from models.core import Block, Dims, projection
from models.dropout import dropout, fold_in_keys
from models.ops import boolean_mask, masked_softmax

COMPLEXITY = ("L^2", "L^2")


def damped_ema(
    x: jax.Array, alpha: jax.Array, delta: jax.Array, beta: jax.Array, eta: jax.Array, taps: int
) -> jax.Array:
    """Sum of a moving average from the left and one from the right; both count the present. N of each per channel.

    x [B, L, D], zero at padding; alpha, delta in (0, 1), beta, eta [2, D, N]; taps <= L -> [B, L, D].
    """
    weights, rates = (eta * alpha * beta), jnp.log1p(-jnp.minimum(alpha * delta, 1 - 1e-6))
    _, d, n = weights.shape
    left, right = exponential_kernel(weights.reshape(2 * d, 1, n), rates.reshape(2 * d, n), taps).reshape(2, d, taps)
    present = left[:, :1] + right[:, :1]
    return long_convolution(x, jnp.concatenate([present, left[:, 1:]], 1), right[:, 1:])


def attention_weights(q: jax.Array, k: jax.Array, bias: jax.Array, mask: jax.Array, kind: str) -> jax.Array:
    """q, k [B, N, S, Z] of N chunks, bias [S, S], mask [B, N, S] -> weights [B, N, S, S], float32, 0 at padded keys."""
    mask = boolean_mask(mask)
    accum_dtype = jnp.promote_types(q.dtype, jnp.float32)
    logits = jnp.einsum("bniz,bnjz->bnij", q, k, preferred_element_type=accum_dtype)
    bias, seen = bias.astype(accum_dtype)[None, None], mask[:, :, None, :]
    if kind == "softmax":
        return masked_softmax(logits / math.sqrt(q.shape[-1]) + bias, seen)
    return jnp.where(seen, laplace(logits / jnp.maximum(seen.sum(-1, keepdims=True), 1) + bias), 0)


def laplace(x: jax.Array) -> jax.Array:
    """The normal distribution's cumulative function at mean sqrt(1/2) and variance 1/(4 pi)."""
    return 0.5 * (1 + jax.lax.erf((x - math.sqrt(0.5)) * math.sqrt(2 * math.pi)))


def toeplitz(table: jax.Array, size: int) -> jax.Array:
    """table [2M - 1] of lags 1 - M .. M - 1 -> [S, S] with the value of lag i - j at (i, j); S <= M."""
    zero = len(table) // 2
    ring = [table[zero - size + 1 : zero + 1][::-1], table[:1], table[zero + 1 : zero + size][::-1]]
    rows = jnp.broadcast_to(jnp.concatenate(ring)[None], (size, 2 * size))  # reading on shifts each row by one
    return rows.reshape(-1)[: size * (2 * size - 1)].reshape(size, 2 * size - 1)[:, :size]


class Mega(Block):
    """Mega with its MLP. `chunk` None: the whole sequence; `taps` None: the whole kernel; `ema_dim` is h."""

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
        d = dims.d_model
        z = max(d // 2, 1) if z_dim is None else z_dim
        v = 2 * d if v_dim is None else v_dim
        choices = {"attention": (attention, ("softmax", "laplace")), "norm": (norm, ("pre", "post"))}
        for name, (value, valid) in {**choices, "ema": (ema, ("paper", "code"))}.items():
            if value not in valid:
                raise ValueError(f"mega: {name} {value!r} is not one of {', '.join(valid)}")
        for name, size in {"chunk": chunk, "z_dim": z, "v_dim": v, "ema_dim": ema_dim, "taps": taps}.items():
            if size is not None and size < 1:
                raise ValueError(f"mega: {name} {size} is less than 1; leave it out for the default")

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

    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: jax.Array | None = None) -> jax.Array:
        rate, pre = self.dims.hidden_dropout, self.norm == "pre"
        x = self.gated(self.attention_norm(x) if pre else x, x, mask, rng_keys)
        x = x if pre else self.attention_norm(x)
        y = jax.nn.silu(self.expand(self.mlp_norm(x) if pre else x))
        x = x + dropout(self.contract(dropout(y, rate, fold_in_keys(rng_keys, 3))), rate, fold_in_keys(rng_keys, 4))
        return x if pre else self.mlp_norm(x)

    def gated(self, x: jax.Array, residual: jax.Array, mask: jax.Array, rng_keys: jax.Array | None) -> jax.Array:
        """x [B, L, D] of the norm, residual [B, L, D] -> [B, L, D]."""
        rate, dtype = self.dims.hidden_dropout, self.dims.dtype
        smooth = dropout(self.average(x, mask).astype(dtype), rate, fold_in_keys(rng_keys, 0))
        parts = [sum(self.widths[:i]) for i in (1, 2, 3)]
        update, z, gate, hidden = jnp.split(self.gates(smooth), parts, -1)
        update, z, gate = jax.nn.sigmoid(update), jax.nn.silu(z), jax.nn.silu(gate)
        kappa, mu = self.kappa[...].astype(dtype), self.mu[...].astype(dtype)
        q, k = z * kappa[0][None, None] + mu[0][None, None], z * kappa[1][None, None]
        k = k + mu[1][None, None] if len(mu) == 2 else k
        read = self.attend(q, k, jax.nn.silu(self.value(x)), mask, fold_in_keys(rng_keys, 1))
        hidden = dropout(jax.nn.silu(hidden + self.hidden(gate * read)), rate, fold_in_keys(rng_keys, 2))
        return residual + update * (hidden - residual)

    def average(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """X' [B, L, D], at least float32."""
        accum_dtype = jnp.promote_types(x.dtype, jnp.float32)
        x = jnp.where(mask[..., None], x, 0).astype(accum_dtype)
        alpha, delta, beta, eta = (p[...].astype(accum_dtype) for p in (self.alpha, self.delta, self.beta, self.eta))
        taps = min(self.taps, x.shape[1])
        y = damped_ema(x, jax.nn.sigmoid(alpha), jax.nn.sigmoid(delta), beta, self.ema_scale * eta, taps)
        return y if self.omega is None else jax.nn.silu(y + self.omega[...].astype(accum_dtype)[None, None] * x)

    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: jax.Array | None
    ) -> jax.Array:
        """q, k [B, L, Z], v [B, L, V] -> [B, L, V], chunk by chunk."""
        size = min(self.chunk, q.shape[1])
        q, k, chunks, seen = cut(q, size), cut(k, size), cut(v, size), cut(mask, size)
        weights = attention_weights(q, k, toeplitz(self.bias[...], size), seen, self.attention)
        rows = dropout(
            weights.reshape(len(v), -1, size), self.dims.dropout, rng_keys
        )  # by (position, slot of the chunk)
        weights = rows.reshape(weights.shape).astype(v.dtype)
        return join(jnp.einsum("bnij,bnjv->bniv", weights, chunks), v.shape[1])
