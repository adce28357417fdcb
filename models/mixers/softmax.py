"""Softmax attention (Vaswani et al., 2017, arXiv:1706.03762), computed in blocks of queries and chunks of keys.

    y_i = sum_j a_ij v_j,    a_i = softmax_j(q_i . k_j / sqrt(K)) over the real keys j

No L x L array exists: memory is linear in L, time is quadratic (`models/blockwise_softmax.py`).

On a GPU, cuDNN computes attention where it can: in 16-bit dtypes and without dropout of the weights
(`models/fused_attention.py`). Otherwise blocks are larger on a GPU, where a small one takes no longer than the start of
its kernels.

Padded keys are masked, padded queries are not. The reference suite masks both, which changes only outputs at padded
positions. An example without real keys gives zeros.

The option `positions` selects what attention knows of positions, which the protocol also adds to the embeddings:

    protocol  nothing more
    rope      q_i and k_j are rotated over the whole width of a head by angles that are proportional to i and j (RoPE,
              Su et al., 2021, arXiv:2104.09864; base 10,000), so that their product sees i - j

With decay="alibi", head h = 1 .. H subtracts a penalty of the distance from its logits, 2^(-8 h / H) |i - j| (ALiBi,
Press et al., 2022, arXiv:2108.12409). The paper is causal; |i - j| is the form for both directions. These slopes are
the paper's for all H, while the authors' code has others if H is not a power of two. The penalties are computed for
each block and have no parameters. The multiplicative form of LaS (Zimerman and Wolf, 2024) is not implemented.
"""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.blockwise_softmax import Options, blockwise_softmax
from models.core import Dims, QKVAttention
from models.fused_attention import Implementation, choose_implementation, fused_attention, on_gpu
from models.ops import boolean_mask, matmul_precision, zero_padding
from models.rotary import frequencies, rotate

COMPLEXITY = ("L^2", "L")
BLOCK = 128  # queries per block; smaller blocks make matrix products inefficient
CHUNK = 1024  # keys per chunk; with many more, the weights of a block do not fit into a CPU's cache

# Largest size of the weights of a block on a GPU, unless those of 16 queries need more. Reading 1 GiB takes at least
# 0.2 ms at 5 TB/s, many times the 0.01 ms to start a kernel. The backward pass holds a few arrays of this size.
GPU_BYTES = 2**30


def softmax_attention(
    q: Array, k: Array, v: Array, mask: Array, *, dropout_rate: float = 0.0,
    rng_keys: Array | None = None, block: int | None = None, implementation: Implementation | None = None,
    slopes: tuple[float, ...] | None = None,
) -> Array:  # fmt: skip
    """Compute attention over the real keys in memory linear in Lq and Lk; logits and sums are in at least float32.

    The implementations "cudnn" and "xla" are those of `jax.nn.dot_product_attention`. They need q, k and v of one
    dtype, K = V and no dropout. "cudnn" runs on some GPUs only, see `choose_implementation`. "xla" runs everywhere and
    stores all Lq x Lk weights.

    Args:
      q:            [B, Lq, H, K]
      k:            [B, Lk, H, K]
      v:            [B, Lk, H, V]
      mask:         [B, Lk] bool, True = real key
      dropout_rate: dropout rate of the weights, which are dropped as by `attention_dropout` of the whole matrix
      rng_keys:     [B], or None for no dropout
      block:        queries per block, rounded up to a multiple of 16 if there are several blocks; None: 128, on a GPU
                    as many as `GPU_BYTES` allows
      implementation: "blocks", "cudnn" or "xla"; None: that of `choose_implementation`
      slopes:       of each head, H numbers: what a distance of 1 subtracts from the logits, which needs "blocks"

    Returns:
      [B, Lq, H, V], dtype of v; zeros where an example has no real key

    Raises:
      ValueError: the implementation is unknown, or cannot drop weights or subtract slopes
    """
    mask = boolean_mask(mask)
    v = zero_padding(v, mask)
    dropout = rng_keys is not None and bool(dropout_rate)
    implementation = implementation or choose_implementation(q, k, v, dropout=dropout, slopes=slopes is not None)
    if implementation == "blocks":
        default_block, chunk = _block_sizes(q, k)
        options = Options(dropout_rate, block or default_block, chunk, matmul_precision(), slopes)
        return blockwise_softmax(options, q, k, v, mask, rng_keys)
    if implementation not in ("cudnn", "xla"):
        raise ValueError(f"implementation {implementation!r} is not one of blocks, cudnn, xla")
    if dropout:
        raise ValueError(f'implementation "{implementation}" cannot drop weights; use "blocks"')
    if slopes is not None:
        raise ValueError(f'implementation "{implementation}" cannot subtract slopes; use "blocks"')
    return fused_attention(implementation, q, k, v, mask)


def _block_sizes(q: Array, k: Array) -> tuple[int, int]:
    """Return queries per block and keys per chunk: on a GPU one chunk, and weights [B, H, J, S] of `GPU_BYTES`."""
    if not on_gpu():
        return BLOCK, CHUNK
    b, lk, h, _ = k.shape
    of_a_query = b * h * lk * jnp.promote_types(q.dtype, jnp.float32).itemsize
    return max(GPU_BYTES // max(of_a_query, 1) // 16, 1) * 16, lk


class Softmax(QKVAttention):
    """Scaled dot-product attention with dropout of the weights.

    positions: protocol = as the protocol adds them to the embeddings; rope = queries and keys are rotated too
    decay:     none; alibi = logits decrease with the distance, by a slope of each head
    """

    def __init__(
        self,
        dims: Dims,
        *,
        positions: Literal["protocol", "rope"] = "protocol",
        decay: Literal["none", "alibi"] = "none",
        rngs: nnx.Rngs,
    ) -> None:
        if positions == "rope" and dims.head_dim < 2:
            raise ValueError("option positions=rope: needs heads of width 2 or more, not 1")
        super().__init__(dims, rngs=rngs)
        self.positions = positions
        heads = dims.num_heads
        self.slopes = tuple(2 ** (-8 * (h + 1) / heads) for h in range(heads)) if decay == "alibi" else None

    def attend(self, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None) -> Array:
        if self.positions == "rope":
            q, k = (rotate(x, frequencies(self.dims.head_dim)) for x in (q, k))
        return softmax_attention(q, k, v, mask, dropout_rate=self.dims.dropout, rng_keys=rng_keys, slopes=self.slopes)
