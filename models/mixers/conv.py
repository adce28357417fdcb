"""A depthwise convolution of bounded length: a baseline that sees only near positions.

    y = W_o gelu(sum_t c_t (W_i x)_{i+t}),    -kernel // 2 <= t <= kernel // 2

Each of the N layers sees kernel // 2 positions to each side, so an output depends on N (kernel - 1) + 1 positions
around it, and only the encoder's pooling combines distant ones. What such a model reaches on a task does not need long
range (Miralles-González et al., 2025, arXiv:2501.14850, who compare kernels of 5 and 61 with Mega and find that most of
its score on the text tasks remains).

The hidden width is chosen so that the layer has the 4 D^2 parameters of softmax attention.

Padding: the input of the convolution is zero there, as beyond both ends.
"""

from __future__ import annotations

import math

import jax
from flax import nnx
from jax import Array

from models.convolution import long_convolution, short_convolution
from models.core import MAX_SIZE, Dims, check_range, projection
from models.ops import gelu, zero_padding

COMPLEXITY = ("L log L", "L")
SHORT = 16  # longest kernel whose taps are summed one by one; longer ones are convolved by FFT


class Conv(nnx.Module):
    """Projection, depthwise convolution, GELU, projection.

    kernel: positions that one layer sees, odd
    """

    def __init__(self, dims: Dims, *, kernel: int = 61, rngs: nnx.Rngs) -> None:
        check_range(1, MAX_SIZE, kernel=kernel)
        if kernel % 2 == 0:
            raise ValueError(f"option kernel={kernel}: must be odd, because it is centred")
        width = max(1, round(4 * dims.d_model * dims.qkv_dim / (2 * dims.d_model + kernel)))
        self.dims = dims
        self.input = projection(dims, dims.d_model, width, bias=dims.bias, rngs=rngs)
        self.output = projection(dims, width, dims.d_model, bias=dims.bias, rngs=rngs)
        limit = 1 / math.sqrt(kernel)
        self.taps = nnx.Param(jax.random.uniform(rngs.params(), (kernel, width), minval=-limit, maxval=limit))

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        hidden = zero_padding(self.input(zero_padding(x, mask)), mask)  # twice, because of the bias
        return self.output(gelu(centred_convolution(hidden, self.taps[...].astype(hidden.dtype))))


def centred_convolution(x: Array, taps: Array) -> Array:
    """Compute y_i = sum_t taps_t x_{i + t - T // 2} for each channel.

    Args:
      x:    [B, L, N], zero at padding
      taps: [T, N], T odd

    Returns:
      [B, L, N], dtype of x
    """
    if len(taps) <= SHORT:
        return short_convolution(x, taps)
    middle, length = len(taps) // 2, x.shape[1]
    forward, backward = taps[middle::-1].T, taps[middle + 1 :].T
    return long_convolution(x, forward[:, :length], backward[:, : length - 1]).astype(x.dtype)
