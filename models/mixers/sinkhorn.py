"""Sparse Sinkhorn attention (Tay et al., 2020, arXiv:2002.11296): a block attends to itself and to one sorted to it.

    y_i = softmax(q_i . [psi(K)_u ; K_u] / sqrt(K)) [psi(V)_u ; V_u],    i in block u,    psi(X)_u = sum_w S_uw X_w

    S = sinkhorn((R + Gumbel noise) / tau),    R_u = P(sum of the keys of block u)

Sinkhorn's balancing subtracts, in the log domain, the logsumexp of rows and of columns in turn, so S comes near to a
permutation of the blocks. Noise is added in training only. Blocks have near sqrt(L) positions by default,
so time grows as L^1.5 (gathering L sqrt(L), as the attention) and so does memory.

Padding: a block without real tokens has -inf in its row and column of R, off the diagonal; a sorted key is the mean
of the real ones alone, and its logit gains the logarithm of their share of the mass, so padding inside a block weighs
nothing. Without padding both are the identity. P has one output for each block of `dims.max_len`.
The paper's P reads the sum of the block's inputs; here it is the suite's, one linear map of the sum of the block's
keys, shared by the heads. tau = 0.75 and 7 iterations are those of lucidrains/sinkhorn-transformer, and so is
the one softmax over sorted and own keys.

The suite's code (google-research/long-range-arena) differs in more than that, and `form="lra"` is what it computes:
its einsum sums the block index of K and that of S apart, so with rows of S summing to 1 every "sorted" block is
the plain sum of all blocks, and the sort net neither acts nor learns (here it has no parameters then); it
attends over strided positions, as its local attention does; two softmaxes are added, one over the own block, one
over those sums. Not kept: it shifts the padding mask as in `local`, and sums padded keys too. Its blocks have 50
positions, 64 on Image and Pathfinder (`window`).
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from models.block_attention import block_attention, block_weights, cut, join, strided_attention
from models.core import Dims, QKVAttention
from models.dropout import fold_in_keys
from models.ops import boolean_mask, scores

COMPLEXITY = ("L^1.5", "L^1.5")
FAR = -1e9  # exp(FAR) is 0, yet differences of it are finite
LEAST = 1e-9  # a sorted slot whose real share is smaller holds padding


def balance(r: jax.Array, real: jax.Array, iterations: int) -> jax.Array:
    """r [B, H, N, N], real [B, N] -> S of that shape: rows and columns near 1; the identity where not real."""
    diagonal = jnp.eye(r.shape[-1], dtype=bool)[None, None]
    both = (real[:, :, None] & real[:, None, :])[:, None]
    r = jnp.where(both, r, jnp.where(diagonal, 0, FAR))

    def step(_: int, r: jax.Array) -> jax.Array:
        r = r - jax.nn.logsumexp(r, -1, keepdims=True)
        return r - jax.nn.logsumexp(r, -2, keepdims=True)

    return jnp.exp(jax.lax.fori_loop(0, iterations, step, r))


def sorted_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, s: jax.Array, rate: float, rng_keys: jax.Array | None
) -> jax.Array:
    """q, k, v [B, N, S, H, K], mask [B, N, S], s [B, H, N, N] -> [B, N, S, H, K]: own keys beside the sorted ones."""
    mask = boolean_mask(mask)
    share = jnp.einsum("bhuw,bws->bush", s, mask.astype(s.dtype)) / s.sum(-1).swapaxes(1, 2)[:, :, None]
    there = share > LEAST
    share = jnp.where(there, share, 1)

    def beside(x: jax.Array) -> jax.Array:
        """The sorted block [B, N, S, H, K], then the own one."""
        far = jnp.einsum("bhuw,bwshk->bushk", s.astype(x.dtype), jnp.where(mask[..., None, None], x, 0))
        return jnp.concatenate([far / share[..., None].astype(x.dtype), x], 2)

    bias = jnp.concatenate([jnp.log(share), jnp.zeros_like(share)], 2)  # [B, N, T, H], T = 2 S
    visible = jnp.concatenate([there, jnp.broadcast_to(mask[..., None], there.shape)], 2)
    bias, visible = (x.swapaxes(2, 3)[:, :, :, None] for x in (bias, visible))
    weights = block_weights(scores("bnshk,bnthk->bnhst", q, beside(k)) + bias, visible, rate, rng_keys)
    return jnp.einsum("bnhst,bnthv->bnshv", weights.astype(v.dtype), beside(v))


def summed_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, stride: int, rate: float, rng_keys: jax.Array | None
) -> jax.Array:
    """What the suite computes. q, k, v [B, L, H, K], mask [B, L] -> [B, L, H, K]; keys are summed over `stride`."""
    mask = boolean_mask(mask)
    k_sum, v_sum = (cut(jnp.where(mask[..., None, None], x, 0), stride).sum(2)[:, None] for x in (k, v))
    visible = cut(mask, stride).any(2)[:, None, None, None]
    far = block_attention(q[:, None], k_sum, v_sum, visible, rate, fold_in_keys(rng_keys, 2))[:, 0]
    return far + strided_attention(q, k, v, mask, stride, rate, fold_in_keys(rng_keys, 1))


class Sinkhorn(QKVAttention):
    """Attention within blocks of `window` positions (None: the root of `dims.max_len`) and to one block sorted there.

    form: paper, or lra, the suite's; iterations and temperature (tau) are of the balancing, in the paper's form.
    Where one block takes all of `dims.max_len` there is nothing to sort: this is softmax, and P gets no gradient.
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
        if form not in ("paper", "lra"):
            raise ValueError(f"sinkhorn: form={form!r} is not one of paper, lra")
        if (window is not None and window < 1) or iterations < 1 or temperature <= 0:
            message = "window and iterations must be 1 or more, temperature positive"
            raise ValueError(f"sinkhorn: {window=}, {iterations=}, {temperature=}: {message}")
        super().__init__(dims, rngs=rngs)
        self.size = min(math.ceil(math.sqrt(dims.max_len)) if window is None else window, dims.max_len)
        self.count = math.ceil(dims.max_len / self.size)
        self.iterations, self.temperature = iterations, temperature
        xavier = nnx.initializers.xavier_uniform()
        self.sort = nnx.Param(xavier(rngs.params(), (dims.head_dim, self.count))) if form == "paper" else None

    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: jax.Array | None
    ) -> jax.Array:
        if self.sort is None:
            return summed_attention(q, k, v, mask, self.count, self.dims.dropout, rng_keys)
        length, accum_dtype = q.shape[1], jnp.promote_types(q.dtype, jnp.float32)
        q, k, v, mask = (cut(x, self.size) for x in (q, k, v, mask))
        sums = jnp.where(mask[..., None, None], k, 0).sum(2, dtype=accum_dtype)  # [B, N, H, K]
        n = sums.shape[1]
        r = jnp.einsum("bnhk,km->bhnm", sums, self.sort[...].astype(accum_dtype))[..., :n]
        if rng_keys is not None:  # drawn for all blocks of max_len, whatever the length
            shape = (self.dims.num_heads, self.count, self.count)
            r = (
                r
                + jax.vmap(lambda key: jax.random.gumbel(key, shape, accum_dtype))(fold_in_keys(rng_keys, 0))[
                    :, :, :n, :n
                ]
            )
        s = balance(r / self.temperature, mask.any(2), self.iterations)
        return join(sorted_attention(q, k, v, mask, s, self.dims.dropout, fold_in_keys(rng_keys, 1)), length)
