"""Reformer: attention within buckets of a locality-sensitive hash (Kitaev et al., 2020, arXiv:2001.04451).

    y_i = sum_{j in P_i} exp(q_i . k_j - p_ij) v_j / sum_{j in P_i} exp(q_i . k_j - p_ij),    k_j = q_j / |q_j|

Queries and keys share one projection. The bucket of a position is the index of the largest entry of (qR, -qR), with
random R. Positions are sorted by (bucket, position) and split into chunks. P_i are the positions of i's bucket in i's
chunk and in the previous chunk. p_ii = 1e5, so that i attends to itself only if there is no other position; all other
p_ij are 0. With several rounds, P_i is the union over the rounds: rounds are weighted by their normalisers, and p_ij is
the logarithm of the number of rounds in which i sees j, counted from the chunks of every round. R is drawn for each
example and step in training, and is a `Buffer` in evaluation. Above 128 buckets, a hash consists of two hashes with
about the square root of the number of buckets each, so that the cost of hashing does not grow like L^2. If one chunk
holds max_len, there is one bucket and no hashing.

Deviations from the paper and from other code:
- Padding is sorted to the end and masked. The first chunk has no previous chunk; other code wraps around to the last.
- In bfloat16 the shared projection is float32, because rounding would move positions to other buckets.
- The residual connections of the paper are reversible, those of this encoder are not.
- The authors' configurations (trax) and transformers attend to all positions of both chunks: `across_buckets`.
  transformers also counts a key once for every round: `duplicates`.

`official` reproduces the reference suite (google-research/long-range-arena): ten buckets in chunks of a tenth of
max_len (quadratic), and both options above. Keys are not normalised, logits are multiplied by sqrt(K), p_ii is 0, and
there is no dropout. R is the same for every head, layer, example and step. Heads and positions are mixed, because
[H, L, K] is read as [L, H K]. There is no output projection, and the width is d_model instead of qkv_dim. Not
reproduced: it attends to padding and wraps around.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.block_attention import with_neighbours
from models.core import MAX_SIZE, Buffer, Dims, check_range, projection
from models.dropout import attention_dropout, fold_in_keys
from models.ops import boolean_mask, zero_padding

COMPLEXITY = ("L log L", "L")
MAX_SINGLE_HASH = 128  # largest number of buckets of a single hash
SELF_PENALTY = 1e5  # subtracted from the logit of a position with itself


def lsh_buckets(q: Array, rotations: Array, factors: tuple[int, ...]) -> Array:
    """Compute the bucket of each position in R rounds.

    Args:
      q:         [B, H, L, K]
      rotations: [B, R, H, K, sum(factors) / 2]
      factors:   numbers of buckets of the combined hashes

    Returns:
      int32 [B, R, H, L] below prod(factors)
    """
    rotated, start = jnp.einsum("bhlk,brhkm->brhlm", q, rotations), 0
    bucket = jnp.zeros(rotated.shape[:-1], jnp.int32)
    for count in factors:
        part, start = rotated[..., start : start + count // 2], start + count // 2
        top = jnp.maximum(part.max(-1), -part.min(-1))[..., None]
        index = jnp.arange(count // 2, dtype=jnp.int32)[None, None, None, None]
        # The index of the maximum; several times faster on a CPU than argmax.
        matches = jnp.maximum(jnp.where(part == top, index, -1), jnp.where(part == -top, index + count // 2, -1))
        bucket = bucket * count + matches.max(-1)
    return bucket


def lsh_attention(
    qk: Array, v: Array, buckets: Array, mask: Array, *, chunk: int, count: int,
    across_buckets: bool = False, duplicates: bool = False, official: bool = False,
    rate: float = 0.0, rng_keys: Array | None = None,
) -> Array:  # fmt: skip
    """Compute attention within sorted chunks of S = chunk positions in R rounds; logits and sums in at least float32.

    Args:
      qk:             [B, H, L, K], shared queries and keys
      v:              [B, H, L, V]
      buckets:        int [B, R, H, L] below `count`
      mask:           [B, L] bool, True = real token
      across_buckets: attend to all positions of both chunks
      duplicates:     count a key once for every round in which it is seen
      official:       no normalisation of keys and no self penalty, logits multiplied by sqrt(K)
      rate:           dropout rate of the weights
      rng_keys:       [B], or None for no dropout

    Returns:
      [B, H, L, V], dtype of v
    """
    mask = boolean_mask(mask)
    (b, r, h, length), width, dtype = buckets.shape, qk.shape[-1], v.dtype
    accum_dtype = jnp.promote_types(qk.dtype, jnp.float32)
    n = -(-length // chunk)
    rows, padded_length, padding = jnp.arange(b * r * h)[:, None], n * chunk, n * chunk - length
    buckets = jnp.where(mask[:, None, None], buckets, count)
    buckets = jnp.pad(buckets, ((0, 0), (0, 0), (0, 0), (0, padding)), constant_values=count)
    position = jnp.broadcast_to(jnp.arange(padded_length, dtype=jnp.int32)[None], (b * r * h, padded_length))
    sort_keys = jax.lax.sort(buckets.reshape(position.shape) * padded_length + position, is_stable=False)
    order, bucket = sort_keys % padded_length, sort_keys // padded_length
    inverse = jnp.zeros_like(order).at[rows, order].set(position, unique_indices=True, mode="promise_in_bounds")

    def take(x: Array, index: Array) -> Array:  # [B R H, L, ...]; indices are unique, so the gradient needs no sums
        return x.at[rows, index].get(unique_indices=True, mode="promise_in_bounds")

    def split_chunks(x: Array) -> Array:  # [B R H, L, ...] -> [B R H, N, S, ...]
        return x.reshape(b * r * h, n, chunk, *x.shape[2:])

    x = jnp.pad(jnp.concatenate([qk, v], -1), ((0, 0), (0, 0), (0, padding), (0, 0)))
    x = jnp.broadcast_to(x[:, None], (b, r, *x.shape[1:])).reshape(b * r * h, padded_length, -1)
    q, v = jnp.split(split_chunks(take(x, order)), [width], -1)
    k = q
    if not official:
        k = (q * jax.lax.rsqrt((q.astype(accum_dtype) ** 2).sum(-1, keepdims=True) + 1e-12)).astype(dtype)
    k, v = with_neighbours(k, 1, 0), with_neighbours(v, 1, 0)  # [B R H, N, 2S, ...]
    key_bucket = with_neighbours(split_chunks(bucket + 1), 1, 0)[:, :, None]  # counted from 1; 0 before the first chunk
    visible = (key_bucket > 0) & (key_bucket <= count)
    if not across_buckets:
        visible &= key_bucket == split_chunks(bucket + 1)[..., None]
    logits = jnp.einsum("gnsk,gntk->gnst", q, k, preferred_element_type=accum_dtype)
    is_self = jnp.eye(chunk, 2 * chunk, chunk, dtype=accum_dtype)[None, None]
    logits = logits * math.sqrt(width) if official else logits - SELF_PENALTY * is_self
    logits = jnp.where(visible, logits, jnp.finfo(accum_dtype).min)
    largest = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    weights = jnp.exp(logits - largest)
    if r > 1 and not duplicates:
        codes = inverse.reshape(buckets.shape) // chunk + (0 if across_buckets else (n + 2) * buckets)
        weights = weights / _round_counts(codes, order.reshape(buckets.shape), chunk)
    total = weights.sum(-1, keepdims=True)
    rows_shape = (b, r * h, padded_length, 2 * chunk)
    weights = attention_dropout(weights.reshape(rows_shape), rate, rng_keys).reshape(weights.shape)
    y = jnp.einsum("gnst,gntv->gnsv", weights.astype(dtype), v, preferred_element_type=accum_dtype) / total
    if r == 1:
        y = take(y.reshape(b * h, padded_length, -1), inverse).reshape(b, h, padded_length, -1)
        return y[:, :, :length].astype(dtype)
    y = jnp.concatenate([y, largest + jnp.log(total)], -1).reshape(b * r * h, padded_length, -1)
    y = take(y, inverse).reshape(b, r, h, padded_length, -1)[:, :, :, :length]
    return (jax.nn.softmax(y[..., -1:], 1) * y[..., :-1]).sum(1).astype(dtype)


def _round_counts(codes: Array, order: Array, chunk: int) -> Array:
    """Count the rounds in which a query sees a key, at least 1.

    Args:
      codes: [B, R, H, L]; i sees j in a round if code_i - code_j is 0 or 1
      order: [B, R, H, L], the sorted positions of each round

    Returns:
      int32 [B R H, N, S, 2S]
    """
    counts = jnp.int32(0)
    for other in range(codes.shape[1]):
        sorted_codes = jnp.take_along_axis(jnp.broadcast_to(codes[:, other, None], order.shape), order, -1)
        sorted_codes = sorted_codes.reshape(-1, codes.shape[-1] // chunk, chunk)
        difference = sorted_codes[..., None] - with_neighbours(sorted_codes, 1, 0)[:, :, None]
        counts = counts + ((difference == 0) | (difference == 1)).astype(jnp.int32)
    return jnp.maximum(counts, 1)


class Reformer(nnx.Module):
    """LSH attention with shared queries and keys.

    rounds:         number of hash rounds; each costs a sort and an attention
    chunk:          positions per chunk, at most max_len; None: 64 (official: max_len // 10 + 1)
    buckets:        number of buckets, even or 1; None: twice the number of chunks (official: 10)
    across_buckets: attend to all positions of both chunks (official: always)
    duplicates:     count a key once for every round in which it is seen (official: always)
    official:       the form of the reference suite
    """

    def __init__(
        self, dims: Dims, *, rounds: int = 1, chunk: int | None = None, buckets: int | None = None,
        across_buckets: bool = False, duplicates: bool = False, official: bool = False, rngs: nnx.Rngs,
    ) -> None:  # fmt: skip
        check_range(1, MAX_SIZE, chunk=chunk, buckets=buckets)
        check_range(1, 64, rounds=rounds)
        if buckets is not None and buckets > 1 and buckets % 2:
            raise ValueError(f"option buckets={buckets}: must be even or 1")
        width = dims.d_model if official else dims.qkv_dim
        if width % dims.num_heads:
            raise ValueError(
                f"option official={official}: needs d_model {width} to be divisible by num_heads {dims.num_heads}"
            )
        default = dims.max_len // 10 + 1 if official else 64
        self.chunk = min(default if chunk is None else chunk, dims.max_len)
        chunks = math.ceil(dims.max_len / self.chunk)
        if buckets is None:
            buckets = 10 if official else 2 * chunks if chunks > 1 else 1
        first = 2 * round(math.sqrt(buckets) / 2)
        self.factors: tuple[int, ...] = (buckets,) if buckets > 1 else ()
        if buckets > MAX_SINGLE_HASH:
            self.factors = (first, 2 * math.ceil(buckets / first / 2))
        if (math.prod(self.factors) + 1) * chunks * self.chunk >= 2**31:
            raise ValueError(f"option buckets={buckets}: times {dims.max_len} positions exceed 2^31: increase chunk")
        self.dims, self.official = dims, official
        self.across_buckets, self.duplicates = across_buckets or official, duplicates or official
        query_dims = dataclasses.replace(dims, dtype=jnp.promote_types(dims.dtype, jnp.float32))
        self.query, self.value = (projection(d, d.d_model, width, bias=d.bias, rngs=rngs) for d in (query_dims, dims))
        self.output = None if official else projection(dims, width, dims.d_model, bias=dims.bias, rngs=rngs)
        shape = (rounds, 1 if official else dims.num_heads, width // dims.num_heads, max(sum(self.factors) // 2, 1))
        rotations = jax.random.normal(jax.random.key(0) if official else rngs.params(), shape, jnp.float32)
        self.rotations = Buffer(jnp.broadcast_to(rotations, (shape[0], dims.num_heads, *shape[2:])))

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        b, length, h = *x.shape[:2], self.dims.num_heads
        x = zero_padding(x, mask)
        qk, v = (layer(x).reshape(b, length, h, -1).swapaxes(1, 2) for layer in (self.query, self.value))
        rotations, rate = self.rotations[...], 0.0 if self.official else self.dims.dropout
        if rng_keys is None or self.official:
            rotations = jnp.broadcast_to(rotations[None], (b, *rotations.shape))
        else:
            draw = jax.vmap(lambda key: jax.random.normal(key, rotations.shape, rotations.dtype))
            rotations = draw(fold_in_keys(rng_keys, 1))
        buckets = lsh_buckets(jax.lax.stop_gradient(qk), rotations.astype(qk.dtype), self.factors)
        y = lsh_attention(
            qk.astype(v.dtype), v, buckets, mask, chunk=self.chunk,
            count=math.prod(self.factors), across_buckets=self.across_buckets, duplicates=self.duplicates,
            official=self.official, rate=rate, rng_keys=fold_in_keys(rng_keys, 0),
        )  # fmt: skip
        if self.output is not None:
            return self.output(y.swapaxes(1, 2).reshape(b, length, -1))
        padded_length = 10 * (
            self.dims.max_len // 10 + 1
        )  # the length of the reference suite, whose zeros are mixed in
        y = jnp.where(mask[:, None, :, None], y, 0)
        y = jnp.pad(y, ((0, 0), (0, 0), (0, padded_length - length), (0, 0)))
        return y.reshape(b, padded_length, -1)[:, :length]
