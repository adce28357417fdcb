"""Local attention: softmax within blocks, a baseline of Long Range Arena (Tay et al., 2021, arXiv:2011.04006).

    y_i = sum_j a_ij v_j,    a_i = softmax_j(q_i . k_j / sqrt(K)) over the real keys j with floor(j / w) = floor(i / w)

Blocks of w positions start at position 0 and do not overlap. No information passes between blocks at any depth, so a
CLS vector sees only the first block. w = 50 is the default of the reference suite, which uses 64 for Image and
Pathfinder.

Deviation from the reference suite (google-research/long-range-arena): its code reshapes [B, L, ...] to [B, w, n, ...]
with n = floor(L / w) + 1 and attends over the axis of size w. Position i then sees the positions j = i modulo n, a
dilated pattern over the whole input instead of a local one. `layout="lra_strided"` computes this, with L =
`dims.max_len`, the length to which the suite pads. Two properties of that code are not reproduced. It reshapes the
padding mask contiguously, so that the mask applies to other keys. It does not mask the n w - L positions that fill
the last block, so that they act as keys with logit 0.
"""

from __future__ import annotations

from typing import Literal

from flax import nnx
from jax import Array

from models.block_attention import block_attention, merge_blocks, split_blocks, strided_attention
from models.core import MAX_SIZE, Dims, QKVAttention, check_range
from models.ops import boolean_mask, zero_padding

COMPLEXITY = ("L", "L")


def local_attention(
    q: Array, k: Array, v: Array, mask: Array, window: int, rate: float = 0.0, rng_keys: Array | None = None
) -> Array:
    """Compute softmax attention within blocks of `window` positions.

    Args:
      q, k:     [B, L, H, K]
      v:        [B, L, H, V]
      mask:     [B, L] bool, True = real token
      window:   positions per block
      rate:     dropout rate of the weights
      rng_keys: [B], or None for no dropout

    Returns:
      [B, L, H, V], dtype of v
    """
    mask = boolean_mask(mask)
    v = zero_padding(v, mask)
    length = q.shape[1]
    size = min(window, length)
    q, k, v, mask = (split_blocks(x, size) for x in (q, k, v, mask))
    return merge_blocks(block_attention(q, k, v, mask[:, :, None, None, :], rate, rng_keys), length)


class Local(QKVAttention):
    """Softmax attention within blocks of `window` positions, or with the strided layout of the reference suite."""

    def __init__(
        self, dims: Dims, *, window: int = 50, layout: Literal["local", "lra_strided"] = "local", rngs: nnx.Rngs
    ) -> None:
        check_range(1, MAX_SIZE, window=window)
        super().__init__(dims, rngs=rngs)
        self.window, self.layout = window, layout

    def attend(self, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None) -> Array:
        if self.layout == "lra_strided":
            return strided_attention(q, k, v, mask, self.dims.max_len // self.window + 1, self.dims.dropout, rng_keys)
        return local_attention(q, k, v, mask, self.window, self.dims.dropout, rng_keys)
