"""Reformer: attention among what a locality-sensitive hash brings together (Kitaev et al., 2020, arXiv:2001.04451).

    y_i = sum_{j in P_i} exp(q_i . k_j - p_ij) v_j / sum_{j in P_i} exp(q_i . k_j - p_ij),    k_j = q_j / |q_j|

Queries and keys are one projection. A bucket is the place of the largest of (qR, -qR), R drawn; positions are sorted
by (bucket, position) and cut into chunks; P_i are those of i's bucket in i's chunk and in the one before. p_ii = 1e5
(i sees itself as a last resort), else 0. Of several rounds P_i is the union: rounds are weighted by their normalisers
and p_ij = log(rounds in which i sees j), counted from every token's chunk in every round. R is fresh for each example
and step while training, a `Buffer` in evaluation. Above 128 buckets a hash is two of about the square root as many,
so that hashing does not grow like L^2. Where one chunk holds max_len there is nothing to hash: one bucket.

Done differently: pads sort last and are no keys, and the first chunk looks back on nothing, where the code of others
wraps around to the last chunk. Under bfloat16 that projection is float32: rounding would move positions to other
buckets. The paper's residuals are reversible, this encoder's are not. The authors' configurations (trax) and
transformers attend to the whole of both chunks: `across_buckets`; transformers counts a key again in every round:
`duplicates`.

The reference suite, `official`: ten buckets in chunks of a tenth of max_len (quadratic), and both options above; keys
not normalised, logits times sqrt(K), no last resort, no dropout; R the same for every head, layer, example and step;
heads and positions scrambled, [H, L, K] read as [L, H K]; no output projection, d_model instead of qkv_dim. That it
attends to pads and wraps around is not reproduced.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx

from models.block_attention import neighbourhood
from models.core import Buffer, Dims, projection
from models.dropout import attention_dropout, fold_in_keys
from models.ops import boolean_mask

COMPLEXITY = ("L log L", "L")
ONE_HASH = 128  # buckets; beyond, two hashes
LAST_RESORT = 1e5  # taken from the logit of a position with itself


def lsh_buckets(q: jax.Array, rotations: jax.Array, factors: tuple[int, ...]) -> jax.Array:
    """q [B, H, L, K], rotations [B, R, H, K, sum(factors) / 2] -> int32 [B, R, H, L] below prod(factors)."""
    turned, start = jnp.einsum("bhlk,brhkm->brhlm", q, rotations), 0
    bucket = jnp.zeros(turned.shape[:-1], jnp.int32)
    for count in factors:
        part, start = turned[..., start : start + count // 2], start + count // 2
        top = jnp.maximum(part.max(-1), -part.min(-1))[..., None]
        place = jnp.arange(count // 2, dtype=jnp.int32)[None, None, None, None]
        # On a CPU several times faster than argmax.
        found = jnp.maximum(jnp.where(part == top, place, -1), jnp.where(part == -top, place + count // 2, -1))
        bucket = bucket * count + found.max(-1)
    return bucket


def lsh_attention(
    qk: jax.Array, v: jax.Array, buckets: jax.Array, mask: jax.Array, *, chunk: int, count: int,
    across_buckets: bool = False, duplicates: bool = False, official: bool = False,
    rate: float = 0.0, rng_keys: jax.Array | None = None,
) -> jax.Array:  # fmt: skip
    """Attention within sorted chunks of S positions, in R rounds; logits and sums in float32.

    qk [B, H, L, K], v [B, H, L, V], buckets int [B, R, H, L] below `count`, mask [B, L] -> [B, H, L, V].
    """
    mask = boolean_mask(mask)
    (b, r, h, length), width, dtype = buckets.shape, qk.shape[-1], v.dtype
    accum_dtype = jnp.promote_types(qk.dtype, jnp.float32)
    n = -(-length // chunk)
    rows, places, more = jnp.arange(b * r * h)[:, None], n * chunk, n * chunk - length
    buckets = jnp.where(mask[:, None, None], buckets, count)
    buckets = jnp.pad(buckets, ((0, 0), (0, 0), (0, 0), (0, more)), constant_values=count)
    place = jnp.broadcast_to(jnp.arange(places, dtype=jnp.int32)[None], (b * r * h, places))
    packed = jax.lax.sort(buckets.reshape(place.shape) * places + place, is_stable=False)
    order, bucket = packed % places, packed // places
    inverse = jnp.zeros_like(order).at[rows, order].set(place, unique_indices=True, mode="promise_in_bounds")

    def take(x: jax.Array, index: jax.Array) -> jax.Array:  # [B R H, L, ...]; unique: its transpose adds nothing up
        return x.at[rows, index].get(unique_indices=True, mode="promise_in_bounds")

    def cut(x: jax.Array) -> jax.Array:  # [B R H, L, ...] -> [B R H, N, S, ...]
        return x.reshape(b * r * h, n, chunk, *x.shape[2:])

    x = jnp.pad(jnp.concatenate([qk, v], -1), ((0, 0), (0, 0), (0, more), (0, 0)))
    x = jnp.broadcast_to(x[:, None], (b, r, *x.shape[1:])).reshape(b * r * h, places, -1)
    q, v = jnp.split(cut(take(x, order)), [width], -1)
    k = (
        q
        if official
        else (q * jax.lax.rsqrt((q.astype(accum_dtype) ** 2).sum(-1, keepdims=True) + 1e-12)).astype(dtype)
    )
    k, v = neighbourhood(k, 1, 0), neighbourhood(v, 1, 0)  # [B R H, N, 2S, ...]
    near = neighbourhood(cut(bucket + 1), 1, 0)[:, :, None]  # 0 before the first chunk
    visible = (near > 0) & (near <= count)
    if not across_buckets:
        visible &= near == cut(bucket + 1)[..., None]
    logits = jnp.einsum("gnsk,gntk->gnst", q, k, preferred_element_type=accum_dtype)
    itself = jnp.eye(chunk, 2 * chunk, chunk, dtype=accum_dtype)[None, None]
    logits = logits * math.sqrt(width) if official else logits - LAST_RESORT * itself
    logits = jnp.where(visible, logits, jnp.finfo(accum_dtype).min)
    top = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    weights = jnp.exp(logits - top)
    if r > 1 and not duplicates:
        code = inverse.reshape(buckets.shape) // chunk + (0 if across_buckets else (n + 2) * buckets)
        weights = weights / _times_seen(code, order.reshape(buckets.shape), chunk)
    total = weights.sum(-1, keepdims=True)
    weights = attention_dropout(weights.reshape(b, r * h, places, 2 * chunk), rate, rng_keys).reshape(weights.shape)
    y = jnp.einsum("gnst,gntv->gnsv", weights.astype(dtype), v, preferred_element_type=accum_dtype) / total
    if r == 1:
        return take(y.reshape(b * h, places, -1), inverse).reshape(b, h, places, -1)[:, :, :length].astype(dtype)
    y = jnp.concatenate([y, top + jnp.log(total)], -1).reshape(b * r * h, places, -1)
    y = take(y, inverse).reshape(b, r, h, places, -1)[:, :, :, :length]
    return (jax.nn.softmax(y[..., -1:], 1) * y[..., :-1]).sum(1).astype(dtype)


def _times_seen(code: jax.Array, order: jax.Array, chunk: int) -> jax.Array:
    """In how many rounds a query sees a key, [B R H, N, S, 2S], at least 1.

    code [B, R, H, L] is such that i sees j where code_i - code_j is 0 or 1; order [B, R, H, L] sorts a round.
    """
    seen = jnp.int32(0)
    for other in range(code.shape[1]):
        codes = jnp.take_along_axis(jnp.broadcast_to(code[:, other, None], order.shape), order, -1)
        codes = codes.reshape(-1, code.shape[-1] // chunk, chunk)
        ahead = codes[..., None] - neighbourhood(codes, 1, 0)[:, :, None]
        seen = seen + ((ahead == 0) | (ahead == 1)).astype(jnp.int32)
    return jnp.maximum(seen, 1)


class Reformer(nnx.Module):
    """LSH attention with shared queries and keys.

    rounds:         hashes; each costs a sort and an attention
    chunk:          its length, at most max_len; None: 64 (officially max_len // 10 + 1)
    buckets:        of a hash, even, or 1; None: twice the number of chunks (officially 10)
    across_buckets: a position sees all of both chunks (officially always)
    duplicates:     a key counts once for every round in which it is seen (officially always)
    """

    def __init__(
        self, dims: Dims, *, rounds: int = 1, chunk: int | None = None, buckets: int | None = None,
        across_buckets: bool = False, duplicates: bool = False, official: bool = False, rngs: nnx.Rngs,
    ) -> None:  # fmt: skip
        width = dims.d_model if official else dims.qkv_dim
        if width % dims.num_heads:
            raise ValueError(f"reformer: d_model {width} is not divisible by num_heads {dims.num_heads}: not official")
        default = dims.max_len // 10 + 1 if official else 64
        self.chunk = min(default if chunk is None else chunk, dims.max_len)
        chunks = math.ceil(dims.max_len / max(self.chunk, 1))
        if buckets is None:
            buckets = 10 if official else 2 * chunks if chunks > 1 else 1
        if min(rounds, self.chunk, buckets) < 1 or (buckets > 1 and buckets % 2):
            given = f"rounds={rounds}, chunk={chunk}, buckets={buckets}"
            raise ValueError(f"reformer: {given}: give at least 1 of each, buckets even or 1")
        first = 2 * round(math.sqrt(buckets) / 2)
        self.factors: tuple[int, ...] = (buckets,) if buckets > 1 else ()
        if buckets > ONE_HASH:
            self.factors = (first, 2 * math.ceil(buckets / first / 2))
        if (math.prod(self.factors) + 1) * chunks * self.chunk >= 2**31:
            raise ValueError(f"reformer: {buckets} buckets times {dims.max_len} positions pass 2^31: lengthen chunk")
        self.dims, self.official = dims, official
        self.across_buckets, self.duplicates = across_buckets or official, duplicates or official
        accum_dtype = dataclasses.replace(dims, dtype=jnp.promote_types(dims.dtype, jnp.float32))
        self.query, self.value = (projection(d, d.d_model, width, bias=d.bias, rngs=rngs) for d in (accum_dtype, dims))
        self.output = None if official else projection(dims, width, dims.d_model, bias=dims.bias, rngs=rngs)
        shape = (rounds, 1 if official else dims.num_heads, width // dims.num_heads, max(sum(self.factors) // 2, 1))
        rotations = jax.random.normal(jax.random.key(0) if official else rngs.params(), shape, jnp.float32)
        self.rotations = Buffer(jnp.broadcast_to(rotations, (shape[0], dims.num_heads, *shape[2:])))

    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: jax.Array | None = None) -> jax.Array:
        b, length, h = *x.shape[:2], self.dims.num_heads
        qk, v = (project(x).reshape(b, length, h, -1).swapaxes(1, 2) for project in (self.query, self.value))
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
        padded = 10 * (self.dims.max_len // 10 + 1)  # the reference suite's length, whose zeros are scrambled in
        y = jnp.where(mask[:, None, :, None], y, 0)
        y = jnp.pad(y, ((0, 0), (0, 0), (0, padded - length), (0, 0)))
        return y.reshape(b, padded, -1)[:, :length]
