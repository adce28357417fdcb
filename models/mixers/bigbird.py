"""BigBird (Zaheer et al., 2020, arXiv:2007.14062): blocks that see a window, global blocks and random blocks.

    y_i = sum_j a_ij v_j,    a_i = softmax of q_i . k_j / sqrt(K) over the real positions j of the blocks that i sees

A query of block u sees the blocks u - 1, u, u + 1, the first, the last, and `num_random` others, drawn once for each
block and head; queries of the first and of the last block see all. (This is the paper's ITC: global blocks are
blocks of the input.) Window, global and random blocks of 64, three random ones, are the paper's.

The last block is each example's last with a real token. Random blocks are drawn for max_len, and those that are
padding, or are seen anyway, are not seen again: a shorter example has fewer, and one of up to four blocks has softmax
attention. Where max_len is below block * (6 + 2 * num_random), a block is max_len over that number, for nothing would
be sparse (the code in transformers falls back to full attention there).

The reference suite, `random_span` = 1024 and `drop_weights` = false: random blocks from the first 1024 positions
only, and no dropout of weights. Not reproduced: its last block is the padded batch's, which it extends by up to a
whole block of zeros that count as real keys, even where the length is a multiple of the block.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from models.block_attention import block_attention, cut, join, neighbourhood
from models.core import Buffer, Dims, QKVAttention
from models.dropout import fold_in_keys
from models.ops import boolean_mask

COMPLEXITY = ("L", "L")


def draw_plan(key: jax.Array, count: int, heads: int, num_random: int, span: int) -> jax.Array:
    """Random blocks, below `span`, for each of `count` blocks and each head: int [N, H, R], none twice.

    Never the first, the last or a neighbour. Where too few are left, a block's own number, which is seen anyway.
    """
    u, j = jnp.arange(count)[:, None, None], jnp.arange(count)[None, None, :]
    allowed = (jnp.abs(u - j) > 1) & (j > 0) & (j < min(span, count - 1))
    scores = jnp.where(allowed, jax.random.uniform(key, (count, heads, count), jnp.float32), -1)
    best, ids = jax.lax.top_k(scores, min(num_random, count))
    return jnp.where(best < 0, u, ids).astype(jnp.int32)


def bigbird_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    plan: jax.Array,
    size: int,
    rate: float = 0.0,
    rng_keys: jax.Array | None = None,
) -> jax.Array:
    """Softmax attention over the blocks of BigBird's pattern.

    Args:
      q, k: [B, L, H, K]
      v:    [B, L, H, V]
      mask: [B, L] bool, True = real token, a prefix
      plan: int [N, H, R], random blocks; N at least L / size
      size: of a block
      rate: of dropout of the weights
      rng_keys: [B], or None

    Returns:
      [B, L, H, V], dtype of v.
    """
    mask = boolean_mask(mask)
    blocks = [cut(x, size) for x in (q, k, v)]  # [B, N, S, H, K]
    b, n, _, h, _ = blocks[0].shape
    real = mask.sum(1)[:, None, None, None]
    last = jnp.maximum(real - 1, 0) // size
    block = jnp.arange(n)[None, :, None, None]
    is_first, is_last = (block == 0)[..., None], (block == last)[..., None]
    q_last, k_last, v_last = (jnp.where(is_last, x, 0).sum(1, keepdims=True) for x in blocks)

    def seen(x: jax.Array, x_last: jax.Array) -> jax.Array:  # [B, N, (5 + R) * S, H, K]
        ends = (jnp.broadcast_to(end, x.shape) for end in (x[:, :1], x_last))
        return jnp.concatenate([neighbourhood(x, 1, 1), *ends, _gather(x, jnp.minimum(plan[:n], n - 1))], 2)

    window = block + jnp.arange(-1, 2)[None, None, None]
    parts = (window, jnp.zeros_like(block), last, plan[None, :n])
    ids = jnp.concatenate([jnp.broadcast_to(x, (b, n, h, x.shape[-1])) for x in parts], -1)
    slot = jnp.arange(ids.shape[-1])[None, None, None]
    once = (slot < 3) | (jnp.abs(ids - block) > 1)  # neither seen by the window, nor at the ends
    once &= (slot < 5) | ((ids != 0) & (ids != last))
    places = ids[..., None] * size + jnp.arange(size)[None, None, None, None]
    visible = once[..., None] & (places >= 0) & (places < real[..., None])
    visible = visible.reshape(b, n, h, 1, -1)
    y = block_attention(
        blocks[0], seen(blocks[1], k_last), seen(blocks[2], v_last), visible, rate, fold_in_keys(rng_keys, 0)
    )

    ends = jnp.concatenate([blocks[0][:, :1], q_last], 2)  # one block of queries that sees one block of keys: all
    of_ends = block_attention(
        ends, k[:, None], v[:, None], mask[:, None, None, None, :], rate, fold_in_keys(rng_keys, 1)
    )
    of_first, of_last = jnp.split(of_ends, 2, 2)
    return join(jnp.where(is_first, of_first, jnp.where(is_last, of_last, y)), q.shape[1])


def _gather(x: jax.Array, plan: jax.Array) -> jax.Array:
    """[B, N, S, H, K], plan [N, H, R] -> [B, N, R * S, H, K]. Whole blocks: a gradient that adds up rows is slow."""
    b, n, _, h, width = x.shape
    of_head = jax.vmap(lambda blocks, ids: blocks[ids], (0, 1))
    chosen = jax.vmap(of_head, (0, None))(x.transpose(0, 3, 1, 2, 4), plan)  # [B, H, N, R, S, K]
    return chosen.transpose(0, 2, 3, 4, 1, 5).reshape(b, n, -1, h, width)


class BigBird(QKVAttention):
    """Attention over a window of blocks, the first, the last and random ones, with dropout of the weights.

    block:        positions of a block
    num_random:   random blocks of each block and head
    random_span:  positions, from the first, that random blocks are drawn from; None: all
    drop_weights: the protocol's dropout of attention weights applies
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
        for name, value, least in (("block", block, 1), ("num_random", num_random, 0), ("random_span", random_span, 1)):
            if value is not None and value < least:
                raise ValueError(f"BigBird: {name} {value} is not at least {least}")
        self.size = min(block, max(1, dims.max_len // (6 + 2 * num_random)))
        self.rate = dims.dropout if drop_weights else 0.0
        count = -(-dims.max_len // self.size)
        self.empty = (count, dims.num_heads, 0)
        span = count if random_span is None else random_span // self.size
        # nothing to save where nothing is drawn: checkpoints refuse empty arrays
        self.plan = Buffer(draw_plan(rngs.params(), count, dims.num_heads, num_random, span)) if num_random else None

    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: jax.Array | None
    ) -> jax.Array:
        plan = jnp.zeros(self.empty, int) if self.plan is None else self.plan[...]
        return bigbird_attention(q, k, v, mask, plan, self.size, self.rate, rng_keys)
