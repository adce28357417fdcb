"""cosFormer (Qin et al., 2022, arXiv:2202.08791).

    y_i = sum_j w_ij v_j / max(sum_j w_ij, eps),    w_ij = relu(q_i) . relu(k_j) cos(pi/2 (i - j) / M)

With a_i = pi/2 i/M, cos(a_i - a_j) = cos a_i cos a_j + sin a_i sin a_j: the sums over j are two states of size
K x V, so time and memory are linear in L. All angles lie in (0, pi/2]: every term of
the denominator is non-negative and nothing cancels. There is no 1/sqrt(K). No L x L matrix exists whose
entries could be dropped: the protocol's attention dropout does not apply.

Deviations from the authors' code (OpenNLPLab/cosFormer): padded keys are masked; M is given, where the
authors take the padded length of the batch, so that their result moves with the padding.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from models.core import Dims, QKVAttention, state_of

COMPLEXITY = ("L", "L")
CHUNK = 128  # of the causal form: weights are CHUNK x CHUNK, states are kept once per chunk


def cosformer_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    mask: jax.Array | None = None,
    max_len: int | None = None,
    causal: bool = False,
    eps: float = 1e-6,
) -> jax.Array:
    """Attention with cosine re-weighting, in linear time and memory; sums in float32 whatever the dtype.

    Args:
      q:       [B, Lq, H, K]
      k:       [B, Lk, H, K]
      v:       [B, Lk, H, V], V arbitrary
      mask:    [B, Lk] bool, True = real key; None: all are
      max_len: M, at least Lq and Lk; None: max(Lq, Lk), which moves with padding
      causal:  query i sees the keys j <= i only (Lq = Lk)
      eps:     the denominator is clamped below at eps

    Returns:
      [B, Lq, H, V], dtype of v. Zero where a query meets no key.

    Raises:
      ValueError: shapes disagree, or max_len is shorter than an input (the cosine would turn negative).
    """
    (b, lq, h, width), lk = q.shape, k.shape[1]
    if k.shape != (b, lk, h, width) or v.shape[:3] != k.shape[:3]:
        raise ValueError(f"q {q.shape}, k {k.shape}, v {v.shape} are not [B, Lq, H, K], [B, Lk, H, K], [B, Lk, H, V]")
    if mask is not None and mask.shape != (b, lk):
        raise ValueError(f"mask {mask.shape} is not [B, Lk] = {(b, lk)}")
    if causal and lq != lk:
        raise ValueError(f"the causal form needs as many queries as keys, not {lq} and {lk}")
    max_len = max(lq, lk) if max_len is None else max_len
    if max_len < max(lq, lk):
        raise ValueError(f"max_len {max_len} is shorter than an input ({lq} queries, {lk} keys)")

    dtype, wide = v.dtype, jnp.promote_types(q.dtype, jnp.float32)
    q, k, v = (x.astype(wide).swapaxes(1, 2) for x in (q, k, v))  # [B, H, L, K]: on a CPU up to a third faster
    q, k = jax.nn.relu(q), jax.nn.relu(k)
    if mask is not None:
        k = jnp.where(mask[:, None, :, None], k, 0)
    form = _causal if causal else _bidirectional
    return form(q, k, v, math.pi / 2 / max_len, eps).swapaxes(1, 2).astype(dtype)


def _bidirectional(q: jax.Array, k: jax.Array, v: jax.Array, unit: float, eps: float) -> jax.Array:
    """q, k non-negative, k zero where padded, all [B, H, L, K]; angles are unit * (1..L).

    Values are turned in the place of keys, and results in that of queries: nothing of width 2K is written.
    """
    y, total = jnp.zeros_like(q, shape=(*q.shape[:3], v.shape[-1])), jnp.zeros_like(q[..., :1])
    for of_query, of_key in zip(_turns(q, unit), _turns(k, unit), strict=True):
        y += jnp.einsum("bhik,bhkv->bhiv", q, state_of(k, v * of_key)) * of_query
        total += jnp.einsum("bhik,bhk->bhi", q, (k * of_key).sum(2))[..., None] * of_query
    return y / jnp.maximum(total, eps)


def _causal(q: jax.Array, k: jax.Array, v: jax.Array, unit: float, eps: float) -> jax.Array:
    """The same for j <= i: quadratic within a chunk, one state from chunk to chunk."""
    b, h, length, width = q.shape
    size = min(CHUNK, length)
    count = -(-length // size)

    def chunks(x: jax.Array) -> jax.Array:  # [B, H, L, K] -> [N, B, H, C, K]
        x = jnp.pad(x, ((0, 0), (0, 0), (0, count * size - length), (0, 0)))
        return jnp.moveaxis(x.reshape(b, h, count, size, -1), 2, 0)

    v = jnp.concatenate([v, jnp.ones_like(v[..., :1])], -1)  # the denominator is the sum of one value more
    past = jnp.tril(jnp.ones((1, 1, size, size), bool))

    @jax.checkpoint  # the backward pass keeps the state of every chunk, not its weights
    def step(state: jax.Array, chunk: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        q, k, v = chunk
        near = jnp.where(past, jnp.einsum("bhik,bhjk->bhij", q, k), 0)
        y = jnp.einsum("bhij,bhjv->bhiv", near, v) + jnp.einsum("bhik,bhkv->bhiv", q, state)
        return state + state_of(k, v), y

    state = jnp.zeros((b, h, 2 * width, v.shape[-1]), v.dtype)
    _, y = jax.lax.scan(step, state, (chunks(_turn(q, unit)), chunks(_turn(k, unit)), chunks(v)))
    y = jnp.moveaxis(y, 0, 2).reshape(b, h, count * size, -1)[:, :, :length]
    return y[..., :-1] / jnp.maximum(y[..., -1:], eps)


def _turn(x: jax.Array, unit: float) -> jax.Array:
    """[B, H, L, K] -> [B, H, L, 2K]: x_i cos(unit i), x_i sin(unit i), i from 1."""
    return jnp.concatenate([x * turn for turn in _turns(x, unit)], -1)


def _turns(x: jax.Array, unit: float) -> list[np.ndarray]:
    """cos(unit i) and sin(unit i), [1, 1, L, 1]: constants, for XLA would compute them for each element of x."""
    angle = unit * np.arange(1, x.shape[2] + 1)[None, None, :, None]
    return [np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)]


class CosFormer(QKVAttention):
    """Bidirectional cosFormer. M is `dims.max_len`, the encoder's length: the same for every example and bucket.

    `eps` is the least denominator.
    """

    def __init__(self, dims: Dims, *, eps: float = 1e-6, rngs: nnx.Rngs) -> None:
        super().__init__(dims, rngs=rngs)
        self.eps = eps

    def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, keys: jax.Array | None) -> jax.Array:
        return cosformer_attention(q, k, v, mask=mask, max_len=self.dims.max_len, eps=self.eps)
