"""Corrupted inputs, and the prediction of their true symbols, against numpy."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra.protocols import Denoise
from lra.training.objectives import objective
from lra.training.recipes.symbols import corrupt
from lra.training.step_functions import encoder_config
from models import mixers
from models.encoder import Classifier
from tasks.listops import CARD
from tests.lra.conftest import tiny_config

VOCABULARY = CARD.vocab_size


def random_ids(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    ids = np.random.RandomState(seed).randint(1, VOCABULARY, shape).astype(np.int32)
    lengths = np.random.RandomState(seed).randint(1, shape[-1] + 1, shape[:-1])
    return np.where(np.arange(shape[-1]) < lengths[..., None], ids, 0)


def test_positions_are_corrupted_with_the_stated_probabilities() -> None:
    ids = np.full((200, 500), 3, np.int32)
    ids[:, 400:] = 0
    corrupted, chosen = map(
        np.asarray, corrupt(ids, jax.random.split(jax.random.key(0), 200), 10, share=0.3, masked=2 / 3)
    )
    assert not corrupted[:, 400:].any()
    assert not chosen[:, 400:].any()
    real = corrupted[:, :400]
    assert chosen[:, :400].mean() == pytest.approx(0.3, abs=0.01)
    assert (real == 10).mean() == pytest.approx(0.2, abs=0.01)
    np.testing.assert_array_equal(real[~chosen[:, :400]], 3)
    drawn = real[chosen[:, :400] & (real != 10)]
    assert set(drawn) == set(range(1, 10))
    assert np.bincount(drawn)[1:] / len(drawn) == pytest.approx(1 / 9, abs=0.015)
    assert (corrupted[0] != corrupted[1]).any()
    everything, _ = corrupt(ids, jax.random.split(jax.random.key(0), 200), 10, share=0.3, masked=1.0)
    assert set(np.unique(everything)) == {0, 3, 10}


def test_what_is_corrupted_depends_neither_on_the_padding_nor_on_the_batch() -> None:
    ids, keys = random_ids((6, 2, 20)), jax.random.split(jax.random.key(1), 6)
    whole = corrupt(ids, keys, VOCABULARY, share=0.5, masked=0.5)
    longer = corrupt(np.pad(ids, [(0, 0), (0, 0), (0, 9)]), keys, VOCABULARY, share=0.5, masked=0.5)
    one = corrupt(ids[2:3], keys[2:3], VOCABULARY, share=0.5, masked=0.5)
    for a, b, c in zip(whole, longer, one, strict=True):
        np.testing.assert_array_equal(a, b[..., :20])
        np.testing.assert_array_equal(a[2:3], c)
    same = np.broadcast_to(ids[:, :1], ids.shape)
    first, second = np.asarray(corrupt(same, keys, VOCABULARY, share=0.5, masked=0.5)[1]).swapaxes(0, 1)
    assert (first != second).any()


@pytest.mark.parametrize(("pair", "pooling"), [(None, "mean"), ("nli", "mean"), (None, "cls")])
def test_the_denoising_loss_equals_numpy(pair: str | None, pooling: str) -> None:
    recipe = Denoise(weight=0.5)
    config = dataclasses.replace(tiny_config(), recipe=recipe)
    sizes = dataclasses.replace(encoder_config(config, CARD), pair=pair, pooling=pooling)
    cosformer = mixers.resolve("cosformer").cls
    model = Classifier(sizes, lambda dims, _, rngs: cosformer(dims, rngs=rngs), rngs=nnx.Rngs(0))
    ids, keys = random_ids((4, 2, 12) if pair else (4, 12)), jax.random.split(jax.random.key(1), 4)
    labels = jnp.array([0, 9, 3, 3])
    losses, correct = objective(recipe, CARD, "full")(model, jnp.asarray(ids), labels, None, keys)
    corrupted, _ = corrupt(ids, keys, VOCABULARY, share=0.3, masked=2 / 3)
    logits = np.asarray(model(corrupted), np.float64)
    states, _ = model.states(corrupted)
    symbols = np.asarray(model.symbol_head(states[:, -12:]), np.float64).reshape(*ids.shape, VOCABULARY)
    for i in range(4):
        class_loss = np.log(np.exp(logits[i]).sum()) - logits[i, labels[i]]
        places = [
            np.log(np.exp(symbols[i][p]).sum()) - symbols[i][p][ids[i][p]] for p in zip(*ids[i].nonzero(), strict=False)
        ]
        assert float(losses[i]) == pytest.approx(class_loss + 0.5 * np.mean(places), rel=1e-5)
    np.testing.assert_array_equal(correct, logits.argmax(-1) == labels)
