"""Local attention: softmax within blocks, the baseline of Long Range Arena (Tay et al., 2021, arXiv:2011.04006).

    y_i = sum_j a_ij v_j,    a_i = softmax_j(q_i . k_j / sqrt(K)) over the real keys j with floor(j / w) = floor(i / w)

Blocks of w positions start at 0 and do not overlap: nothing passes from one to another, at any depth, so a
CLS vector sees the first block alone. w = 50 is the suite's; its Image and Pathfinder take 64.

The suite's code does something else. It reshapes [B, L, ...] to [B, w, n, ...], n = floor(L / w) + 1, and attends
over the axis of w: position i sees the positions j = i modulo n, a dilated pattern over the whole input and
not a local one. That is `layout="lra_strided"`, with L = `dims.max_len`, to which the suite pads. Not kept of it:
its padding mask, which it cuts contiguously, so that it lies over other keys than those it belongs to; and
the n w - L positions that it appends to fill the last block, which stay unmasked there, as keys of logit 0.
"""

from __future__ import annotations

from typing import Literal

import jax
from flax import nnx

from models.block_attention import block_attention, cut, join, strided_attention
from models.core import Dims, QKVAttention
from models.ops import boolean_mask

COMPLEXITY = ("L", "L")


def local_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    window: int,
    rate: float = 0.0,
    rng_keys: jax.Array | None = None,
) -> jax.Array:
    """q, k [B, L, H, K], v [B, L, H, V], mask [B, L], rng_keys [B] or None -> [B, L, H, V]."""
    mask = boolean_mask(mask)
    length = q.shape[1]
    size = min(window, length)  # one block, where the input is shorter than one
    q, k, v, mask = (cut(x, size) for x in (q, k, v, mask))
    return join(block_attention(q, k, v, mask[:, :, None, None, :], rate, rng_keys), length)


class Local(QKVAttention):
    """Softmax attention within blocks of `window` positions, or over the suite's strided layout."""

    def __init__(
        self, dims: Dims, *, window: int = 50, layout: Literal["local", "lra_strided"] = "local", rngs: nnx.Rngs
    ) -> None:
        if window < 1:
            raise ValueError(f"local: window={window} is no number of positions; give 1 or more")
        if layout not in ("local", "lra_strided"):
            raise ValueError(f"local: layout={layout!r} is not one of local, lra_strided")
        super().__init__(dims, rngs=rngs)
        self.window, self.layout = window, layout

    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: jax.Array | None
    ) -> jax.Array:
        if self.layout == "lra_strided":
            return strided_attention(q, k, v, mask, self.dims.max_len // self.window + 1, self.dims.dropout, rng_keys)
        return local_attention(q, k, v, mask, self.window, self.dims.dropout, rng_keys)
