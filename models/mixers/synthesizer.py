"""Synthesizer (Tay et al., 2020, arXiv:2005.00743): attention logits that do not compare tokens.

    y_i = sum_j a_ij v_j,    a_i = softmax_j(s_ij) over the real keys j,    of every head

    random             s = R                    a table of max_len x max_len, the same for every input
    factorized_random  s = R1 R2^T              tables of max_len x rank
    dense              s_i = W2 relu(W1 x_i + b)                       W2 of max_len columns
    factorized_dense   s_ij = A_i[j // size] B_i[j % size],    (A_i, B_i) = W2 relu(W1 x_i + b)

Tables and columns are made for max_len and cut to the length, so position j keeps its entry. The paper's best
models mix s with the dot product, whose projections exist only then: `dot_product` = weighted is its learned
(1 - alpha) q_i . k_j / sqrt(K) + alpha s_ij, alpha from 1/2; = sum is the plain sum. Mixtures of two
synthesizers are not expressed. Time and memory are quadratic in all forms, and random has H max_len^2 parameters.

The default is random, trained, without dot product: what the paper is known for, and the mode that the reference
suite ran on every task, there with dot_product = sum. (Its settings for other modes never reach the model, and
without dot product it forgets the mask.) rank = 8 is the paper's; the suite's module has 32. Tables start
xavier-uniform with heads counted in the fan, as in the suite (the authors' mesh_tensorflow: smaller still), so
that attention starts all but uniform: with trained = false, the paper's fixed random, it remains nearly a mean.

W2 is each head's own, which gives the paper's D^2 + D max_len parameters; the codes share one among heads. Of the
paper's tiling, where both A and B are repeated, this file takes the outer product, in which no pair occurs
twice; size = ceil(max_len / blocks), and blocks = None is ceil(sqrt(max_len)).
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from models.core import Buffer, Dims, projection
from models.dropout import attention_dropout
from models.ops import masked_softmax, scores

COMPLEXITY = ("L^2", "L^2")


def outer_logits(parts: jax.Array, blocks: int, length: int) -> jax.Array:
    """parts [..., N + S], A beside B, N = blocks -> [..., length]: A[j // S] * B[j % S]."""
    a, b = parts[..., :blocks, None], parts[..., None, blocks:]
    return (a * b).reshape(*parts.shape[:-1], -1)[..., :length]


class Synthesizer(nnx.Module):
    """Attention by a table or by the query's token alone, with dropout of the weights. Options: see the file's top."""

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
        for name, value, valid in (
            ("mode", mode, ("random", "factorized_random", "dense", "factorized_dense")),
            ("dot_product", dot_product, ("none", "weighted", "sum")),
        ):
            if value not in valid:
                raise ValueError(f"Synthesizer: {name} {value!r} is not one of {', '.join(valid)}")
        for name, size in (("rank", rank), ("blocks", blocks)):
            if size is not None and size < 1:
                raise ValueError(f"Synthesizer: {name} {size} is not at least 1")
        if not trained and mode not in ("random", "factorized_random"):
            raise ValueError(f"Synthesizer: mode {mode} has no table to fix; trained=false wants a random mode")

        self.dims, self.mode, self.dot_product = dims, mode, dot_product
        length, heads, width = dims.max_len, dims.num_heads, dims.head_dim
        xavier = nnx.initializers.xavier_uniform
        kind = nnx.Param if trained else Buffer
        if mode == "random":
            self.table = kind(xavier()(rngs.params(), (heads, length, length)))
        elif mode == "factorized_random":
            rank = min(rank, length)
            self.left = kind(xavier()(rngs.params(), (heads, length, rank)))
            self.right = kind(xavier()(rngs.params(), (heads, rank, length)))
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
            self.alpha = nnx.Param(jnp.zeros(()))  # of a sigmoid, which is a softmax of two weights
        self.value = projection(dims, dims.d_model, dims.qkv_dim, bias=dims.bias, rngs=rngs)
        self.output = projection(dims, dims.qkv_dim, dims.d_model, bias=dims.bias, rngs=rngs)

    def synthetic(self, x: jax.Array) -> jax.Array:
        """Logits of x [B, L, D]: [1 or B, H, L, L], at least float32; 1 where they are the same for every input."""
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

    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: jax.Array | None = None) -> jax.Array:
        heads = (*x.shape[:2], self.dims.num_heads, self.dims.head_dim)
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
