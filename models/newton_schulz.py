"""Pseudo-inverse by a third-order Newton-Schulz iteration (Razavi et al., 2014), for Nystromformer and Skyformer.

    Z <- Z/4 (13 I - AZ (15 I - AZ (7 I - AZ))),    initially Z = A^T / (|A|_1 |A|_inf)

The iteration needs only matrix products and converges for every A. For each singular value s, the eigenvalue of A Z
starts at s^2 / (|A|_1 |A|_inf) and grows by a factor of 13/4 per step until it approaches 1. Six steps invert singular
values above 3 % of the norm and suppress much smaller ones, which regularises the result. More steps do not improve
it in float32, because rounding errors in the null space grow by the same factor.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

MAX_STEPS = 20  # more than ever help


def iterative_inverse(a: Array, steps: int = 6, scale: Array | None = None) -> Array:
    """Compute the approximate pseudo-inverse of each matrix, differentiable through the iteration.

    Args:
      a:     [..., M, M], float32 or float64
      steps: number of iterations
      scale: [...], divisor of the initial value A^T / scale, at least the square of the largest singular value.
        None: the largest column sum times the largest row sum of |A|, which always is

    Returns:
      [..., M, M]
    """
    if scale is None:
        magnitudes = jnp.abs(a)
        scale = magnitudes.sum(-2).max(-1) * magnitudes.sum(-1).max(-1)
    z = a.mT / scale[..., None, None]
    eye = jnp.eye(a.shape[-1], dtype=a.dtype).reshape((1,) * (a.ndim - 2) + a.shape[-2:])
    for _ in range(steps):
        az = _matmul(a, z)
        z = _matmul(z, 13 * eye - _matmul(az, 15 * eye - _matmul(az, 7 * eye - az))) / 4
    return z


def _matmul(a: Array, b: Array) -> Array:
    """Multiply in full precision on accelerators too; the iteration does not converge in reduced precision."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
