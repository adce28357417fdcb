"""The pseudo-inverse as Nystromformer and Skyformer take it: a few matrix products, no decomposition.

    Z <- Z/4 (13 I - AZ (15 I - AZ (7 I - AZ))),    Z = A^T / (|A|_1 |A|_inf) at first

A Newton-Schulz iteration of third order (Razavi et al., 2014), from a start that converges for every A.
A small singular value s gains a factor of 13/4 a step, from s^2 / (|A|_1 |A|_inf) up to 1: six steps reach
those above 3 % of the norm, and leave out what lies far below. So they are a regulariser too, and many
steps in float32 are not better: rounding in the null space grows alike.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def iterative_inverse(a: jax.Array, steps: int = 6, scale: jax.Array | None = None) -> jax.Array:
    """Approximate pseudo-inverse of every matrix, each from a start of its own.

    Args:
      a:     [..., M, M], float32 or float64
      steps: of the iteration
      scale: [...], the start is A^T / scale; at least the square of the largest singular value.
             None: the largest column sum times the largest row sum, which always is

    Returns:
      [..., M, M]; differentiable, through the iteration.
    """
    if scale is None:
        size = jnp.abs(a)
        scale = size.sum(-2).max(-1) * size.sum(-1).max(-1)
    z = a.mT / scale[..., None, None]
    eye = jnp.eye(a.shape[-1], dtype=a.dtype).reshape((1,) * (a.ndim - 2) + a.shape[-2:])
    for _ in range(steps):
        az = _product(a, z)
        z = _product(z, 13 * eye - _product(az, 15 * eye - _product(az, 7 * eye - az))) / 4
    return z


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """In full precision on accelerators too, whose short products would not converge."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
