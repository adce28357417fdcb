"""cosFormer attention (Qin et al., 2022, arXiv:2202.08791).

    y_i = sum_j w_ij v_j / max(sum_j w_ij, eps)
    w_ij = relu(q_i) . relu(k_j) cos(pi/2 (i - j) / M)

This is linear attention with ReLU as its feature map. Each weight is multiplied by a cosine of the distance between
query and key, which favours nearby keys. There is no factor 1/sqrt(K).

Time and memory are linear in L. With the angles a_i = pi/2 i/M,

    cos(a_i - a_j) = cos a_i cos a_j + sin a_i sin a_j

so the sum over j splits into two states, sum_j cos(a_j) relu(k_j) v_j^T and the same with sin(a_j). Each is a matrix
K x V that all queries share. No L x L matrix of attention weights exists, so the protocol's attention dropout does not
apply.

Positions start at 1 and do not exceed M. All angles are therefore in (0, pi/2], all weights are non-negative, and
there is no cancellation in the denominator.

The option `m` selects M. Neither choice depends on padding or on other examples in the batch.

    m="max_len"   M is the encoder's length, `dims.max_len`, for every example. The cosine is nearly constant for much
                  shorter examples: at a quarter of max_len it is between 0.92 and 1.
    m="own"       M is the example's own number of real tokens. In the paper, M is the sequence length.

Deviations from the authors' code (github.com/OpenNLPLab/cosFormer): it has no padding mask; here padded keys have
weight zero. It takes M from the padded length of the batch, so its results change with the amount of padding.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from models.core import MIN_EPS, Dims, QKVAttention, check_range
from models.ops import boolean_mask, kv_state

COMPLEXITY = ("L", "L")
CHUNK = 128  # positions per chunk of the causal form: weights are CHUNK x CHUNK, one state is stored per chunk


def cosformer_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    max_len: int | Array | None = None,
    causal: bool = False,
    eps: float = 1e-6,
    implementation: Literal["xla", "pallas"] = "xla",
) -> Array:
    """Compute attention with cosine re-weighting in linear time and memory; sums are in at least float32.

    No mixer option selects the causal form; it is available as a function.

    Args:
      q:       [B, Lq, H, K]
      k:       [B, Lk, H, K]
      v:       [B, Lk, H, V]
      mask:    [B, Lk], bool or integers 0 and 1, True = real key; None: all keys are real
      max_len: M. An int: the same for all examples, at least Lq and Lk. An integer array [B]: one M per example, at
               least its number of real tokens; positions beyond it have the angle pi/2, and 0 is replaced by 1.
               None: max(Lq, Lk), so the result changes with the amount of padding
      causal:  query i sees only the keys j <= i (needs Lq = Lk)
      eps:     lower bound of the denominator
      implementation: "pallas" = GPU kernels of the bidirectional form (`models/cosformer_kernel.py`), for head widths
               that are powers of two from 16. No GPU has yet shown that they are faster, so no mixer uses them

    Returns:
      [B, Lq, H, V], dtype of v; zeros where a query has no real key

    Raises:
      ValueError: shapes do not match; the mask is neither bool nor integers 0 and 1; max_len is neither an int nor an
        integer array [B], or is an int smaller than Lq or Lk, for which the cosine would be negative; the
        implementation is unknown or cannot compute this.
    """
    mask = None if mask is None else boolean_mask(mask)
    (b, lq, h, width), lk = q.shape, k.shape[1]
    if k.shape != (b, lk, h, width) or v.shape[:3] != k.shape[:3]:
        raise ValueError(f"q {q.shape}, k {k.shape}, v {v.shape} are not [B, Lq, H, K], [B, Lk, H, K], [B, Lk, H, V]")
    if mask is not None and mask.shape != (b, lk):
        raise ValueError(f"mask {mask.shape} is not [B, Lk] = {(b, lk)}")
    if causal and lq != lk:
        raise ValueError(f"the causal form needs as many queries as keys, not {lq} and {lk}")
    max_len = max(lq, lk) if max_len is None else max_len
    if isinstance(max_len, Array | np.ndarray):
        if max_len.shape != (b,) or not jnp.issubdtype(max_len.dtype, jnp.integer):
            raise ValueError(f"max_len {max_len.dtype}{list(max_len.shape)} is not an int or an integer array [{b}]")
    elif max_len < max(lq, lk):
        raise ValueError(f"max_len {max_len} is shorter than an input ({lq} queries, {lk} keys)")

    dtype, accum_dtype = v.dtype, jnp.promote_types(q.dtype, jnp.float32)
    if implementation == "pallas":
        return _by_kernel(q, k, v, mask, max_len, causal, eps)
    if implementation != "xla":
        raise ValueError(f"implementation {implementation!r} is not one of xla, pallas")
    q, k, v = (x.astype(accum_dtype).swapaxes(1, 2) for x in (q, k, v))  # [B, H, L, K], up to a third faster on a CPU
    q, k = jax.nn.relu(q), jax.nn.relu(k)
    if mask is not None:
        k, v = (jnp.where(mask[:, None, :, None], x, 0) for x in (k, v))
    attend = _causal if causal else _bidirectional
    return attend(q, k, v, max_len, eps).swapaxes(1, 2).astype(dtype)


def _bidirectional(q: Array, k: Array, v: Array, max_len: int | Array, eps: float) -> Array:
    """Attend to all keys: q, k [B, H, L, K] non-negative, k zero at padding, v [B, H, Lk, V] -> [B, H, Lq, V].

    Cosines and sines multiply values instead of keys, and results instead of queries, which avoids arrays of width 2K.
    """
    y, total = jnp.zeros_like(q, shape=(*q.shape[:3], v.shape[-1])), jnp.zeros_like(q[..., :1])
    for query_weight, key_weight in zip(_cos_sin_weights(q, max_len), _cos_sin_weights(k, max_len), strict=True):
        y += jnp.einsum("bhik,bhkv->bhiv", q, kv_state(k, v * key_weight)) * query_weight
        total += jnp.einsum("bhik,bhk->bhi", q, (k * key_weight).sum(2))[..., None] * query_weight
    return y / jnp.maximum(total, eps)


def _causal(q: Array, k: Array, v: Array, max_len: int | Array, eps: float) -> Array:
    """Attend to the keys j <= i: quadratic within a chunk, by a state across chunks. Shapes as in `_bidirectional`."""
    b, h, length, width = q.shape
    size = min(CHUNK, length)
    count = -(-length // size)

    def chunks(x: Array) -> Array:  # [B, H, L, K] -> [N, B, H, C, K]
        x = jnp.pad(x, ((0, 0), (0, 0), (0, count * size - length), (0, 0)))
        return jnp.moveaxis(x.reshape(b, h, count, size, -1), 2, 0)

    v = jnp.concatenate([v, jnp.ones_like(v[..., :1])], -1)  # the sum of this column is the denominator
    causal_mask = jnp.tril(jnp.ones((1, 1, size, size), bool))

    @jax.checkpoint  # the backward pass stores the state of every chunk, not its weights
    def step(state: Array, chunk: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        q, k, v = chunk
        weights = jnp.where(causal_mask, jnp.einsum("bhik,bhjk->bhij", q, k), 0)
        y = jnp.einsum("bhij,bhjv->bhiv", weights, v) + jnp.einsum("bhik,bhkv->bhiv", q, state)
        return state + kv_state(k, v), y

    q, k = (jnp.concatenate([x * weight for weight in _cos_sin_weights(x, max_len)], -1) for x in (q, k))
    state = jnp.zeros((b, h, 2 * width, v.shape[-1]), v.dtype)
    _, y = jax.lax.scan(step, state, (chunks(q), chunks(k), chunks(v)))
    y = jnp.moveaxis(y, 0, 2).reshape(b, h, count * size, -1)[:, :, :length]
    return y[..., :-1] / jnp.maximum(y[..., -1:], eps)


def _by_kernel(
    q: Array, k: Array, v: Array, mask: Array | None, max_len: int | Array, causal: bool, eps: float
) -> Array:
    """Attend to all keys by the kernels of `models/cosformer_kernel.py`; shapes as in `cosformer_attention`."""
    if causal:
        raise ValueError("implementation 'pallas' has no causal form; use 'xla'")
    try:
        from models.cosformer_kernel import kernel_attention
    except ImportError as error:
        raise ValueError(
            f"implementation 'pallas' needs Pallas, which is not available ({error}); use 'xla'"
        ) from error

    def weights(x: Array) -> Array:  # [1 or B, 2, L]
        heads_first = jax.ShapeDtypeStruct((1, 1, x.shape[1], 1), jnp.promote_types(q.dtype, jnp.float32))
        return jnp.stack([jnp.asarray(w)[:, 0, :, 0] for w in _cos_sin_weights(heads_first, max_len)], 1)

    key_weights = weights(k) if mask is None else jnp.where(mask[:, None], weights(k), 0)
    return kernel_attention(q, k, v, weights(q), key_weights, eps)


def _cos_sin_weights(x: Array | jax.ShapeDtypeStruct, max_len: int | Array) -> list[Array | np.ndarray]:
    """Return cos(a_i) and sin(a_i) for the positions i = 1 .. L of x [B, H, L, K], each [1 or B, 1, L, 1]."""
    positions = np.arange(1, x.shape[2] + 1)
    if not isinstance(max_len, Array | np.ndarray):  # constants; XLA would compute them for each element of x
        angle = math.pi / 2 / max_len * positions[None, None, :, None]
        return [np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)]
    m = jnp.maximum(max_len, 1)[:, None]
    clipped = jnp.minimum(positions[None], m)
    # cos(a) = sin(pi/2 - a) is exactly 0 at position M, where rounding could make the cosine negative.
    weights = (jnp.sin(math.pi / 2 * part.astype(x.dtype) / m.astype(x.dtype)) for part in (m - clipped, clipped))
    return [weight[:, None, :, None] for weight in weights]


class CosFormer(QKVAttention):
    """Bidirectional cosFormer attention.

    eps: lower bound of the denominator
    m:   choice of M: max_len = `dims.max_len`, own = the example's number of real tokens
    """

    def __init__(
        self, dims: Dims, *, eps: float = 1e-6, m: Literal["max_len", "own"] = "max_len", rngs: nnx.Rngs
    ) -> None:
        check_range(MIN_EPS, 1.0, eps=eps)
        super().__init__(dims, rngs=rngs)
        self.eps, self.m = eps, m

    def attend(self, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None) -> Array:
        max_len = mask.sum(1) if self.m == "own" else self.dims.max_len
        return cosformer_attention(q, k, v, mask=mask, max_len=max_len, eps=self.eps)
