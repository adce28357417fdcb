"""Nystromformer (Xiong et al., 2021, arXiv:2102.03902).

    y = F A^+ (G v) + conv(v),    F = softmax(q k'^T),  A = softmax(q' k'^T),  G = softmax(q' k^T),    logits / sqrt(K)

q', k' are M landmarks, the means of M segments. A^+ is the pseudo-inverse of `models.newton_schulz` with six steps.
conv is a convolution along the length with one filter per head, without bias, computed by an FFT. Time is
O(L M + L log L), memory O(L M); no L x L array exists.

Segments divide the example's own length n: token t belongs to segment floor(t M / n). If n < M, some landmarks are
empty. No query sees them, and in A they are rows and columns of the identity, so they do not change the result. The
protocol's attention dropout applies to both softmaxes F and G, and not to A.

The options `segments=padded taps=35 drop_weights=false` reproduce the authors' code (mlpen/Nystromformer, LRA). It
divides the padded length, so that means include zeros and queries see segments of padding, has 35 taps and 32 to 256
landmarks, and does not drop weights. Not reproduced: it computes plain softmax if there are as many landmarks as
tokens, and its inverse starts from the largest column sum of the whole batch, which makes examples depend on each
other.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.convolution import long_convolution
from models.core import MAX_SIZE, Dims, QKVAttention, check_range
from models.dropout import attention_dropout, fold_in_keys
from models.newton_schulz import MAX_STEPS, iterative_inverse
from models.ops import boolean_mask, masked_softmax

COMPLEXITY = ("L log L", "L")


def segments_of(mask: Array, count: int, width: int | None = None) -> tuple[Array, Array]:
    """Divide positions into M = count segments.

    Args:
      mask:  [B, L] bool, True = real token
      count: M
      width: positions per segment, padding included; None: segments divide each example's own length

    Returns:
      members: bool [B, L, M], True where a real token belongs to a segment
      size: [B, M], the divisor of a segment's mean, 0 for an empty segment
    """
    mask = boolean_mask(mask)
    positions = jnp.arange(mask.shape[1])[None, :]
    segment = positions // width if width else positions * count // jnp.maximum(mask.sum(1, keepdims=True), 1)
    members = (segment[..., None] == jnp.arange(count)[None, None, :]) & mask[..., None]
    return members, jnp.full((len(mask), count), width) if width else members.sum(1)


def nystrom_factors(
    q: Array, k: Array, mask: Array, count: int, width: int | None = None
) -> tuple[Array, Array, Array]:
    """Compute F [B, H, L, M], A [B, H, M, M] and G [B, H, M, L].

    Args:
      q, k:         [B, H, L, K], at least float32
      mask:         [B, L] bool, True = real token
      count, width: number and width of segments, as in `segments_of`
    """
    mask = boolean_mask(mask)
    members, size = segments_of(mask, count, width)
    exists, mean = size > 0, members / jnp.maximum(size, 1)[:, None, :].astype(q.dtype)
    q = q / math.sqrt(q.shape[-1])
    q_landmarks, k_landmarks = (jnp.einsum("blm,bhlk->bhmk", mean, x) for x in (q, k))
    f = masked_softmax(jnp.einsum("bhlk,bhmk->bhlm", q, k_landmarks), exists[:, None, None, :])
    a = masked_softmax(jnp.einsum("bhmk,bhnk->bhmn", q_landmarks, k_landmarks), exists[:, None, None, :])
    a = jnp.where(exists[:, None, :, None], a, jnp.eye(count, dtype=a.dtype)[None, None])
    g = masked_softmax(jnp.einsum("bhmk,bhlk->bhml", q_landmarks, k), mask[:, None, None, :])
    return f, a, g


def nystrom_product(f: Array, a: Array, g: Array, v: Array, steps: int = 6) -> Array:
    """Compute F A^+ (G v) [B, H, L, V] from the factors of `nystrom_factors` and v [B, H, L, V]."""
    y = jnp.einsum("bhml,bhlv->bhmv", g, v)
    return jnp.einsum("bhlm,bhmv->bhlv", f, jnp.einsum("bhmn,bhnv->bhmv", iterative_inverse(a, steps), y))


def depthwise(x: Array, taps: Array) -> Array:
    """Correlate x [B, L, H, K] along the length with one filter per head, taps [H, S], S odd -> [B, L, H, K].

    The FFT is many times faster on a CPU than a grouped convolution of XLA.
    """
    length, width = x.shape[1], x.shape[3]
    middle = taps.shape[1] // 2
    taps = jnp.repeat(taps, width, 0)  # one filter per channel
    forward, backward = taps[:, middle::-1], taps[:, middle + 1 :]
    y = long_convolution(x.reshape(*x.shape[:2], -1), forward[:, :length], backward[:, : length - 1])
    return y.reshape(x.shape)


class Nystromformer(QKVAttention):
    """Attention through landmarks.

    landmarks:    M, at most dims.max_len
    taps:         size of the filter over v, odd; None: no filter
    steps:        iterations of the inverse
    segments:     own = segments of the example's length; padded = segments of dims.max_len
    drop_weights: apply the protocol's attention dropout
    """

    def __init__(
        self,
        dims: Dims,
        *,
        landmarks: int = 64,
        taps: int | None = 33,
        steps: int = 6,
        segments: Literal["own", "padded"] = "own",
        drop_weights: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
        check_range(1, MAX_SIZE, landmarks=landmarks, taps=taps)
        check_range(1, MAX_STEPS, steps=steps)
        if taps is not None and taps % 2 == 0:
            raise ValueError(f"option taps={taps}: must be odd; none for no filter")
        super().__init__(dims, rngs=rngs)
        self.landmarks, self.steps = min(landmarks, dims.max_len), steps
        self.width = -(-dims.max_len // self.landmarks) if segments == "padded" else None
        self.rate = dims.dropout if drop_weights else 0.0
        if taps is None:
            self.taps = None
        else:
            shape, bound = (dims.num_heads, taps), 1 / math.sqrt(taps)  # the initialisation of convolutions in torch
            self.taps = nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound))

    def attend(self, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None) -> Array:
        dtype, accum_dtype = v.dtype, jnp.promote_types(q.dtype, jnp.float32)
        q, k, v = (jnp.where(mask[:, None, :, None], x.swapaxes(1, 2), 0).astype(accum_dtype) for x in (q, k, v))
        f, a, g = nystrom_factors(q, k, mask, self.landmarks, self.width)
        f, g = (attention_dropout(x, self.rate, fold_in_keys(rng_keys, site)) for site, x in enumerate((f, g)))
        y = nystrom_product(f, a, g, v, self.steps).swapaxes(1, 2)
        if self.taps is not None:
            y = y + depthwise(v.swapaxes(1, 2), self.taps[...])
        return y.astype(dtype)
