"""Corrupted inputs and the prediction of their true symbols, of the recipes `denoise` and `spt`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import Array

from models.dropout import row_dropout_seeds
from models.encoder import Classifier


def corrupt(ids: Array, keys: Array, vocab_size: int, *, share: float, masked: float) -> tuple[Array, Array]:
    """Replace real symbols at random positions, each chosen independently with probability `share`.

    Args:
      ids: int32 [m, L], or [m, 2, L] for pairs, whose documents are corrupted independently; 0 is padding
      keys: [m], one PRNG key per example
      vocab_size: number of token ids; the mask symbol is the next one
      masked: probability that a chosen symbol becomes the mask symbol; the others become a random symbol

    Returns:
      ids of the same shape, and bool of that shape: the chosen positions
    """
    if ids.ndim == 3:
        keys = jax.vmap(jax.random.split)(keys).reshape(-1)
    first, second = (word.reshape(ids.shape) for word in row_dropout_seeds(keys, 1, ids.shape[-1]))
    chosen = (first < _threshold(share)) & (ids > 0)
    random_symbol = 1 + (second % jnp.uint32(vocab_size - 1)).astype(ids.dtype)
    replacement = jnp.where(first < _threshold(share * masked), vocab_size, random_symbol)
    return jnp.where(chosen, replacement, ids), chosen


def _threshold(probability: float) -> Array:
    return jnp.uint32(min(round(probability * 2**32), 2**32 - 1))


def symbol_losses(model: Classifier, states: Array, ids: Array, counted: Array) -> tuple[Array, Array]:
    """Return each example's mean cross-entropy of the true symbols at the counted positions, and the share correct.

    Both are 0 where no position is counted. Positions of both documents of a pair are counted together.

    Args:
      states: of all documents, from `Classifier.states`
      ids: int32 [m, L] or [m, 2, L], true symbols
      counted: bool, of the shape of ids

    Returns:
      float32 [m] and [m]
    """
    logits = model.symbols(states)
    targets = ids.reshape(logits.shape[:2])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    hits = logits.argmax(-1) == targets
    examples, weights = len(ids), counted.reshape(len(ids), -1)
    count = jnp.maximum(weights.sum(1), 1)
    loss, correct = (jnp.where(weights, x.reshape(examples, -1), 0).sum(1) / count for x in (losses, hits))
    return loss, correct
