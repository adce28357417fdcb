"""FNet (Lee-Thorp et al., 2021, arXiv:2105.03824).

    y = Re(F_n F_D x),    y_kd = sum_te x_te cos(2 pi (k t / n + d e / D)),    k, t < n,  d, e < D

A Fourier transform over the width and one over the length, without parameters and heads. n is the example's own length
although array shapes are static. The chirp-z transform of Bluestein makes this possible: with
k t = (k^2 + t^2 - (k - t)^2) / 2,

    F_n z = w (conj(w) * (w z)),    w_t = exp(-i pi t^2 / n),    * a convolution of fixed length.

t^2 is reduced modulo 2 n in integers, so that the float32 error at length 4,000 is about 5e-7 of the largest value.
Time is O(L log L), memory O(L). The map is symmetric, so its gradient is the map itself.

Deviations from the authors' code (google-research, f_net):
- The sums are divided by sqrt(n D). The blocks here are pre-norm, and the unnormalised transform, larger by a factor of
  some hundreds, would dominate the residual stream; the authors' blocks are post-norm. `norm="backward"` omits the
  division.
- Padding is masked. The authors' code ignores the mask and transforms the padded length. `length="padded"` transforms
  the length max_len with zeros at padding, by one plain FFT, which is several times faster.
"""

from __future__ import annotations

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.convolution import fast_fft_length
from models.core import Dims

COMPLEXITY = ("L log L", "L")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def fourier(x: Array, lengths: Array | None, norm: str = "ortho") -> Array:
    """Compute the real part of the Fourier transform over both axes of each example's first n positions.

    Args:
      x:       [B, L, D], at least float32; L is at most 2^20
      lengths: [B] int, n of each example, at most L; None: L for all, by one plain FFT
      norm:    as in numpy: ortho = divided by sqrt(n D); backward = unnormalised

    Returns:
      [B, L, D]; zeros from position n
    """
    b, length, width = x.shape
    positions = jnp.arange(length)[None, :]
    n = jnp.full((b, 1), length) if lengths is None else jnp.maximum(lengths, 1)[:, None]
    mask = (jnp.ones((b, length), bool) if lengths is None else positions < lengths[:, None])[:, None, :]
    # The spectrum of a real x over D is conjugate-symmetric, so only half of its columns are transformed over L.
    z = jnp.where(mask, jnp.fft.rfft(x).swapaxes(1, 2), 0)  # [B, D // 2 + 1, L]
    y = jnp.fft.fft(z).real if lengths is None else _chirp_z(z, n)
    negated = jnp.where(positions < n, (n - positions) % n, positions)  # -k modulo n, the rows of the other columns
    other = jax.vmap(lambda y, rows: y[rows])(y[:, 1 : (width + 1) // 2].swapaxes(1, 2), negated)
    y = jnp.concatenate([y.swapaxes(1, 2), other[..., ::-1]], -1)
    if norm == "ortho":
        y = y / jnp.sqrt((n * width).astype(y.dtype))[..., None]
    return jnp.where(mask.swapaxes(1, 2), y, 0)


def _chirp_z(z: Array, n: Array) -> Array:
    """Compute the real part of the DFT of length n [B, 1] of z [B, E, L], which is zero from position n."""
    length = z.shape[-1]
    size = fast_fft_length(2 * length - 1)
    lag = jnp.arange(size)
    lag = jnp.minimum(lag, size - lag)[None, :]  # the convolution is circular: negative lags are at the end
    angle = phase(lag, n).astype(z.real.dtype) * (math.pi / n.astype(z.real.dtype))
    w = jax.lax.complex(jnp.cos(angle), -jnp.sin(angle))  # [B, size]
    chirp = w[:, None, :length]
    spectrum = jnp.fft.fft(z * chirp, size) * jnp.fft.fft(w.conj())[:, None, :]
    return (jnp.fft.ifft(spectrum)[..., :length] * chirp).real


def phase(t: Array, n: Array) -> Array:
    """Compute t^2 modulo 2 n in [-n, n) without overflow, for int arrays t and n below 2^20 of broadcastable shapes.

    t^2 overflows int32 from t = 46,341, so t is split into two digits of base 256.
    """
    t, period = t.astype(jnp.uint32), 2 * n.astype(jnp.uint32)
    high, low = t >> 8, t & jnp.uint32(255)
    square = ((t * high % period) * jnp.uint32(256) + t * low) % period
    square = square.astype(jnp.int32)
    return jnp.where(square < n, square, square - 2 * n.astype(jnp.int32))


def _forward(x: Array, lengths: Array | None, norm: str) -> tuple[Array, Array | None]:
    return fourier(x, lengths, norm), lengths


def _backward(norm: str, lengths: Array | None, dy: Array) -> tuple[Array, None]:
    return fourier(dy, lengths, norm), None  # the cosine is symmetric in (k, d) and (t, e)


fourier.defvjp(_forward, _backward)


class FNet(nnx.Module):
    """Fourier transforms over width and length.

    norm:   ortho = divided by sqrt(n D); backward = unnormalised
    length: own = the example's length; padded = dims.max_len, with zeros at padding
    """

    def __init__(
        self,
        dims: Dims,
        *,
        norm: Literal["ortho", "backward"] = "ortho",
        length: Literal["own", "padded"] = "own",
        rngs: nnx.Rngs,
    ) -> None:
        self.dims, self.norm, self.length = dims, norm, length

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        accum_dtype = jnp.promote_types(x.dtype, jnp.float32)
        if self.length == "own":
            return fourier(x.astype(accum_dtype), mask.sum(1), self.norm).astype(x.dtype)
        y = jnp.where(mask[..., None], x, 0).astype(accum_dtype)
        y = jnp.pad(y, ((0, 0), (0, self.dims.max_len - x.shape[1]), (0, 0)))
        return fourier(y, None, self.norm)[:, : x.shape[1]].astype(x.dtype)
