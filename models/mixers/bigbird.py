"""BigBird (Zaheer et al., 2020, arXiv:2007.14062): blocks that see a window, global blocks and random blocks.

    y_i = sum_j a_ij v_j,    a_i = softmax of q_i . k_j / sqrt(K) over the real positions j of the blocks that i sees

A query of block u sees the blocks u - 1, u, u + 1, the first, the last, and `num_random` others, which are drawn once
for each block and head. Queries of the first and of the last block see all blocks. This is the paper's ITC form, in
which global blocks are blocks of the input. The defaults are those of the paper: blocks of 64 and three random blocks.

The last block is each example's last block with a real token. Random blocks are drawn for max_len. Those that are
padding, or that a query sees anyway, are not counted again, so a shorter example has fewer of them and an example of
up to four blocks has softmax attention. If max_len is below block * (6 + 2 * num_random), the block size is max_len
divided by this number of blocks, because the pattern would not be sparse. (The code in transformers uses full attention
in that case.)

The options `random_span=1024 drop_weights=false` reproduce the reference suite (google-research/long-range-arena): it
draws random blocks from the first 1,024 positions only and does not drop weights. Not reproduced: its last block is
that of the padded batch, extended by up to one block of zeros that count as real keys, even if the length is a
multiple of the block size.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.block_attention import block_attention, merge_blocks, split_blocks, with_neighbours
from models.core import MAX_SIZE, Buffer, Dims, QKVAttention, check_range
from models.dropout import fold_in_keys
from models.ops import boolean_mask, zero_padding

COMPLEXITY = ("L", "L")


def draw_random_blocks(key: Array, count: int, heads: int, num_random: int, span: int) -> Array:
    """Draw distinct random blocks below `span` for each of `count` blocks and each head, int32 [N, H, R].

    The first block, the last block and neighbours are excluded. If too few blocks remain, the block's own number, which
    it sees anyway, fills the array.
    """
    block, other = jnp.arange(count)[:, None, None], jnp.arange(count)[None, None, :]
    allowed = (jnp.abs(block - other) > 1) & (other > 0) & (other < min(span, count - 1))
    priority = jnp.where(allowed, jax.random.uniform(key, (count, heads, count), jnp.float32), -1)
    best, ids = jax.lax.top_k(priority, min(num_random, count))
    return jnp.where(best < 0, block, ids).astype(jnp.int32)


def bigbird_attention(
    q: Array, k: Array, v: Array, mask: Array, random_blocks: Array, size: int, rate: float = 0.0,
    rng_keys: Array | None = None,
) -> Array:  # fmt: skip
    """Compute softmax attention over the blocks of BigBird's pattern.

    Args:
      q, k:          [B, L, H, K]
      v:             [B, L, H, V]
      mask:          [B, L] bool, True = real token; padding must be at the end
      random_blocks: int [N, H, R], N at least L / size
      size:          positions per block
      rate:          dropout rate of the weights
      rng_keys:      [B], or None for no dropout

    Returns:
      [B, L, H, V], dtype of v
    """
    mask = boolean_mask(mask)
    v = zero_padding(v, mask)
    blocks = [split_blocks(x, size) for x in (q, k, v)]  # [B, N, S, H, K]
    b, n, _, h, _ = blocks[0].shape
    real_length = mask.sum(1)[:, None, None, None]
    last = jnp.maximum(real_length - 1, 0) // size
    block = jnp.arange(n)[None, :, None, None]
    is_first, is_last = (block == 0)[..., None], (block == last)[..., None]
    q_last, k_last, v_last = (jnp.where(is_last, x, 0).sum(1, keepdims=True) for x in blocks)

    def gather(x: Array, x_last: Array) -> Array:  # window, first, last, random: [B, N, (5 + R) * S, H, K]
        ends = (jnp.broadcast_to(end, x.shape) for end in (x[:, :1], x_last))
        parts = [with_neighbours(x, 1, 1), *ends, _gather_per_head(x, jnp.minimum(random_blocks[:n], n - 1))]
        return jnp.concatenate(parts, 2)

    window = block + jnp.arange(-1, 2)[None, None, None]
    parts = (window, jnp.zeros_like(block), last, random_blocks[None, :n])
    ids = jnp.concatenate([jnp.broadcast_to(x, (b, n, h, x.shape[-1])) for x in parts], -1)
    index = jnp.arange(ids.shape[-1])[None, None, None]
    counted = (index < 3) | (jnp.abs(ids - block) > 1)  # count each block once
    counted &= (index < 5) | ((ids != 0) & (ids != last))
    positions = ids[..., None] * size + jnp.arange(size)[None, None, None, None]
    visible = counted[..., None] & (positions >= 0) & (positions < real_length[..., None])
    visible = visible.reshape(b, n, h, 1, -1)
    keys, values = gather(blocks[1], k_last), gather(blocks[2], v_last)
    y = block_attention(blocks[0], keys, values, visible, rate, fold_in_keys(rng_keys, 0))

    ends = jnp.concatenate([blocks[0][:, :1], q_last], 2)  # as one block of queries that sees one block of all keys
    y_ends = block_attention(
        ends, k[:, None], v[:, None], mask[:, None, None, None, :], rate, fold_in_keys(rng_keys, 1)
    )
    y_first, y_last = jnp.split(y_ends, 2, 2)
    return merge_blocks(jnp.where(is_first, y_first, jnp.where(is_last, y_last, y)), q.shape[1])


def _gather_per_head(x: Array, ids: Array) -> Array:
    """Gather blocks by ids [N, H, R]: x [B, N, S, H, K] -> [B, N, R * S, H, K].

    Whole blocks are gathered, because the gradient of a gather of rows is slow.
    """
    b, n, _, h, width = x.shape
    one_head = jax.vmap(lambda blocks, ids: blocks[ids], (0, 1))
    gathered = jax.vmap(one_head, (0, None))(x.transpose(0, 3, 1, 2, 4), ids)  # [B, H, N, R, S, K]
    return gathered.transpose(0, 2, 3, 4, 1, 5).reshape(b, n, -1, h, width)


class BigBird(QKVAttention):
    """Attention over a window of blocks, the first, the last and random blocks, with dropout of the weights.

    block:        positions per block
    num_random:   number of random blocks of each block and head
    random_span:  random blocks are drawn from this number of positions at the start; None: from all
    drop_weights: apply the protocol's attention dropout
    """

    def __init__(
        self,
        dims: Dims,
        *,
        block: int = 64,
        num_random: int = 3,
        random_span: int | None = None,
        drop_weights: bool = True,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(dims, rngs=rngs)
        check_range(1, MAX_SIZE, block=block, random_span=random_span)
        check_range(0, 1000, num_random=num_random)
        self.size = min(block, max(1, dims.max_len // (6 + 2 * num_random)))
        self.rate = dims.dropout if drop_weights else 0.0
        count = -(-dims.max_len // self.size)
        self.empty = (count, dims.num_heads, 0)
        span = count if random_span is None else random_span // self.size
        # None without random blocks, because checkpoints cannot store empty arrays.
        shape = count, dims.num_heads, num_random
        self.plan = Buffer(draw_random_blocks(rngs.params(), *shape, span)) if num_random else None

    def attend(self, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None) -> Array:
        random_blocks = jnp.zeros(self.empty, int) if self.plan is None else self.plan[...]
        return bigbird_attention(q, k, v, mask, random_blocks, self.size, self.rate, rng_keys)
