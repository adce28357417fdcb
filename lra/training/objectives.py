"""The loss of training: cross-entropy of the class, and what recipes change in it. Evaluation has the first alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import optax
from jax import Array

from lra.protocols import Augment, Denoise, Recipe, SelfPretraining, Shuffle
from lra.training.recipes.augment import augment
from lra.training.recipes.shuffle import shuffle
from lra.training.recipes.symbols import corrupt, symbol_losses
from models.encoder import Classifier
from tasks.core import Card

RECIPE_SITE = 0x7FFFFFFF  # folded into an example's key; dropout has the small numbers

# (model, token ids, labels int32 [m], PRNG keys [m] for dropout or None, PRNG keys [m] for the recipe or None)
#   -> losses float32 [m], correct bool or float32 [m]
Objective = Callable[[Classifier, Array, Array, Array | None, Array | None], tuple[Array, Array]]


def objective(recipe: Recipe | None, card: Card, variant: str, *, pretraining: bool = False) -> Objective:
    """Return the objective of training with a recipe.

    Args:
      pretraining: that of phase 1 of self-pretraining
    """
    if pretraining:
        assert isinstance(recipe, SelfPretraining)
        return _mask_prediction(recipe, card.vocab_size)
    if isinstance(recipe, Augment):
        side = math.isqrt(card.variants[variant].max_bytes)
        return _on(lambda ids, keys: augment(ids, keys, side, recipe))
    if isinstance(recipe, Shuffle):
        return _on(lambda ids, keys: shuffle(ids, keys, recipe))
    if isinstance(recipe, Denoise):
        return _denoising(recipe, card.vocab_size)
    return classification


def has_mask_symbol(recipe: Recipe | None) -> bool:
    """Return whether there is one more token id, with which a recipe replaces symbols."""
    return isinstance(recipe, Denoise | SelfPretraining)


def predicts_symbols(recipe: Recipe | None, *, pretraining: bool) -> bool:
    """Return whether the model has an output layer that predicts symbols."""
    return isinstance(recipe, Denoise) or pretraining


def classification(
    model: Classifier, ids: Array, labels: Array, dropout_keys: Array | None, _: Array | None
) -> tuple[Array, Array]:
    """Return the cross-entropy of the class, and whether the most likely class is correct."""
    logits = model(ids, rng_keys=dropout_keys)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels), logits.argmax(-1) == labels


def _on(transform: Callable[[Array, Array], Array]) -> Objective:
    """Return the classification of transformed inputs; `transform` takes ids and the recipe's keys."""

    def transformed(
        model: Classifier, ids: Array, labels: Array, dropout_keys: Array | None, keys: Array | None
    ) -> tuple[Array, Array]:
        assert keys is not None
        return classification(model, transform(ids, keys), labels, dropout_keys, keys)

    return transformed


def _denoising(recipe: Denoise, vocab_size: int) -> Objective:
    """Return the classification of corrupted inputs, plus the prediction of the true symbol at every real position."""

    def denoising(
        model: Classifier, ids: Array, labels: Array, dropout_keys: Array | None, keys: Array | None
    ) -> tuple[Array, Array]:
        assert keys is not None
        corrupted, _ = corrupt(ids, keys, vocab_size, share=recipe.corrupted, masked=recipe.masked)
        states, mask = model.states(corrupted, rng_keys=dropout_keys)
        logits = model.classify(states, mask)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        symbols, _ = symbol_losses(model, states, ids, ids > 0)
        return losses + recipe.weight * symbols, logits.argmax(-1) == labels

    return denoising


def _mask_prediction(recipe: SelfPretraining, vocab_size: int) -> Objective:
    """Return the prediction of masked symbols from the others; the share correct is that of the masked positions."""

    def mask_prediction(
        model: Classifier, ids: Array, labels: Array, dropout_keys: Array | None, keys: Array | None
    ) -> tuple[Array, Array]:
        assert keys is not None
        corrupted, chosen = corrupt(ids, keys, vocab_size, share=recipe.masked, masked=1.0)
        states, _ = model.states(corrupted, rng_keys=dropout_keys)
        return symbol_losses(model, states, ids, chosen)

    return mask_prediction
