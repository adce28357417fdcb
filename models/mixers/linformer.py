"""Linformer (Wang et al., 2020, arXiv:2006.04768).

    y_i = sum_r a_ir v'_r,    a_i = softmax_r(q_i . k'_r / sqrt(K)),    k'_r = sum_j E_jr k_j,    v'_r = sum_j F_jr v_j

E and F, of max_len rows and `rank` columns, are learned; the sums go over the real positions j, so an example of
n < max_len uses the first n rows and its k', v' are the smaller for it. A rank above max_len is max_len.

Sharing is what the paper calls none (E, F for each head), headwise (for each layer) and key-value (E = F for
each layer). Its layerwise sharing, one E for all layers, is not expressed: a mixer is one layer. Headwise is the
default, as in the authors' code (fairseq, examples/linformer), whose separate option is key-value. rank = 256 is
the larger of the paper's two. Entries of E start as N(0, 1 / rank), the distribution of the paper's theorem;
the authors' code draws them xavier-uniform with gain 1 / sqrt(2), and projects x before W_k and W_v, which
without bias is the same.

The reference suite's row is rank = 16, sharing = key-value, init = xavier; it sums over padding too, so that its
result moves with it, which is not reproduced. The suite of Nystromformer (rank 256, E of each head, masked)
shares E among the layers, which is not expressed.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from models.core import Dims, QKVAttention
from models.dropout import attention_dropout
from models.ops import boolean_mask, scores

COMPLEXITY = ("L", "L")


def shorten(x: jax.Array, mask: jax.Array, projection: jax.Array) -> jax.Array:
    """Projects the length: x [B, L, H, K], mask [B, L], projection [L, M] or [H, L, M] -> [B, M, H, K], dtype of x."""
    mask = boolean_mask(mask)
    accum_dtype = jnp.promote_types(x.dtype, jnp.float32)
    form = "bjhk,jm->bmhk" if projection.ndim == 2 else "bjhk,hjm->bmhk"
    x, dtype = jnp.where(mask[:, :, None, None], x, 0).astype(accum_dtype), x.dtype
    return jnp.einsum(form, x, projection.astype(accum_dtype)).astype(dtype)


def linformer_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    e: jax.Array,
    f: jax.Array,
    rate: float = 0.0,
    rng_keys: jax.Array | None = None,
) -> jax.Array:
    """Softmax attention over M projected keys, softmax in float32.

    Args:
      q, k: [B, L, H, K]
      v:    [B, L, H, V]
      mask: [B, L] bool, True = real token
      e, f: [L, M], or [H, L, M]: of keys and of values
      rate: of dropout of the weights
      rng_keys: [B], or None

    Returns:
      [B, L, H, V], dtype of v. An example without real tokens gives zeros.
    """
    mask = boolean_mask(mask)
    k, v = shorten(k, mask, e), shorten(v, mask, f)
    weights = attention_dropout(jax.nn.softmax(scores("bihk,bmhk->bhim", q, k)), rate, rng_keys)
    return jnp.einsum("bhim,bmhv->bihv", weights.astype(v.dtype), v)


class Linformer(QKVAttention):
    """Attention over `rank` learned mixtures of the positions, with dropout of the weights.

    `sharing` says which projections are one; `init` how they start: normal = N(0, 1 / rank), xavier = uniform.
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
        super().__init__(dims, rngs=rngs)
        if rank < 1:
            raise ValueError(f"Linformer: rank {rank} is not at least 1; the paper takes 128 or 256")
        for name, value, valid in (
            ("sharing", sharing, ("none", "headwise", "key-value")),
            ("init", init, ("normal", "xavier")),
        ):
            if value not in valid:
                raise ValueError(f"Linformer: {name} {value!r} is not one of {', '.join(valid)}")
        rank = min(rank, dims.max_len)
        shape = (dims.max_len, rank) if sharing != "none" else (dims.num_heads, dims.max_len, rank)
        draw = (
            nnx.initializers.normal(rank**-0.5)
            if init == "normal"
            else nnx.initializers.xavier_uniform(batch_axis=tuple(range(len(shape) - 2)))
        )
        self.key_projection = nnx.Param(draw(rngs.params(), shape))
        self.value_projection = None if sharing == "key-value" else nnx.Param(draw(rngs.params(), shape))

    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: jax.Array | None
    ) -> jax.Array:
        e = self.key_projection[..., : q.shape[1], :]
        f = e if self.value_projection is None else self.value_projection[..., : q.shape[1], :]
        return linformer_attention(q, k, v, mask, e, f, self.dims.dropout, rng_keys)
