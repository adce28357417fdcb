"""Convolutions with kernels as long as the sequence: sums of exponentials, and convolution by FFT.

Array dimensions in addition to those of `models.core`: N exponentials, G kernels per channel, T taps.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array
from scipy.fft import next_fast_len


def exponential_kernel(weights: Array, rates: Array, length: int) -> Array:
    """Compute k_l = Re sum_n weights_n exp(l rates_n) for l = 0 .. length - 1.

    With l = S i + j, exp(l r) = exp(S i r) exp(j r). S is about sqrt(L), so one real matrix product replaces a table
    [D, N, L], and memory is D N sqrt(L) + D G L. S is a power of two, so that k_l rarely depends on L. Multiples of
    2 pi are subtracted from the phase of a step before l multiplies it, which would amplify their rounding error.

    Args:
      weights: [D, G, N], real or complex
      rates:   [D, N], real or complex, with real part <= 0
      length:  L, at least 1

    Returns:
      [D, G, L], real
    """
    d, g, _ = weights.shape
    if jnp.iscomplexobj(rates):
        full_turns = 2 * math.pi * jnp.round(jax.lax.stop_gradient(rates.imag) / (2 * math.pi))
        rates = jax.lax.complex(rates.real, rates.imag - full_turns)
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


def long_convolution(x: Array, forward: Array, backward: Array | None = None) -> Array:
    """Compute y_i = sum_{j <= i} forward_{i-j} x_j + sum_{j > i} backward_{j-i-1} x_j for each channel.

    The caller sets x to zero at padding. Both directions share one FFT. Its length depends on L, which changes the
    result only by rounding.

    Args:
      x:        [B, L, D]
      forward:  [D, T], T <= L, for lags 0, 1, ...
      backward: [D, T'], T' < L, for lags -1, -2, ...; None: the convolution is causal

    Returns:
      [B, L, D], at least float32
    """
    accum_dtype = jnp.promote_types(x.dtype, jnp.float32)
    length, taps = x.shape[1], forward.shape[1]
    backward = forward[:, :0] if backward is None else backward
    size = fast_fft_length(length - 1 + max(taps, backward.shape[1]))  # long enough that no lag wraps around
    gap = jnp.zeros((len(forward), size - taps - backward.shape[1]), accum_dtype)
    kernel = jnp.concatenate([forward.astype(accum_dtype), gap, backward[:, ::-1].astype(accum_dtype)], 1)
    spectrum = jnp.fft.rfft(x.astype(accum_dtype).swapaxes(1, 2), size) * jnp.fft.rfft(kernel, size)[None]
    return jnp.fft.irfft(spectrum, size)[..., :length].swapaxes(1, 2)


def fast_fft_length(length: int) -> int:
    """Return the smallest even number >= length without a prime factor above 5, for which FFTs are fast."""
    return 2 * next_fast_len(-(-length // 2), real=True)


def short_convolution(x: Array, taps: Array) -> Array:
    """Convolve each channel with a few taps of its own, centred.

    Args:
      x:    [B, L, N]; zero at padding, so that padding is as if the sequence ended
      taps: [T, N], T odd; y_i = sum_t taps_t x_{i + t - T // 2}

    Returns:
      [B, L, N]
    """
    count, length = len(taps), x.shape[1]
    padded = jnp.pad(x, ((0, 0), (count // 2, count // 2), (0, 0)))
    return sum((padded[:, t : t + length] * taps[t][None, None] for t in range(count)), jnp.zeros_like(x))
