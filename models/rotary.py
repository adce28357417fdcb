"""Rotary position embedding (Su et al., 2021, arXiv:2104.09864)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

BASE = 10_000.0


def frequencies(width: int, base: float = BASE) -> np.ndarray:
    """Return the angle of each pair of channels per position, base^(-2 i / width) for i = 0 .. width // 2 - 1."""
    return base ** (-np.arange(0, width - 1, 2) / width)


def rotate(x: Array, angles: np.ndarray) -> Array:
    """Rotate pairs of channels by an angle that is proportional to the position, so that products see distances.

    The channel i is paired with the channel i + P. A last channel without a partner stays as it is.

    Args:
      x:      [B, L, H, K]; positions count from 0
      angles: [P] with P = K // 2, of one position (`frequencies`)

    Returns:
      [B, L, H, K], dtype of x; computed in at least float32
    """
    pairs, accum_dtype = len(angles), jnp.promote_types(x.dtype, jnp.float32)
    angle = np.arange(x.shape[1])[:, None] * angles  # [L, P]
    cos, sin = (jnp.asarray(f(angle), accum_dtype)[None, :, None] for f in (np.cos, np.sin))
    first, second, rest = jnp.split(x.astype(accum_dtype), [pairs, 2 * pairs], -1)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos, rest], -1).astype(x.dtype)
