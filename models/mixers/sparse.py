"""Sparse attention over a fixed pattern (Child et al., 2019, arXiv:1904.10509), bidirectional for an encoder.

    y_i = sum_j a_ij v_j,    a_i = softmax_j(q_i . k_j / sqrt(K)) over the real keys j in F1(i) + F2(i)

    fixed:    F1 = {j: floor(j / l) = floor(i / l)},    F2 = {j: j mod l >= l - c}
    strided:  F1 = {j: |i - j| <= l},                   F2 = {j: (i - j) mod l = 0}

Every head uses the union of both sets, the "merged" form of the paper, which it used on EnWik8 (l = 128, c = 32). Only
keys of the pattern are gathered: a query's own block or neighbourhood, and columns elsewhere. Each key is counted once
under one softmax. A query has l + c L/l or 3 l + L/l logits, so time and memory are O(L^1.5) for l near sqrt(L), the
default. The paper's sets are causal (j <= i), which an encoder does not need. All heads see the same columns; the
paper prefers different columns per head.

Deviations from the reference suite (google-research/long-range-arena): it builds a dense L x L mask. Its pattern is
causal in the encoder too, and its F2 also contains j mod l = 0. With CLS pooling, the CLS vector sees all positions
and is seen by all, and the pattern starts after it; a causal CLS at position 0 would otherwise see only itself. The
options `stride=50 columns=10 causal=true` reproduce its rows, with `global_first=true` for protocols with CLS pooling.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.block_attention import block_attention, block_weights, merge_blocks, split_blocks, with_neighbours
from models.core import MAX_SIZE, Dims, QKVAttention, check_range
from models.dropout import fold_in_keys
from models.ops import boolean_mask, scores, zero_padding

COMPLEXITY = ("L^1.5", "L^1.5")

KeySet = tuple[str, Array, Array, Array]  # axes of k and v before H (last: key index), k, v, visible [B, N, 1, S, T]


def sparse_attention(
    q: Array, k: Array, v: Array, mask: Array, *, kind: str, stride: int, columns: int, causal: bool = False,
    global_first: bool = False, rate: float = 0.0, rng_keys: Array | None = None,
) -> Array:  # fmt: skip
    """Compute sparse attention with l = stride and c = columns.

    Args:
      q, k:         [B, L, H, K]
      v:            [B, L, H, V]
      mask:         [B, L] bool, True = real token
      kind:         fixed or strided
      causal:       only keys j <= i, with the F2 of the reference suite
      global_first: position 0 sees all positions and is seen by all
      rate:         dropout rate of the weights
      rng_keys:     [B], or None for no dropout

    Returns:
      [B, L, H, V], dtype of v
    """
    mask = boolean_mask(mask)
    v = zero_padding(v, mask)
    start = int(global_first)
    qs, ks, vs, masks = (split_blocks(x[:, start:], stride) for x in (q, k, v, mask))  # [B, N, S, ...], S = l
    key_sets = _strided(ks, vs, masks, causal) if kind == "strided" else _fixed(ks, vs, masks, columns, causal)
    if global_first:  # before the set whose size grows with L, so that key indices for dropout stay the same
        key_sets = [("bj", k[:, :1], v[:, :1], mask[:, :1][:, None, None, None]), *key_sets]
    shape = (*masks.shape[:2], 1, stride)
    logits = [scores(f"bnshk,{axes}hk->bnhs{axes[-1]}", qs, k) for axes, k, _, _ in key_sets]
    visible = [jnp.broadcast_to(part, (*shape, part.shape[-1])) for *_, part in key_sets]
    weights = block_weights(jnp.concatenate(logits, -1), jnp.concatenate(visible, -1), rate, fold_in_keys(rng_keys, 0))
    ends = list(itertools.accumulate(part.shape[-1] for *_, part in key_sets))[:-1]
    y = jnp.zeros((), v.dtype)
    for (axes, _, values, _), part in zip(key_sets, jnp.split(weights.astype(v.dtype), ends, -1), strict=True):
        y = y + jnp.einsum(f"bnhs{axes[-1]},{axes}hv->bnshv", part, values)
    y = merge_blocks(y, q.shape[1] - start)
    if not global_first:
        return y
    visible_first = mask[:, None, None, None, :]
    first = block_attention(q[:, None, :1], k[:, None], v[:, None], visible_first, rate, fold_in_keys(rng_keys, 1))
    return jnp.concatenate([first[:, 0], y], 1)


def _fixed(k: Array, v: Array, mask: Array, columns: int, causal: bool) -> list[KeySet]:
    """Return the own block and the last columns of other blocks; causal: of earlier blocks, with their first column."""
    b, n, s = mask.shape
    own_visible = mask[:, :, None, None, :]
    if causal:
        own_visible = own_visible & jnp.tril(jnp.ones((s, s), bool))[None, None, None]

    def select_columns(x: Array) -> Array:  # [B, N, S, ...] -> [B, J, ...]
        x = jnp.concatenate([x[:, :, : int(causal and columns < s)], x[:, :, s - columns :]], 2)
        return x.reshape(b, -1, *x.shape[3:])

    column_mask = select_columns(mask)
    column_block = jnp.repeat(jnp.arange(n), column_mask.shape[1] // n if n else 0)[None, :]
    block = jnp.arange(n)[:, None]
    other = column_block < block if causal else column_block != block
    column_visible = column_mask[:, None, None, None, :] & other[None, :, None, None, :]
    return [("bnt", k, v, own_visible), ("bj", select_columns(k), select_columns(v), column_visible)]


def _strided(k: Array, v: Array, mask: Array, causal: bool) -> list[KeySet]:
    """Return the positions within distance l, and the same index in all blocks beyond the neighbouring ones."""
    _, n, s = mask.shape
    k_near, v_near, mask_near = (with_neighbours(x, 1, 0 if causal else 1) for x in (k, v, mask))
    distance = jnp.arange(s)[:, None] + s - jnp.arange(mask_near.shape[-1])[None, :]  # i - j
    within = (distance <= s) & (distance >= (0 if causal else -s))
    steps = jnp.arange(n)[:, None] - jnp.arange(n)[None, :]
    beyond = steps > 1 if causal else jnp.abs(steps) > 1  # one block further is distance l, which F1 contains
    visible_near = mask_near[:, :, None, None, :] & within[None, None, None]
    k, v, mask = (x.swapaxes(1, 2) for x in (k, v, mask))  # [B, S, U, ...] for U blocks
    visible_far = mask[:, None, None] & beyond[None, :, None, None, :]
    return [("bnt", k_near, v_near, visible_near), ("bsu", k, v, visible_far)]


class Sparse(QKVAttention):
    """Attention of the Sparse Transformer.

    kind:         fixed or strided
    stride:       l; None: the square root of dims.max_len
    columns:      c, for kind = fixed
    causal:       a position sees only itself and earlier positions, with the F2 of the reference suite
    global_first: position 0, the CLS vector, sees all positions and is seen by all
    """

    def __init__(
        self,
        dims: Dims,
        *,
        kind: Literal["fixed", "strided"] = "fixed",
        stride: int | None = None,
        columns: int = 8,
        causal: bool = False,
        global_first: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        check_range(1, MAX_SIZE, stride=stride, columns=columns)
        if stride is not None and kind == "fixed" and columns > stride:
            raise ValueError(f"option columns={columns}: must not exceed stride={stride}, the size of a block")
        super().__init__(dims, rngs=rngs)
        self.stride = min(math.ceil(math.sqrt(dims.max_len)) if stride is None else stride, dims.max_len)
        self.kind, self.columns = kind, min(columns, self.stride)
        self.causal, self.global_first = causal, global_first

    def attend(self, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None) -> Array:
        return sparse_attention(
            q, k, v, mask, kind=self.kind, stride=self.stride, columns=self.columns, causal=self.causal,
            global_first=self.global_first, rate=self.dims.dropout, rng_keys=rng_keys,
        )  # fmt: skip
