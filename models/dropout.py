"""Dropout with one PRNG key per example.

Whether an element is dropped depends only on its example's key and its own position, never on the length, the batch
or the device. Dropout of an example is therefore the same in every bucket and micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

GOLDEN_RATIO_32 = 0x9E3779B9  # 2^32 / golden ratio: step of the hash from one position to the next


def fold_in_keys(rng_keys: Array | None, site: int) -> Array | None:
    """Return the PRNG keys [B] of a dropout site or layer, or None if `rng_keys` is None."""
    return None if rng_keys is None else jax.vmap(jax.random.fold_in, (0, None))(rng_keys, site)


def dropout(x: Array, rate: float, rng_keys: Array | None) -> Array:
    """Apply dropout to x [B, L, ...] with PRNG keys [B]; return x unchanged if `rng_keys` is None."""
    if rng_keys is None or not rate:
        return x
    seeds = [seed[:, 0, :, None] for seed in row_dropout_seeds(rng_keys, 1, x.shape[1])]
    return hash_dropout(x.reshape(*x.shape[:2], -1), rate, seeds, axis=2).reshape(x.shape)


def attention_dropout(weights: Array, rate: float, rng_keys: Array | None) -> Array:
    """Apply dropout to attention weights [B, H, Lq, Lk], independently of the padding of both lengths."""
    if rng_keys is None or not rate:
        return weights
    seeds = [seed[..., None] for seed in row_dropout_seeds(rng_keys, *weights.shape[1:3])]
    return hash_dropout(weights, rate, seeds, axis=3)


@partial(jax.jit, static_argnums=(1, 2))  # traced once per size: saves most of the tracing time of a model
def row_dropout_seeds(rng_keys: Array, heads: int, rows: int) -> tuple[Array, Array]:
    """Return the two seeds of `hash_dropout`, uint32 [B, H, L], from an example's key, the head and the row."""
    words = jax.random.key_data(rng_keys).reshape(len(rng_keys), 1, 1, -1)
    row = jnp.arange(rows, dtype=jnp.uint32)[None, None, :]
    head = jnp.arange(heads, dtype=jnp.uint32)[None, :, None]
    return threefry(words[..., 0], words[..., -1], row, head)


@partial(jax.jit, static_argnums=(1, 3))
def hash_dropout(x: Array, rate: float, seeds: Sequence[Array], axis: int) -> Array:
    """Set elements of x to zero with probability `rate` and divide the others by 1 - rate.

    An element is dropped by a hash of two seeds and of its index along `axis`. The seeds of a row come from threefry
    and the hash needs two multiplications, which XLA fuses with the product. `jax.random` is not used because its
    bits depend on the array's shape and because on a CPU it takes longer than attention.

    The hash is the least biased two-round function of github.com/skeeto/hash-prospector.

    Args:
      x:     of any shape
      seeds: two uint32 arrays of the rank of x, with size 1 along `axis`
    """
    seed0, seed1 = seeds
    bits = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * jnp.uint32(GOLDEN_RATIO_32) + seed0
    bits = (bits ^ bits >> 16) * jnp.uint32(0x21F0AAAD)
    bits = ((bits ^ bits >> 15) + seed1) * jnp.uint32(0x735A2D97)
    keep = bits ^ bits >> 15 >= jnp.uint32(round(rate * 2**32))
    return jnp.where(keep, x * (1 / (1 - rate)), 0)


def threefry(key0: Array, key1: Array, x0: Array, x1: Array) -> tuple[Array, Array]:
    """Compute Threefry-2x32 with 20 rounds (Salmon et al., 2011), the hash behind `jax.random`.

    Args:
      key0, key1: the two words of the key, uint32
      x0, x1:     the two words of the counter, uint32; shapes broadcast

    Returns:
      two uint32 words
    """
    schedule = (key0, key1, key0 ^ key1 ^ jnp.uint32(0x1BD11BDA))
    x0, x1 = x0 + schedule[0], x1 + schedule[1]
    for i in range(1, 6):
        for rotation in (13, 15, 26, 6) if i % 2 else (17, 29, 16, 24):
            x0 = x0 + x1
            x1 = x0 ^ (x1 << rotation | x1 >> (32 - rotation))
        x0, x1 = x0 + schedule[i % 3], x1 + schedule[(i + 1) % 3] + jnp.uint32(i)
    return x0, x1
