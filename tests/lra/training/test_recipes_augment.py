"""The recipe `augment` against numpy, image by image."""

from __future__ import annotations

import dataclasses
from collections import Counter

import jax
import numpy as np
import pytest
from scipy.stats import chisquare

from lra import config as cfg
from lra.api import configure
from lra.protocols import Augment
from lra.training.recipes.augment import BLACK, augment
from lra.training.step_functions import StepFunctions
from lra.training.train_step import gradient
from tasks.core import Split
from tasks.image import CARD


def every_image(image: np.ndarray, recipe: Augment) -> dict[bytes, tuple[bool, bool, int, int]]:
    """Return every result that the recipe allows, by its bytes: flips, then shifts down and to the right."""
    side, found = len(image), {}
    most = int(recipe.shift * side)
    for vertical in {False, recipe.vertical}:
        for horizontal in {False, recipe.horizontal}:
            flipped = image[:: -1 if vertical else 1, :: -1 if horizontal else 1]
            for down in range(-most, most + 1):
                for right in range(-most, most + 1):
                    canvas = np.full((side + 2 * most,) * 2, BLACK, np.int32)
                    canvas[most + down : most + down + side, most + right : most + right + side] = flipped
                    shown = canvas[most : most + side, most : most + side]
                    found[shown.tobytes()] = (vertical, horizontal, down, right)
    return found


@pytest.mark.parametrize(("task", "side"), [("image", 12), ("pathfinder", 6)])
def test_every_flip_and_shift_is_equally_likely_and_nothing_else_happens(task: str, side: int) -> None:
    recipe = cfg.recipes(task)["augment"]
    assert isinstance(recipe, Augment)
    image = np.random.RandomState(0).randint(2, 257, (side, side)).astype(np.int32)
    possible = every_image(image, recipe)
    assert len(possible) == (18 if task == "image" else 4)
    draws = 2_000
    ids = np.tile(np.pad(image.reshape(-1), (0, 5)), (draws, 1))
    results = np.asarray(augment(ids, jax.random.split(jax.random.key(1), draws), side, recipe))
    assert not results[:, side * side :].any()
    counts = Counter(possible[row[: side * side].tobytes()] for row in results)
    assert len(counts) == len(possible)
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_images_of_a_variant_have_its_side() -> None:
    """16 x 16 pixels are shifted by one; the gradient is that of augmented images, whatever the micro-batch."""
    images = np.random.RandomState(0).randint(0, 256, (32, 16, 16)).astype(np.uint8)
    split = Split.from_images(images, np.arange(32) % 10)
    losses = {}
    for micro_batch in (8, 32):
        for recipe in (True, False):
            overrides = {"train.micro_batch": micro_batch, "model.layers": 1}
            config = configure("image", "cosformer", protocol="quick+augment", overrides=overrides)
            functions = StepFunctions(config if recipe else dataclasses.replace(config, recipe=None), CARD)
            made = gradient(functions, functions.init(), functions.dataset(split))
            losses[micro_batch, recipe] = float(made.loss.sum())
    assert losses[8, True] == pytest.approx(losses[32, True], rel=1e-5)
    assert losses[8, False] == pytest.approx(losses[32, False], rel=1e-5)
    assert losses[8, True] != pytest.approx(losses[8, False], rel=1e-5)
