"""Sparse attention over a fixed pattern (Child et al., 2019, arXiv:1904.10509), two-sided for an encoder.

    y_i = sum_j a_ij v_j,    a_i = softmax_j(q_i . k_j / sqrt(K)) over the real keys j in F1(i) + F2(i)

    fixed:    F1 = {j: floor(j / l) = floor(i / l)},    F2 = {j: j mod l >= l - c}
    strided:  F1 = {j: |i - j| <= l},                   F2 = {j: (i - j) mod l = 0}

The union of both sets in every head is the paper's "merged" form, which it used on EnWik8 (l = 128, c = 32).
Only keys of the pattern are gathered, a query's own block or neighbourhood and the columns elsewhere, each
once, under one softmax: l + c L/l or 3 l + L/l logits a query, so L^1.5 in all for l near sqrt(L), the default.
The paper's sets are causal (j <= i); an encoder need not be. All heads see the same columns; the paper
finds it preferable that heads see different ones.

The suite (google-research/long-range-arena) builds a dense L x L mask, which saves nothing; its pattern is causal
in the encoder too; its F2 also has j mod l = 0; and where it pools by CLS, that vector sees all, is seen by all, and
the pattern starts after it (without this a causal CLS at place 0 would see itself alone). Its rows are
`stride=50 columns=10 causal=true`, and `global_first=true` where a protocol pools by CLS.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from models.block_attention import block_attention, block_weights, cut, join, neighbourhood
from models.core import Dims, QKVAttention
from models.dropout import fold_in_keys
from models.ops import boolean_mask, scores

COMPLEXITY = ("L^1.5", "L^1.5")

Part = tuple[str, jax.Array, jax.Array, jax.Array]  # axes of the keys, the last being the slot; k, v; visible


def sparse_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    *,
    kind: str,
    stride: int,
    columns: int,
    causal: bool = False,
    global_first: bool = False,
    rate: float = 0.0,
    rng_keys: jax.Array | None = None,
) -> jax.Array:
    """q, k [B, L, H, K], v [B, L, H, V], mask [B, L], rng_keys [B] or None -> [B, L, H, V]. l = stride, c = columns."""
    mask = boolean_mask(mask)
    start = int(global_first)
    qs, ks, vs, masks = (cut(x[:, start:], stride) for x in (q, k, v, mask))  # [B, N, S, ...], S = l
    parts = _strided(ks, vs, masks, causal) if kind == "strided" else _fixed(ks, vs, masks, columns, causal)
    if global_first:  # before the part whose width grows with L: a slot's dropout must not move
        parts = [("bj", k[:, :1], v[:, :1], mask[:, :1][:, None, None, None]), *parts]
    shape = (*masks.shape[:2], 1, stride)
    logits = [scores(f"bnshk,{at}hk->bnhs{at[-1]}", qs, k) for at, k, _, _ in parts]
    visible = [jnp.broadcast_to(seen, (*shape, seen.shape[-1])) for *_, seen in parts]
    weights = block_weights(jnp.concatenate(logits, -1), jnp.concatenate(visible, -1), rate, fold_in_keys(rng_keys, 0))
    ends = list(itertools.accumulate(seen.shape[-1] for *_, seen in parts))[:-1]
    y = jnp.zeros((), v.dtype)
    for (at, _, v_of, _), part in zip(parts, jnp.split(weights.astype(v.dtype), ends, -1), strict=True):
        y = y + jnp.einsum(f"bnhs{at[-1]},{at}hv->bnshv", part, v_of)
    y = join(y, q.shape[1] - start)
    if not global_first:
        return y
    seen = mask[:, None, None, None, :]
    first = block_attention(q[:, None, :1], k[:, None], v[:, None], seen, rate, fold_in_keys(rng_keys, 1))
    return jnp.concatenate([first[:, 0], y], 1)


def _fixed(k: jax.Array, v: jax.Array, mask: jax.Array, columns: int, causal: bool) -> list[Part]:
    """The block itself, and the last columns of the other blocks (causal: of those before, and their first column)."""
    b, n, s = mask.shape
    near = mask[:, :, None, None, :]
    if causal:
        near = near & jnp.tril(jnp.ones((s, s), bool))[None, None, None]

    def summary(x: jax.Array) -> jax.Array:  # [B, N, S, ...] -> [B, J, ...]
        x = jnp.concatenate([x[:, :, : int(causal and columns < s)], x[:, :, s - columns :]], 2)
        return x.reshape(b, -1, *x.shape[3:])

    seen = summary(mask)
    of = jnp.repeat(jnp.arange(n), seen.shape[1] // n if n else 0)[None, :]  # the block of a column
    block = jnp.arange(n)[:, None]
    other = of < block if causal else of != block
    far = seen[:, None, None, None, :] & other[None, :, None, None, :]
    return [("bnt", k, v, near), ("bj", summary(k), summary(v), far)]


def _strided(k: jax.Array, v: jax.Array, mask: jax.Array, causal: bool) -> list[Part]:
    """The blocks around, cut to distance l, and the same place in the blocks beyond them."""
    _, n, s = mask.shape
    k_near, v_near, real = (neighbourhood(x, 1, 0 if causal else 1) for x in (k, v, mask))
    distance = jnp.arange(s)[:, None] + s - jnp.arange(real.shape[-1])[None, :]  # i - j
    within = (distance <= s) & (distance >= (0 if causal else -s))
    steps = jnp.arange(n)[:, None] - jnp.arange(n)[None, :]
    beyond = steps > 1 if causal else jnp.abs(steps) > 1  # one step is distance l: among the near
    near = real[:, :, None, None, :] & within[None, None, None]
    k, v, mask = (x.swapaxes(1, 2) for x in (k, v, mask))  # [B, S, U, ...]: keys of one place side by side
    far = mask[:, None, None] & beyond[None, :, None, None, :]
    return [("bnt", k_near, v_near, near), ("bsu", k, v, far)]


class Sparse(QKVAttention):
    """Sparse Transformer's attention. `stride` is l (None: the root of `dims.max_len`), `columns` is c (fixed only).

    causal: a position sees itself and those before it, with the suite's F2; global_first: position 0, the CLS
    vector, sees all and is seen by all.
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
        if kind not in ("fixed", "strided"):
            raise ValueError(f"sparse: kind={kind!r} is not one of fixed, strided")
        if columns < 1 or (stride is not None and stride < 1):
            raise ValueError(f"sparse: stride={stride}, columns={columns}: give numbers of positions, 1 or more")
        if stride is not None and kind == "fixed" and columns > stride:
            raise ValueError(f"sparse: columns={columns} do not fit into blocks of stride={stride}; give fewer")
        super().__init__(dims, rngs=rngs)
        self.stride = min(math.ceil(math.sqrt(dims.max_len)) if stride is None else stride, dims.max_len)
        self.kind, self.columns = kind, min(columns, self.stride)
        self.causal, self.global_first = causal, global_first

    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: jax.Array | None
    ) -> jax.Array:
        return sparse_attention(
            q, k, v, mask, kind=self.kind, stride=self.stride, columns=self.columns, causal=self.causal,
            global_first=self.global_first, rate=self.dims.dropout, rng_keys=rng_keys,
        )  # fmt: skip
