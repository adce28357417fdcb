"""Shuffled operands of nested expressions: MIN, MAX, MED and SM are symmetric, so the value does not change.

Source: "On the locality bias and results in the Long Range Arena", arXiv:2501.14850.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from lra.protocols import Shuffle
from models.dropout import row_dropout_seeds


def shuffle(ids: Array, keys: Array, recipe: Shuffle) -> Array:
    """Return expressions with the operands of every operator in a new random order; all orders are equally likely.

    Args:
      ids: int32 [m, L], byte + 1 of each symbol, complete expressions; 0 is padding
      keys: [m], one PRNG key per example
    """
    priorities = row_dropout_seeds(keys, 1, ids.shape[1])[0][:, 0]

    def one(ids: Array, priorities: Array) -> Array:
        return jnp.zeros_like(ids).at[new_positions(ids, priorities, recipe)].set(ids, unique_indices=True)

    return jax.vmap(one)(ids, priorities)


def new_positions(ids: Array, priorities: Array, recipe: Shuffle) -> Array:
    """Return the position of each symbol of one expression, int32 [L], when operands are sorted by their priorities.

    An operand starts after its operator and the operands that are before it, so its position is the sum of
    1 + (length of the operands before) over itself and its ancestors. A closing bracket counts as the last operand.

    Args:
      ids: int32 [L]
      priorities: uint32 [L], of the first symbol of each operand; the others are not used
    """
    length, position = len(ids), jnp.arange(len(ids))
    opens = (ids > recipe.first_operator) & (ids <= recipe.end)
    closes = ids == recipe.end + 1
    change = opens.astype(jnp.int32) - closes
    depth = jnp.cumsum(change) - change  # operators around a symbol; the root has 0
    levels = jnp.arange(recipe.max_depth - 1)[:, None]
    innermost = jax.lax.cummax(jnp.where(opens & (depth == levels), position, -1), axis=1)
    parent = jnp.where(depth - 1 == levels, innermost, -1).max(0)
    parent = jnp.where(ids == 0, length, parent)

    lengths = jnp.ones(length, jnp.int32)
    lengths = lengths.at[jnp.where(closes, parent, length)].set(position - parent + 1, mode="drop")
    priorities = jnp.where(closes, jnp.uint32(0xFFFFFFFF), priorities)
    parents, _, order, lengths = jax.lax.sort((parent, priorities, position, lengths), num_keys=2, is_stable=True)
    start = jnp.cumsum(lengths) - lengths
    is_first = parents != jnp.roll(parents, 1)
    before = start - jax.lax.cummax(jnp.where(is_first, start, 0))
    step = jnp.zeros(length, jnp.int32).at[order].set(jnp.where(parents < 0, 0, 1 + before), unique_indices=True)

    ancestor = jnp.maximum(parent, 0)
    for _ in range(math.ceil(math.log2(recipe.max_depth))):  # sums over 1, 2, 4, ... symbols towards the root
        step, ancestor = step + step[ancestor], ancestor[ancestor]
    return jnp.where(ids == 0, position, step)
