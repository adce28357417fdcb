"""Array operations shared by mixers and encoder: masks, attention scores, masked softmax, key-value state, GELU."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def boolean_mask(mask: Array) -> Array:
    """Return a mask of any shape as booleans.

    Args:
      mask: bool, True = real token, or integers 1 and 0

    Raises:
      ValueError: the mask has another dtype, or contains integers other than 0 and 1. Floats are refused because an
        additive mask of 0 and -1e9 would be read as its opposite. The values of a traced mask are not known and
        not checked.
    """
    if mask.dtype == bool:
        return mask
    if not jnp.issubdtype(mask.dtype, jnp.integer):
        raise ValueError(f"a mask must be bool (True = real token) or integers 0 and 1, not {mask.dtype}")
    if not isinstance(mask, jax.core.Tracer) and not np.isin(np.asarray(mask), (0, 1)).all():
        raise ValueError(f"a mask of integers must contain only 0 and 1; this {mask.dtype} mask has other values")
    return mask.astype(bool)


def zero_padding(x: Array, mask: Array) -> Array:
    """Return x [B, L, ...] with zeros at padded positions, so that NaN or infinity there does not spread.

    A weight of zero does not remove such a value from a sum.
    """
    return jnp.where(boolean_mask(mask).reshape(*mask.shape, *[1] * (x.ndim - mask.ndim)), x, 0)


def scores(equation: str, q: Array, k: Array) -> Array:
    """Compute q . k / sqrt(K) by an einsum, where K is the last axis of q; accumulate in at least float32."""
    accum_dtype = jnp.promote_types(q.dtype, jnp.float32)
    return jnp.einsum(equation, q, k, preferred_element_type=accum_dtype) / math.sqrt(q.shape[-1])


def masked_softmax(logits: Array, mask: Array, axis: int = -1) -> Array:
    """Compute softmax over the entries where `mask` is True, in at least float32.

    Args:
      logits: of any shape
      mask:   bool or integers 0 and 1, broadcastable to logits

    Returns:
      Weights of the shape of logits. Where no entry along `axis` is True, weights and gradients are zero.
    """
    mask = boolean_mask(mask)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    weights = jax.nn.softmax(jnp.where(mask, logits, jnp.finfo(logits.dtype).min), axis)
    return jnp.where(mask, weights, 0)


def matmul_precision() -> Any:
    """Return the current `jax.default_matmul_precision`, for the backward function of a `jax.custom_vjp`.

    JAX traces the backward function only when it transposes the program. The caller's context may have ended by
    then, so a custom gradient has to store the precision in the forward pass.
    """
    return jax.config.jax_default_matmul_precision  # type: ignore[attr-defined, unused-ignore]


def kv_state(k: Array, v: Array) -> Array:
    """Compute sum_j k_j v_j^T, the state of linear attention.

    The custom gradient avoids an intermediate array [B, H, K, L], whose transposition costs more than the product
    on a CPU. It uses the matmul precision of the forward pass.

    Args:
      k: [B, H, L, K]
      v: [B, H, L, V]

    Returns:
      [B, H, K, V]
    """
    return _kv_state(matmul_precision(), k, v)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kv_state(precision: Any, k: Array, v: Array) -> Array:
    return jnp.einsum("bhjk,bhjv->bhkv", k, v, precision=precision)


def _kv_state_forward(precision: Any, k: Array, v: Array) -> tuple[Array, tuple[Array, Array]]:
    return _kv_state(precision, k, v), (k, v)


def _kv_state_backward(precision: Any, residuals: tuple[Array, Array], d_state: Array) -> tuple[Array, Array]:
    k, v = residuals
    return (
        jnp.einsum("bhjv,bhkv->bhjk", v, d_state, precision=precision),
        jnp.einsum("bhjk,bhkv->bhjv", k, d_state, precision=precision),
    )


_kv_state.defvjp(_kv_state_forward, _kv_state_backward)


def rms_norm(x: Array, scale: Array | None = None, eps: float = 1e-5) -> Array:
    """Divide by the root mean square of the last axis, in at least float32, in which large sums do not overflow.

    Args:
      x:     [..., N]
      scale: [N], multiplies the result; None: nothing does

    Returns:
      [..., N] in at least float32
    """
    y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    y = y * jax.lax.rsqrt((y * y).mean(-1, keepdims=True) + eps)
    return y if scale is None else y * scale.astype(y.dtype).reshape((1,) * (x.ndim - 1) + scale.shape)


def gelu(x: Array) -> Array:
    """Compute the exact GELU by erf in at least float32, within 1e-6.

    `jax.nn.gelu` uses erfc, which takes twice as long on a CPU; it is more precise only where GELU tends to zero.
    """
    y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (0.5 * y * (1 + jax.lax.erf(y * math.sqrt(0.5)))).astype(x.dtype)
