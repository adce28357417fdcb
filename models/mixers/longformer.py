"""Longformer (Beltagy et al., 2020, arXiv:2004.05150): a sliding window and a few global tokens.

    y_i = sum_j a_ij v_j,    a_i = softmax of q_i . k_j / sqrt(K) over the real j of {|i - j| <= window / 2} and G
    y_g = the same over all real j, with second projections Q_g, K_g, V_g of x,                          g in G

G are the first `num_global` positions: the CLS vector where the encoder has one, as in the paper's classifier, else
the first token. Q_g, K_g, V_g start as copies of the local ones, as in the paper; they are parameters that softmax
attention has not. A window of 512 is the paper's. The paper's dilation and its windows that grow from layer to
layer belong to its language models, not to its classifiers, and are left out.

Queries go in blocks, each with the neighbouring blocks that its window touches: L x window, never L x L. Where the
window of every position holds max_len, the local part is softmax attention.

The reference suite, `num_global` = 0 and `window_counts_query`: no global token in any configuration (the three
projections are there, unused), and a window of w positions with the query among them, so that an even one has
w/2 - 1 on the left and w/2 on the right. It masks an L x L matrix.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from models.block_attention import block_attention, cut, join, neighbourhood
from models.core import Dims, QKVAttention, projection
from models.dropout import fold_in_keys
from models.ops import boolean_mask

COMPLEXITY = ("L", "L")


def sliding_window_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    left: int,
    right: int,
    num_global: int = 0,
    rate: float = 0.0,
    rng_keys: jax.Array | None = None,
) -> jax.Array:
    """Softmax attention of i over the real positions of i - left .. i + right and 0 .. num_global - 1.

    Args:
      q, k: [B, L, H, K]
      v:    [B, L, H, V]
      mask: [B, L] bool, True = real token, a prefix
      rate: of dropout of the weights
      rng_keys: [B], or None

    Returns:
      [B, L, H, V], dtype of v.
    """
    mask = boolean_mask(mask)
    length, real = q.shape[1], mask.sum(1)[:, None, None]
    size = min(max(left, right, 16), 128)  # smaller: more copies of a key; larger: more pairs computed in vain
    before, after = -(-left // size), -(-right // size)
    q, k_near, v_near = (
        cut(q, size),
        neighbourhood(cut(k, size), before, after),
        neighbourhood(cut(v, size), before, after),
    )
    n, t = k_near.shape[1:3]

    def with_global(near: jax.Array, x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, 0), (0, max(0, num_global - length)), (0, 0), (0, 0)])[:, None, :num_global]
        return jnp.concatenate([near, jnp.broadcast_to(x, (len(x), n, *x.shape[2:]))], 2)

    place = jnp.arange(n)[:, None] * size + jnp.arange(-before * size, t - before * size)[None, :]  # of a key, [N, T]
    local = (place >= num_global)[None] & (place[None] < real)  # [B, N, T]
    everywhere = jnp.broadcast_to(jnp.arange(num_global)[None, None] < real, (len(mask), n, num_global))
    offset = jnp.arange(t)[None, :] - before * size - jnp.arange(size)[:, None]  # from query to key, [S, T]
    band = jnp.pad((offset >= -left) & (offset <= right), [(0, 0), (0, num_global)], constant_values=True)
    visible = jnp.concatenate([local, everywhere], 2)[:, :, None, None, :] & band[None, None, None]
    return join(block_attention(q, with_global(k_near, k), with_global(v_near, v), visible, rate, rng_keys), length)


class Longformer(QKVAttention):
    """Attention within a window, and of the first tokens with all, with dropout of the weights.

    window:              half of it, rounded down, is what a query sees on each side
    num_global:          tokens that see, and are seen by, all
    window_counts_query: the query is one of the window, so an even window has one position less on the left
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
        super().__init__(dims, rngs=rngs)
        if window < 1 or num_global < 0:
            raise ValueError(f"Longformer: window {window} and num_global {num_global} are not at least 1 and 0")
        self.left, self.right = (window - 1) // 2 if window_counts_query else window // 2, window // 2
        self.num_global = min(num_global, dims.max_len)
        if num_global:
            self.query_global, self.key_global, self.value_global = (
                _copy(layer, projection(dims, dims.d_model, dims.qkv_dim, bias=dims.bias, rngs=rngs))
                for layer in (self.query, self.key, self.value)
            )

    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: jax.Array | None = None) -> jax.Array:
        def heads(layer: nnx.Linear, x: jax.Array) -> jax.Array:
            return layer(x).reshape(*x.shape[:2], self.dims.num_heads, self.dims.head_dim)

        y = self.attend(heads(self.query, x), heads(self.key, x), heads(self.value, x), mask, fold_in_keys(rng_keys, 0))
        if self.num_global:
            q = heads(self.query_global, x[:, : self.num_global])
            rows = self._all(q, heads(self.key_global, x), heads(self.value_global, x), mask, fold_in_keys(rng_keys, 1))
            y = jnp.concatenate([rows, y[:, self.num_global :]], 1)
        return self.output(y.reshape(*x.shape[:2], self.dims.qkv_dim))

    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: jax.Array | None
    ) -> jax.Array:
        if min(self.left, self.right) >= self.dims.max_len - 1:
            return self._all(q, k, v, mask, rng_keys)
        rate = self.dims.dropout
        return sliding_window_attention(q, k, v, mask, self.left, self.right, self.num_global, rate, rng_keys)

    def _all(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: jax.Array | None) -> jax.Array:
        q, k, v, visible = q[:, None], k[:, None], v[:, None], mask[:, None, None, None, :]  # one block sees one block
        return block_attention(q, k, v, visible, self.dims.dropout, rng_keys)[:, 0]


def _copy(layer: nnx.Linear, to: nnx.Linear) -> nnx.Linear:
    """`to` with the values of `layer`, in memory of its own: a training step gives each buffer away once."""
    nnx.update(to, jax.tree.map(jnp.copy, nnx.state(layer)))
    return to
