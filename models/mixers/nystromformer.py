"""Nystromformer (Xiong et al., 2021, arXiv:2102.03902).

    y = F A^+ (G v) + conv(v),    F = softmax(q k'^T),  A = softmax(q' k'^T),  G = softmax(q' k^T),    logits / sqrt(K)

q', k' are M landmarks, the means of M segments; A^+ is `models.newton_schulz`, six steps; conv is one filter per
head along the length, without bias, and takes an FFT: time is L M + L log L, memory L M; no L x L array exists.

Segments divide the example's own length n: token t belongs to segment floor(t M / n). Where n < M, some
landmarks are empty: no query sees them, and in A they are rows and columns of the identity, so they change nothing.
The protocol's dropout of attention weights applies to F and G, softmaxes both; A is inverted as it is.

The authors' code (mlpen/Nystromformer, LRA) cuts the padded length, so that means count zeros and queries see
segments of padding, has 35 taps and 32 to 256 landmarks, and drops no weights: `segments="padded"`, `taps=35`,
`drop_weights=False`. Not reproduced: plain softmax where landmarks are as many as tokens, and an inverse that
starts from the largest column sum of the whole batch, which ties examples together.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from models.convolution import long_convolution
from models.core import Dims, QKVAttention
from models.dropout import attention_dropout, fold_in_keys
from models.newton_schulz import iterative_inverse
from models.ops import boolean_mask, masked_softmax

COMPLEXITY = ("L log L", "L")


def segments_of(mask: jax.Array, count: int, width: int | None = None) -> tuple[jax.Array, jax.Array]:
    """M = count segments of mask [B, L]: of each example's own length, or of `width` places whatever they hold.

    Returns:
      belongs [B, L, M], True where a real token is in a segment; size [B, M], what its sum is divided by,
      0 for a segment that does not exist
    """
    mask = boolean_mask(mask)
    place = jnp.arange(mask.shape[1])[None, :]
    own = place // width if width else place * count // jnp.maximum(mask.sum(1, keepdims=True), 1)
    belongs = (own[..., None] == jnp.arange(count)[None, None, :]) & mask[..., None]
    return belongs, jnp.full((len(mask), count), width) if width else belongs.sum(1)


def nystrom_factors(
    q: jax.Array, k: jax.Array, mask: jax.Array, count: int, width: int | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """q, k [B, H, L, K] float32 or wider, mask [B, L] -> F [B, H, L, M], A [B, H, M, M], G [B, H, M, L]."""
    mask = boolean_mask(mask)
    belongs, size = segments_of(mask, count, width)
    exists, mean = size > 0, belongs / jnp.maximum(size, 1)[:, None, :].astype(q.dtype)
    q = q / math.sqrt(q.shape[-1])
    near_q, near_k = (jnp.einsum("blm,bhlk->bhmk", mean, x) for x in (q, k))
    f = masked_softmax(jnp.einsum("bhlk,bhmk->bhlm", q, near_k), exists[:, None, None, :])
    a = masked_softmax(jnp.einsum("bhmk,bhnk->bhmn", near_q, near_k), exists[:, None, None, :])
    a = jnp.where(exists[:, None, :, None], a, jnp.eye(count, dtype=a.dtype)[None, None])
    g = masked_softmax(jnp.einsum("bhmk,bhlk->bhml", near_q, k), mask[:, None, None, :])
    return f, a, g


def nystrom_product(f: jax.Array, a: jax.Array, g: jax.Array, v: jax.Array, steps: int = 6) -> jax.Array:
    """F A^+ (G v): factors as above, v [B, H, L, V] -> [B, H, L, V]."""
    seen = jnp.einsum("bhml,bhlv->bhmv", g, v)
    return jnp.einsum("bhlm,bhmv->bhlv", f, jnp.einsum("bhmn,bhnv->bhmv", iterative_inverse(a, steps), seen))


def depthwise(x: jax.Array, taps: jax.Array) -> jax.Array:
    """Correlation along the length, one filter per head: x [B, L, H, K], taps [H, S], S odd -> [B, L, H, K].

    By FFT: on a CPU many times faster than XLA's convolution with groups.
    """
    length, width = x.shape[1], x.shape[3]
    middle = taps.shape[1] // 2
    taps = jnp.repeat(taps, width, 0)  # the filter of each channel
    behind, ahead = taps[:, middle::-1], taps[:, middle + 1 :]
    y = long_convolution(x.reshape(*x.shape[:2], -1), behind[:, :length], ahead[:, : length - 1])
    return y.reshape(x.shape)


class Nystromformer(QKVAttention):
    """Attention through landmarks.

    landmarks:    M, at most dims.max_len
    taps:         of the filter over v, odd; None: no filter
    steps:        of the iteration for the inverse
    segments:     own = of the example's length; padded = of dims.max_len
    drop_weights: the protocol's dropout of attention weights applies
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
        if landmarks < 1 or steps < 1:
            raise ValueError(f"nystromformer: landmarks {landmarks} and steps {steps} must be at least 1")
        if taps is not None and (taps < 1 or taps % 2 == 0):
            raise ValueError(f"nystromformer: taps {taps} must be odd, to have a middle; None for no filter")
        if segments not in ("own", "padded"):
            raise ValueError(f"nystromformer: segments {segments!r} is neither own nor padded")
        super().__init__(dims, rngs=rngs)
        self.landmarks, self.steps = min(landmarks, dims.max_len), steps
        self.width = -(-dims.max_len // self.landmarks) if segments == "padded" else None
        self.rate = dims.dropout if drop_weights else 0.0
        if taps is None:
            self.taps = None
        else:
            shape, bound = (dims.num_heads, taps), 1 / math.sqrt(taps)  # as torch starts a convolution
            self.taps = nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound))

    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: jax.Array | None
    ) -> jax.Array:
        dtype, accum_dtype = v.dtype, jnp.promote_types(q.dtype, jnp.float32)
        q, k, v = (jnp.where(mask[:, None, :, None], x.swapaxes(1, 2), 0).astype(accum_dtype) for x in (q, k, v))
        f, a, g = nystrom_factors(q, k, mask, self.landmarks, self.width)
        f, g = (attention_dropout(x, self.rate, fold_in_keys(rng_keys, site)) for site, x in enumerate((f, g)))
        y = nystrom_product(f, a, g, v, self.steps).swapaxes(1, 2)
        if self.taps is not None:
            y = y + depthwise(v.swapaxes(1, 2), self.taps[...])
        return y.astype(dtype)
