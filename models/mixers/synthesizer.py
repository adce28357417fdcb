"""Synthesizer (Tay et al., 2020, arXiv:2005.00743): attention logits that do not compare tokens.

    y_i = sum_j a_ij v_j,    a_i = softmax_j(s_ij) over the real keys j,    for each head

    random             s = R                    a table max_len x max_len, the same for every input
    factorized_random  s = R1 R2^T              tables max_len x rank
    dense              s_i = W2 relu(W1 x_i + b)                       W2 with max_len columns
    factorized_dense   s_ij = A_i[j // size] B_i[j % size],    (A_i, B_i) = W2 relu(W1 x_i + b)

Tables and columns have the size max_len and are cut to the input length, so the entry of position j does not depend on
the length. The best models of the paper combine s with the dot product, whose projections exist only in that case:
`dot_product` = weighted is the learned combination (1 - alpha) q_i . k_j / sqrt(K) + alpha s_ij with alpha initially
1/2, and sum is the plain sum. Combinations of two synthesizers are not available. Time and memory are quadratic in all
modes, and random has H max_len^2 parameters.

The default mode is random, trained, without dot product. It is the best-known form of the paper and the mode that the
reference suite (google-research/long-range-arena) ran on every task, with dot_product = sum. In that suite the settings
for other modes never reach the model, and the mode without dot product ignores the mask. rank = 8 is the paper's value;
the suite's module has 32. Tables are initialised Xavier-uniform with heads counted in the fan, as in the suite (in the
authors' mesh_tensorflow code they are still smaller). Attention is therefore almost uniform at initialisation, and
stays close to a mean with trained = false, the fixed random form of the paper.

Deviations: each head has its own W2, which gives the paper's D^2 + D max_len parameters; both codes share one among
heads. In the paper's tiling both A and B are repeated. Here they form an outer product, in which no pair occurs twice,
with size = ceil(max_len / blocks), where blocks = None means ceil(sqrt(max_len)).
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.core import MAX_SIZE, Buffer, Dims, check_range, projection
from models.dropout import attention_dropout
from models.ops import masked_softmax, scores, zero_padding

COMPLEXITY = ("L^2", "L^2")


def outer_logits(factors: Array, blocks: int, length: int) -> Array:
    """Compute A[j // S] * B[j % S] from factors [..., N + S], A followed by B, with N = blocks -> [..., length]."""
    a, b = factors[..., :blocks, None], factors[..., None, blocks:]
    return (a * b).reshape(*factors.shape[:-1], -1)[..., :length]


class Synthesizer(nnx.Module):
    """Attention by a table or by the query's token alone, with dropout of the weights.

    mode:        source of the logits, see the module
    dot_product: how the logits are combined with those of softmax attention: none, weighted or sum
    trained:     false: the tables of the random modes are fixed
    rank:        of factorized_random
    blocks:      of factorized_dense; None: the square root of dims.max_len
    """

    def __init__(
        self,
        dims: Dims,
        *,
        mode: Literal["random", "factorized_random", "dense", "factorized_dense"] = "random",
        dot_product: Literal["none", "weighted", "sum"] = "none",
        trained: bool = True,
        rank: int = 8,
        blocks: int | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        check_range(1, MAX_SIZE, rank=rank, blocks=blocks)
        if not trained and mode not in ("random", "factorized_random"):
            raise ValueError(f"option trained=false: mode={mode} has no table; it needs random or factorized_random")

        self.dims, self.mode, self.dot_product = dims, mode, dot_product
        length, heads, width = dims.max_len, dims.num_heads, dims.head_dim
        xavier = nnx.initializers.xavier_uniform
        variable = nnx.Param if trained else Buffer
        if mode == "random":
            self.table = variable(xavier()(rngs.params(), (heads, length, length)))
        elif mode == "factorized_random":
            rank = min(rank, length)
            self.left = variable(xavier()(rngs.params(), (heads, length, rank)))
            self.right = variable(xavier()(rngs.params(), (heads, rank, length)))
        else:
            self.blocks = min(blocks or math.isqrt(length - 1) + 1, length)
            size = length if mode == "dense" else self.blocks + -(-length // self.blocks)
            self.hidden = projection(dims, dims.d_model, dims.qkv_dim, bias=True, rngs=rngs)
            self.columns = nnx.Param(xavier(batch_axis=(0,))(rngs.params(), (heads, width, size)))
        if dot_product != "none":
            self.query, self.key = (
                projection(dims, dims.d_model, dims.qkv_dim, bias=dims.bias, rngs=rngs) for _ in range(2)
            )
        if dot_product == "weighted":
            self.alpha = nnx.Param(jnp.zeros(()))  # before a sigmoid, which equals a softmax of two weights
        self.value = projection(dims, dims.d_model, dims.qkv_dim, bias=dims.bias, rngs=rngs)
        self.output = projection(dims, dims.qkv_dim, dims.d_model, bias=dims.bias, rngs=rngs)

    def synthetic(self, x: Array) -> Array:
        """Compute the logits s for x [B, L, D]: [B, H, L, L], or [1, H, L, L] in random modes; at least float32."""
        length, accum_dtype = x.shape[1], jnp.promote_types(x.dtype, jnp.float32)
        if self.mode == "random":
            return self.table[:, :length, :length].astype(accum_dtype)[None]
        if self.mode == "factorized_random":
            left, right = self.left[:, :length].astype(accum_dtype), self.right[..., :length].astype(accum_dtype)
            return jnp.einsum("him,hmj->hij", left, right)[None]
        hidden = jax.nn.relu(self.hidden(x)).reshape(*x.shape[:2], self.dims.num_heads, self.dims.head_dim)
        columns = self.columns[..., :length] if self.mode == "dense" else self.columns[...]
        logits = jnp.einsum("bihk,hkj->bhij", hidden.astype(accum_dtype), columns.astype(accum_dtype))
        return logits if self.mode == "dense" else outer_logits(logits, self.blocks, length)

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        heads = (*x.shape[:2], self.dims.num_heads, self.dims.head_dim)
        x = zero_padding(x, mask)
        logits = self.synthetic(x)
        if self.dot_product != "none":
            q, k = self.query(x).reshape(heads), self.key(x).reshape(heads)
            dot = scores("bihk,bjhk->bhij", q, k)
            alpha = jax.nn.sigmoid(self.alpha[...]) if self.dot_product == "weighted" else None
            logits = dot + logits if alpha is None else (1 - alpha) * dot + alpha * logits
        weights = attention_dropout(masked_softmax(logits, mask[:, None, None, :]), self.dims.dropout, rng_keys)
        v = self.value(x).reshape(heads)
        y = jnp.einsum("bhij,bjhv->bihv", weights.astype(v.dtype), v)
        return self.output(y.reshape(*x.shape[:2], self.dims.qkv_dim))
