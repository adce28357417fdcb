"""Flipped and shifted images, on the token ids of images that are read row by row."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from lra.protocols import Augment
from models.dropout import row_dropout_seeds

BLACK = 1  # token id of the grey level 0; the id 0 is padding


def augment(ids: Array, keys: Array, side: int, recipe: Augment) -> Array:
    """Return images that are flipped with probability 1/2 and shifted by a uniform number of pixels in each direction.

    Args:
      ids: int32 [m, L]; the first side * side are the pixels of an image, any others are padding
      keys: [m], one PRNG key per example
    """
    first, second = (word[:, 0] for word in row_dropout_seeds(keys, 1, 2))  # uint32 [m, 2]: bits of a row and a column
    flips = (first >> 31).astype(bool) & jnp.array([recipe.vertical, recipe.horizontal])
    most = int(recipe.shift * side)
    shifts = (second % jnp.uint32(2 * most + 1)).astype(jnp.int32) - most
    # The source of each row and of each column: [m, 2, side]
    source = jnp.arange(side) - shifts[..., None]
    inside = (source >= 0) & (source < side)
    source = jnp.where(flips[..., None], side - 1 - source, source)
    place = source[:, 0, :, None] * side + source[:, 1, None, :]
    visible = inside[:, 0, :, None] & inside[:, 1, None, :]
    pixels = side * side
    moved = jnp.take_along_axis(ids, jnp.where(visible, place, 0).reshape(-1, pixels), axis=1)
    moved = jnp.where(visible.reshape(-1, pixels), moved, BLACK)
    return jnp.concatenate([moved, ids[:, pixels:]], axis=1)
