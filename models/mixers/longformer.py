"""Longformer (Beltagy et al., 2020, arXiv:2004.05150): a sliding window and a few global tokens.

    y_i = sum_j a_ij v_j,    a_i = softmax of q_i . k_j / sqrt(K) over the real j of {|i - j| <= window / 2} and G
    y_g = the same over all real j, with second projections Q_g, K_g, V_g of x,                          g in G

G are the first `num_global` positions: the CLS vector if the encoder has one, as in the paper's classifier, otherwise
the first token. Q_g, K_g and V_g are initialised as copies of the local projections, as in the paper. They are
additional parameters compared with softmax attention. The default window of 512 is that of the paper. Dilation and
windows that grow with the layer are not implemented, because the paper uses them in language models and not in
classifiers.

Queries are processed in blocks, each with the neighbouring blocks that its window overlaps, so time and memory are
O(L window). If every window covers max_len, the local part is computed as softmax attention.

The options `num_global=0 window_counts_query=true` reproduce the reference suite (google-research/long-range-arena),
which has no global token in any configuration, although it has the three unused projections. Its window of w
positions includes the query, so that an even window has w/2 - 1 positions on the left and w/2 on the right. It masks
an L x L matrix.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.block_attention import block_attention, merge_blocks, split_blocks, with_neighbours
from models.core import MAX_SIZE, Dims, QKVAttention, check_range, projection
from models.dropout import fold_in_keys
from models.ops import boolean_mask, zero_padding

COMPLEXITY = ("L", "L")


def sliding_window_attention(
    q: Array, k: Array, v: Array, mask: Array, left: int, right: int, num_global: int = 0, rate: float = 0.0,
    rng_keys: Array | None = None,
) -> Array:  # fmt: skip
    """Compute softmax attention of i over the real positions of i - left .. i + right and 0 .. num_global - 1.

    Args:
      q, k:        [B, L, H, K]
      v:           [B, L, H, V]
      mask:        [B, L] bool, True = real token; padding must be at the end
      left, right: positions on each side of the query
      num_global:  number of global positions at the start
      rate:        dropout rate of the weights
      rng_keys:    [B], or None for no dropout

    Returns:
      [B, L, H, V], dtype of v
    """
    mask = boolean_mask(mask)
    v = zero_padding(v, mask)
    length, real_length = q.shape[1], mask.sum(1)[:, None, None]
    size = min(max(left, right, 16), 128)  # smaller blocks copy keys more often, larger ones compute unused pairs
    before, after = -(-left // size), -(-right // size)
    q = split_blocks(q, size)
    k_near, v_near = (with_neighbours(split_blocks(x, size), before, after) for x in (k, v))
    n, t = k_near.shape[1:3]

    def with_global(near: Array, x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, max(0, num_global - length)), (0, 0), (0, 0)])[:, None, :num_global]
        return jnp.concatenate([near, jnp.broadcast_to(x, (len(x), n, *x.shape[2:]))], 2)

    key_position = jnp.arange(n)[:, None] * size + jnp.arange(-before * size, t - before * size)[None, :]  # [N, T]
    local = (key_position >= num_global)[None] & (key_position[None] < real_length)  # [B, N, T]
    everywhere = jnp.broadcast_to(jnp.arange(num_global)[None, None] < real_length, (len(mask), n, num_global))
    offset = jnp.arange(t)[None, :] - before * size - jnp.arange(size)[:, None]  # from query to key, [S, T]
    band = jnp.pad((offset >= -left) & (offset <= right), [(0, 0), (0, num_global)], constant_values=True)
    visible = jnp.concatenate([local, everywhere], 2)[:, :, None, None, :] & band[None, None, None]
    y = block_attention(q, with_global(k_near, k), with_global(v_near, v), visible, rate, rng_keys)
    return merge_blocks(y, length)


class Longformer(QKVAttention):
    """Attention within a window and of a few global tokens with all positions, with dropout of the weights.

    window:              a query sees half of it, rounded down, on each side
    num_global:          number of tokens that see all positions and are seen by all
    window_counts_query: the window includes the query, so an even window has one position less on the left
    """

    def __init__(
        self,
        dims: Dims,
        *,
        window: int = 512,
        num_global: int = 1,
        window_counts_query: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        check_range(1, MAX_SIZE, window=window)
        check_range(0, MAX_SIZE, num_global=num_global)
        super().__init__(dims, rngs=rngs)
        self.left, self.right = (window - 1) // 2 if window_counts_query else window // 2, window // 2
        self.num_global = min(num_global, dims.max_len)
        if num_global:
            self.query_global, self.key_global, self.value_global = (
                _copy_params(layer, projection(dims, dims.d_model, dims.qkv_dim, bias=dims.bias, rngs=rngs))
                for layer in (self.query, self.key, self.value)
            )

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        def heads(layer: nnx.Linear, x: Array) -> Array:
            return layer(x).reshape(*x.shape[:2], self.dims.num_heads, self.dims.head_dim)

        x = zero_padding(x, mask)
        q, k, v = heads(self.query, x), heads(self.key, x), heads(self.value, x)
        y = self.attend(q, k, v, mask, fold_in_keys(rng_keys, 0))
        if self.num_global:
            q = heads(self.query_global, x[:, : self.num_global])
            k, v = heads(self.key_global, x), heads(self.value_global, x)
            global_rows = self._attend_all(q, k, v, mask, fold_in_keys(rng_keys, 1))
            y = jnp.concatenate([global_rows, y[:, self.num_global :]], 1)
        return self.output(y.reshape(*x.shape[:2], self.dims.qkv_dim))

    def attend(self, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None) -> Array:
        if min(self.left, self.right) >= self.dims.max_len - 1:
            return self._attend_all(q, k, v, mask, rng_keys)
        rate = self.dims.dropout
        return sliding_window_attention(q, k, v, mask, self.left, self.right, self.num_global, rate, rng_keys)

    def _attend_all(self, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None) -> Array:
        """Attend to all real positions, as one block: q [B, Lq, H, K], k, v [B, L, H, K] -> [B, Lq, H, K]."""
        q, k, v, visible = q[:, None], k[:, None], v[:, None], mask[:, None, None, None, :]
        return block_attention(q, k, v, visible, self.dims.dropout, rng_keys)[:, 0]


def _copy_params(source: nnx.Linear, target: nnx.Linear) -> nnx.Linear:
    """Return `target` with copies of the parameters of `source`, in buffers that a training step can donate."""
    nnx.update(target, jax.tree.map(jnp.copy, nnx.state(source)))
    return target
