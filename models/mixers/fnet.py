"""FNet (Lee-Thorp et al., 2021, arXiv:2105.03824).

    y = Re(F_n F_D x),    y_kd = sum_te x_te cos(2 pi (k t / n + d e / D)),    k, t < n,  d, e < D

A Fourier transform over the width and one over the length; no parameters and no heads. n is the example's own
length, while shapes stay static: by Bluestein's chirp-z, with k t = (k^2 + t^2 - (k - t)^2) / 2,

    F_n z = w (conj(w) * (w z)),    w_t = exp(-i pi t^2 / n),    * a convolution of fixed length.

t^2 is reduced modulo 2 n in integers, so the error in float32 stays near 5e-7 of the largest value at 4,000.
Time is L log L, memory L. The map is symmetric: its gradient is the map itself.

Deviations from the authors' code (google-research, f_net): the sums are divided by sqrt(n D), for the block
here is pre-norm and an unnormalised transform, a factor of some hundreds, would drown the residual (there, post-norm
undoes it: `norm="backward"`); padding is masked and takes no part (there the mask is ignored and the padded length
transformed: `length="padded"` does so with zeros for padding, by one plain FFT, several times faster).
"""

from __future__ import annotations

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from models.convolution import fast_length
from models.core import Dims

COMPLEXITY = ("L log L", "L")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def fourier(x: jax.Array, lengths: jax.Array | None, norm: str = "ortho") -> jax.Array:
    """Re of the transform over both axes of each example's first n places.

    Args:
      x:       [B, L, D], float32 or wider; L at most 2^20, fixes the length of the convolution
      lengths: [B] int, n of each example, at most L; None: L for all, by one plain FFT
      norm:    as numpy names it, ortho = divided by sqrt(n D); backward = unnormalised

    Returns:
      [B, L, D]; zeros from n on.
    """
    b, length, width = x.shape
    place = jnp.arange(length)[None, :]
    n = jnp.full((b, 1), length) if lengths is None else jnp.maximum(lengths, 1)[:, None]
    real = (jnp.ones((b, length), bool) if lengths is None else place < lengths[:, None])[:, None, :]
    # A real x has a spectrum over D that is conjugate-symmetric: half of the columns are transformed over L.
    z = jnp.where(real, jnp.fft.rfft(x).swapaxes(1, 2), 0)  # [B, D // 2 + 1, L]
    y = jnp.fft.fft(z).real if lengths is None else _chirp(z, n)
    back = jnp.where(place < n, (n - place) % n, place)  # -k modulo n: there stand the other columns
    other = jax.vmap(lambda y, back: y[back])(y[:, 1 : (width + 1) // 2].swapaxes(1, 2), back)
    y = jnp.concatenate([y.swapaxes(1, 2), other[..., ::-1]], -1)
    if norm == "ortho":
        y = y / jnp.sqrt((n * width).astype(y.dtype))[..., None]
    return jnp.where(real.swapaxes(1, 2), y, 0)


def _chirp(z: jax.Array, n: jax.Array) -> jax.Array:
    """Re of the DFT of length n of z [B, E, L], zero from n on; n [B, 1]."""
    length = z.shape[-1]
    size = fast_length(2 * length - 1)
    lag = jnp.arange(size)
    lag = jnp.minimum(lag, size - lag)[None, :]  # the convolution is circular: lags below 0 stand at the end
    angle = phase(lag, n).astype(z.real.dtype) * (math.pi / n.astype(z.real.dtype))
    w = jax.lax.complex(jnp.cos(angle), -jnp.sin(angle))  # [B, size]
    near = w[:, None, :length]
    spectrum = jnp.fft.fft(z * near, size) * jnp.fft.fft(w.conj())[:, None, :]
    return (jnp.fft.ifft(spectrum)[..., :length] * near).real


def phase(t: jax.Array, n: jax.Array) -> jax.Array:
    """t^2 modulo 2 n, in [-n, n), without overflow: t and n int below 2^20, of shapes that broadcast.

    t^2 alone passes int32 from 46,341 on, so t is cut into two digits of base 256.
    """
    t, period = t.astype(jnp.uint32), 2 * n.astype(jnp.uint32)
    high, low = t >> 8, t & jnp.uint32(255)
    square = ((t * high % period) * jnp.uint32(256) + t * low) % period
    square = square.astype(jnp.int32)
    return jnp.where(square < n, square, square - 2 * n.astype(jnp.int32))


def _forward(x: jax.Array, lengths: jax.Array | None, norm: str) -> tuple[jax.Array, jax.Array | None]:
    return fourier(x, lengths, norm), lengths


def _backward(norm: str, lengths: jax.Array | None, dy: jax.Array) -> tuple[jax.Array, None]:
    return fourier(dy, lengths, norm), None  # cos is symmetric in (k, d) and (t, e)


fourier.defvjp(_forward, _backward)


class FNet(nnx.Module):
    """Fourier transforms in the place of attention.

    norm:   ortho; backward = unnormalised
    length: own = of the example; padded = dims.max_len, with zeros for padding
    """

    def __init__(
        self,
        dims: Dims,
        *,
        norm: Literal["ortho", "backward"] = "ortho",
        length: Literal["own", "padded"] = "own",
        rngs: nnx.Rngs,
    ) -> None:
        if norm not in ("ortho", "backward"):
            raise ValueError(f"fnet: norm {norm!r} is neither ortho nor backward")
        if length not in ("own", "padded"):
            raise ValueError(f"fnet: length {length!r} is neither own nor padded")
        self.dims, self.norm, self.length = dims, norm, length

    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: jax.Array | None = None) -> jax.Array:
        accum_dtype = jnp.promote_types(x.dtype, jnp.float32)
        if self.length == "own":
            return fourier(x.astype(accum_dtype), mask.sum(1), self.norm).astype(x.dtype)
        y = jnp.where(mask[..., None], x, 0).astype(accum_dtype)
        y = jnp.pad(y, ((0, 0), (0, self.dims.max_len - x.shape[1]), (0, 0)))
        return fourier(y, None, self.norm)[:, : x.shape[1]].astype(x.dtype)
