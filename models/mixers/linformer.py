"""Linformer (Wang et al., 2020, arXiv:2006.04768).

    y_i = sum_r a_ir v'_r,    a_i = softmax_r(q_i . k'_r / sqrt(K)),    k'_r = sum_j E_jr k_j,    v'_r = sum_j F_jr v_j

E and F are learned matrices max_len x rank. The sums run over the real positions j, so an example of length n < max_len
uses the first n rows, and its k' and v' are correspondingly smaller. A rank above max_len is reduced to max_len.

The option `sharing` has the names of the paper: none = E and F for each head, headwise = E and F for each layer,
key-value = E = F for each layer. The paper's layerwise sharing, one E for all layers, is not available because a mixer
is one layer. headwise is the default as in the authors' code (fairseq, examples/linformer), where key-value is a
separate option. rank = 256 is the larger value of the paper. E and F are initialised as N(0, 1 / rank), as in the
paper's theorem. The authors' code uses Xavier-uniform values with gain 1 / sqrt(2), and projects x before W_k and W_v,
which is equivalent without biases.

The reference suite (google-research/long-range-arena) uses rank = 16, sharing = key-value, init = xavier. Its sums
include padding, so that its results change with the amount of padding; this is not reproduced. The suite of
Nystromformer (rank 256, one E per head, masked) shares E among layers, which is not available.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.core import MAX_SIZE, Dims, QKVAttention, check_range
from models.dropout import attention_dropout
from models.ops import boolean_mask, scores

COMPLEXITY = ("L", "L")


def shorten(x: Array, mask: Array, projection: Array) -> Array:
    """Project the length: x [B, L, H, K], mask [B, L], projection [L, M] or [H, L, M] -> [B, M, H, K], dtype of x."""
    mask = boolean_mask(mask)
    accum_dtype = jnp.promote_types(x.dtype, jnp.float32)
    equation = "bjhk,jm->bmhk" if projection.ndim == 2 else "bjhk,hjm->bmhk"
    x, dtype = jnp.where(mask[:, :, None, None], x, 0).astype(accum_dtype), x.dtype
    return jnp.einsum(equation, x, projection.astype(accum_dtype)).astype(dtype)


def linformer_attention(
    q: Array, k: Array, v: Array, mask: Array, e: Array, f: Array, rate: float = 0.0, rng_keys: Array | None = None
) -> Array:
    """Compute softmax attention over M projected keys, with softmax in float32.

    Args:
      q, k:     [B, L, H, K]
      v:        [B, L, H, V]
      mask:     [B, L] bool, True = real token
      e, f:     [L, M] or [H, L, M], projections of keys and of values
      rate:     dropout rate of the weights
      rng_keys: [B], or None for no dropout

    Returns:
      [B, L, H, V], dtype of v; zeros for an example without real tokens
    """
    mask = boolean_mask(mask)
    k, v = shorten(k, mask, e), shorten(v, mask, f)
    weights = attention_dropout(jax.nn.softmax(scores("bihk,bmhk->bhim", q, k)), rate, rng_keys)
    return jnp.einsum("bhim,bmhv->bihv", weights.astype(v.dtype), v)


class Linformer(QKVAttention):
    """Attention over `rank` learned combinations of the positions, with dropout of the weights.

    rank:    number of combinations, at most dims.max_len
    sharing: which projections are shared, see the module
    init:    initialisation of the projections: normal = N(0, 1 / rank), xavier = Xavier-uniform
    """

    def __init__(
        self,
        dims: Dims,
        *,
        rank: int = 256,
        sharing: Literal["none", "headwise", "key-value"] = "headwise",
        init: Literal["normal", "xavier"] = "normal",
        rngs: nnx.Rngs,
    ) -> None:
        check_range(1, MAX_SIZE, rank=rank)
        super().__init__(dims, rngs=rngs)
        rank = min(rank, dims.max_len)
        shape = (dims.max_len, rank) if sharing != "none" else (dims.num_heads, dims.max_len, rank)
        draw = (
            nnx.initializers.normal(rank**-0.5)
            if init == "normal"
            else nnx.initializers.xavier_uniform(batch_axis=tuple(range(len(shape) - 2)))
        )
        self.key_projection = nnx.Param(draw(rngs.params(), shape))
        self.value_projection = None if sharing == "key-value" else nnx.Param(draw(rngs.params(), shape))

    def attend(self, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None) -> Array:
        e = self.key_projection[..., : q.shape[1], :]
        f = e if self.value_projection is None else self.value_projection[..., : q.shape[1], :]
        return linformer_attention(q, k, v, mask, e, f, self.dims.dropout, rng_keys)
