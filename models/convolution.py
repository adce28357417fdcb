"""What mixers share whose kernel is as long as the sequence: sums of exponentials, and convolution by FFT.

Dimensions beside those of `models.core`: N exponentials, G kernels of one channel, T taps.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def exponential_kernel(weights: jax.Array, rates: jax.Array, length: int) -> jax.Array:
    """k_l = Re sum_n weights_n exp(l rates_n) for l = 0 .. length - 1.

    With l = S i + j and S about sqrt(L), exp(l r) = exp(S i r) exp(j r): one real matrix product instead of
    the table [D, N, L]; memory is D N sqrt(L) + D G L. S is a power of two, so that k_l hardly ever depends on L;
    whole turns of a step's phase leave before l multiplies what they cost in digits.

    Args:
      weights: [D, G, N], real or complex
      rates:   [D, N], real or complex, with real part <= 0
      length:  L, at least 1

    Returns:
      [D, G, L], real.
    """
    d, g, _ = weights.shape
    if jnp.iscomplexobj(rates):
        turns = 2 * math.pi * jnp.round(jax.lax.stop_gradient(rates.imag) / (2 * math.pi))
        rates = jax.lax.complex(rates.real, rates.imag - turns)
    size = 1 << ((length - 1).bit_length() + 1) // 2
    steps = jnp.arange(size, dtype=rates.real.dtype)[None, None, :]
    fine = jnp.exp(rates[..., None] * steps)  # [D, N, S]
    coarse = jnp.exp(rates[..., None] * (size * steps[..., : -(-length // size)]))
    coarse = weights[..., None] * coarse[:, None]  # [D, G, N, L / S]
    if jnp.iscomplexobj(coarse):
        coarse = jnp.concatenate([coarse.real, -coarse.imag], 2)
        fine = jnp.concatenate([fine.real, fine.imag], 1)
    kernel = jnp.einsum("dgni,dnj->dgij", coarse, fine, precision=jax.lax.Precision.HIGHEST)
    return kernel.reshape(d, g, -1)[..., :length]


def long_convolution(x: jax.Array, forward: jax.Array, backward: jax.Array | None = None) -> jax.Array:
    """y_i = sum_{j <= i} forward_{i-j} x_j + sum_{j > i} backward_{j-i-1} x_j, channel by channel.

    Whoever pads x masks it: what lies beyond the real tokens is summed as it is. The transform's length
    follows that of x, which changes the result by its rounding only. Both directions cost one transform.

    Args:
      x:        [B, L, D]
      forward:  [D, T], T <= L; lags 0, 1, ...
      backward: [D, T'], T' < L; lags -1, -2, ...; None: the convolution is causal

    Returns:
      [B, L, D], at least float32.
    """
    accum_dtype = jnp.promote_types(x.dtype, jnp.float32)
    length, taps = x.shape[1], forward.shape[1]
    backward = forward[:, :0] if backward is None else backward
    size = fast_length(length - 1 + max(taps, backward.shape[1]))  # no lag meets another one round the circle
    gap = jnp.zeros((len(forward), size - taps - backward.shape[1]), accum_dtype)
    kernel = jnp.concatenate([forward.astype(accum_dtype), gap, backward[:, ::-1].astype(accum_dtype)], 1)
    spectrum = jnp.fft.rfft(x.astype(accum_dtype).swapaxes(1, 2), size) * jnp.fft.rfft(kernel, size)[None]
    return jnp.fft.irfft(spectrum, size)[..., :length].swapaxes(1, 2)


def fast_length(length: int) -> int:
    """The least even number >= length without a prime factor above 5: FFTs of such lengths are fast."""
    size = length + length % 2
    while _rest(size) > 1:
        size += 2
    return size


def _rest(size: int) -> int:
    for prime in (2, 3, 5):
        while size % prime == 0:
            size //= prime
    return size
