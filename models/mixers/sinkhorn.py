"""Sparse Sinkhorn attention (Tay et al., 2020, arXiv:2002.11296): a block attends to itself and to one sorted to it.

    y_i = softmax(q_i . [psi(K)_u ; K_u] / sqrt(K)) [psi(V)_u ; V_u],    i in block u,    psi(X)_u = sum_w S_uw X_w

    S = sinkhorn((R + Gumbel noise) / tau),    R_u = P(sum of the keys of block u)

Sinkhorn balancing subtracts, in the log domain, the logsumexp of rows and of columns in turn, so that S approaches a
permutation of the blocks. Noise is added in training only. By default blocks have about sqrt(L) positions, so time and
memory are O(L^1.5).

Padding: a block without real tokens has -inf in its row and column of R, except on the diagonal. A sorted key is the
mean of the real keys alone, and its logit gains the logarithm of their share of the weight, so padding inside a block
has no weight. Without padding neither changes anything. P has one output for each block of `dims.max_len`.

Deviations from the paper: its P reads the sum of the block's inputs. Here, as in the reference suite, it is one linear
map of the sum of the block's keys, shared by the heads. tau = 0.75, 7 iterations, and one softmax over sorted and own
keys are those of lucidrains/sinkhorn-transformer.

`form="lra"` computes what the code of the reference suite (google-research/long-range-arena) computes. Its einsum sums
over the block index of K and that of S separately. The rows of S sum to 1, so every "sorted" block is the plain sum of
all blocks, and the sorting network has no effect and is not trained (here it has no parameters in this form). The code
attends over strided positions, as its local attention does, and adds the results of two softmaxes, one over the own
block and one over those sums. Not reproduced: it reshapes the padding mask as described in `local`, and sums padded
keys too. Its blocks have 50 positions (`window`), or 64 on Image and Pathfinder.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.block_attention import block_attention, block_weights, merge_blocks, split_blocks, strided_attention
from models.core import MAX_SIZE, Dims, QKVAttention, check_range
from models.dropout import fold_in_keys
from models.ops import boolean_mask, scores

COMPLEXITY = ("L^1.5", "L^1.5")
MASKED_LOGIT = -1e9  # its exponential is 0, and differences of such logits are finite
MIN_SHARE = 1e-9  # a sorted key with a smaller share of real tokens is padding


def balance(r: Array, real: Array, iterations: int) -> Array:
    """Apply Sinkhorn balancing to logits r [B, H, N, N] of blocks with mask real [B, N] -> S [B, H, N, N].

    Rows and columns of S sum to about 1. Blocks without real tokens have the identity.
    """
    diagonal = jnp.eye(r.shape[-1], dtype=bool)[None, None]
    both_real = (real[:, :, None] & real[:, None, :])[:, None]
    r = jnp.where(both_real, r, jnp.where(diagonal, 0, MASKED_LOGIT))

    def step(_: int, r: Array) -> Array:
        r = r - jax.nn.logsumexp(r, -1, keepdims=True)
        return r - jax.nn.logsumexp(r, -2, keepdims=True)

    return jnp.exp(jax.lax.fori_loop(0, iterations, step, r))


def sorted_attention(q: Array, k: Array, v: Array, mask: Array, s: Array, rate: float, rng_keys: Array | None) -> Array:
    """Attend to the sorted block and to the own block.

    Args:
      q, k, v:  [B, N, S, H, K]
      mask:     [B, N, S] bool, True = real token
      s:        [B, H, N, N], the sorting matrix
      rate:     dropout rate of the weights
      rng_keys: [B], or None for no dropout

    Returns:
      [B, N, S, H, K], dtype of v
    """
    mask = boolean_mask(mask)
    share = jnp.einsum("bhuw,bws->bush", s, mask.astype(s.dtype)) / s.sum(-1).swapaxes(1, 2)[:, :, None]
    sorted_visible = share > MIN_SHARE
    share = jnp.where(sorted_visible, share, 1)

    def sorted_and_own(x: Array) -> Array:  # [B, N, S, H, K] -> [B, N, T, H, K], T = 2 S
        y = jnp.einsum("bhuw,bwshk->bushk", s.astype(x.dtype), jnp.where(mask[..., None, None], x, 0))
        y = (y.astype(share.dtype) / share[..., None]).astype(x.dtype)  # a small share is zero in float16
        return jnp.concatenate([y, x], 2)

    bias = jnp.concatenate([jnp.log(share), jnp.zeros_like(share)], 2)  # [B, N, T, H]
    visible = jnp.concatenate([sorted_visible, jnp.broadcast_to(mask[..., None], sorted_visible.shape)], 2)
    bias, visible = (x.swapaxes(2, 3)[:, :, :, None] for x in (bias, visible))
    weights = block_weights(scores("bnshk,bnthk->bnhst", q, sorted_and_own(k)) + bias, visible, rate, rng_keys)
    return jnp.einsum("bnhst,bnthv->bnshv", weights.astype(v.dtype), sorted_and_own(v))


def summed_attention(
    q: Array, k: Array, v: Array, mask: Array, stride: int, rate: float, rng_keys: Array | None
) -> Array:
    """Compute the attention of the reference suite, in which keys are summed over blocks of `stride` positions.

    Args:
      q, k, v:  [B, L, H, K]
      mask:     [B, L] bool, True = real token
      rate:     dropout rate of the weights
      rng_keys: [B], or None for no dropout

    Returns:
      [B, L, H, K], dtype of v
    """
    mask = boolean_mask(mask)
    k_sum, v_sum = (split_blocks(jnp.where(mask[..., None, None], x, 0), stride).sum(2)[:, None] for x in (k, v))
    visible = split_blocks(mask, stride).any(2)[:, None, None, None]
    y = block_attention(q[:, None], k_sum, v_sum, visible, rate, fold_in_keys(rng_keys, 2))[:, 0]
    return y + strided_attention(q, k, v, mask, stride, rate, fold_in_keys(rng_keys, 1))


class Sinkhorn(QKVAttention):
    """Attention within blocks and to one block that is sorted to each.

    If one block covers `dims.max_len`, there is nothing to sort: this is softmax attention, and P gets no gradient.

    window:      positions per block; None: the square root of dims.max_len
    form:        paper, or lra = that of the reference suite
    iterations:  of the balancing (form = paper)
    temperature: tau (form = paper)
    """

    def __init__(
        self,
        dims: Dims,
        *,
        window: int | None = None,
        form: Literal["paper", "lra"] = "paper",
        iterations: int = 7,
        temperature: float = 0.75,
        rngs: nnx.Rngs,
    ) -> None:
        check_range(1, MAX_SIZE, window=window)
        check_range(1, 1000, iterations=iterations)
        check_range(1e-3, 1e3, temperature=temperature)
        super().__init__(dims, rngs=rngs)
        self.size = min(math.ceil(math.sqrt(dims.max_len)) if window is None else window, dims.max_len)
        self.count = math.ceil(dims.max_len / self.size)
        self.iterations, self.temperature = iterations, temperature
        xavier = nnx.initializers.xavier_uniform()
        self.sort = nnx.Param(xavier(rngs.params(), (dims.head_dim, self.count))) if form == "paper" else None

    def attend(self, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None) -> Array:
        if self.sort is None:
            return summed_attention(q, k, v, mask, self.count, self.dims.dropout, rng_keys)
        length, accum_dtype = q.shape[1], jnp.promote_types(q.dtype, jnp.float32)
        q, k, v, mask = (split_blocks(x, self.size) for x in (q, k, v, mask))
        sums = jnp.where(mask[..., None, None], k, 0).sum(2, dtype=accum_dtype)  # [B, N, H, K]
        n = sums.shape[1]
        r = jnp.einsum("bnhk,km->bhnm", sums, self.sort[...].astype(accum_dtype))[..., :n]
        if rng_keys is not None:  # drawn for all blocks of max_len, so that it does not depend on the length
            shape = (self.dims.num_heads, self.count, self.count)
            draw = jax.vmap(lambda key: jax.random.gumbel(key, shape, accum_dtype))
            r = r + draw(fold_in_keys(rng_keys, 0))[:, :, :n, :n]
        s = balance(r / self.temperature, mask.any(2), self.iterations)
        return merge_blocks(sorted_attention(q, k, v, mask, s, self.dims.dropout, fold_in_keys(rng_keys, 1)), length)
