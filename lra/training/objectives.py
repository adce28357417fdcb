"""The loss of training: cross-entropy of the class, and what recipes change in it. Evaluation has the first alone."""

from __future__ import annotations

from collections.abc import Callable

import optax
from jax import Array

from lra.protocols import Recipe, Shuffle
from lra.training.recipes.shuffle import shuffle
from models.encoder import Classifier

RECIPE_SITE = 0x7FFFFFFF  # folded into an example's key; dropout has the small numbers

# (model, token ids, labels int32 [m], PRNG keys [m] for dropout or None, PRNG keys [m] for the recipe or None)
#   -> losses float32 [m], correct bool or float32 [m]
Objective = Callable[[Classifier, Array, Array, Array | None, Array | None], tuple[Array, Array]]


def classification(
    model: Classifier, ids: Array, labels: Array, dropout_keys: Array | None, _: Array | None
) -> tuple[Array, Array]:
    """Return the cross-entropy of the class, and whether the most likely class is correct."""
    logits = model(ids, rng_keys=dropout_keys)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels), logits.argmax(-1) == labels


def objective(recipe: Recipe | None) -> Objective:
    """Return the objective of training with a recipe."""
    if isinstance(recipe, Shuffle):
        return _on(lambda ids, keys: shuffle(ids, keys, recipe))
    return classification


def _on(transform: Callable[[Array, Array], Array]) -> Objective:
    """Return the classification of transformed inputs; `transform` takes ids and the recipe's keys."""

    def transformed(
        model: Classifier, ids: Array, labels: Array, dropout_keys: Array | None, keys: Array | None
    ) -> tuple[Array, Array]:
        assert keys is not None
        return classification(model, transform(ids, keys), labels, dropout_keys, keys)

    return transformed
