"""Recipes in the trainer: the same gradient however a batch is cut, the same run however it is interrupted."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lra import config as cfg
from lra.config import RunConfig
from lra.protocols import Denoise
from lra.training import trainer
from lra.training.checkpoints import Checkpoints, flatten
from lra.training.device_dataset import DeviceDataset
from lra.training.evaluation import evaluate
from lra.training.step_functions import StepFunctions
from lra.training.train_step import gradient, micro_batch_stacks, step_inputs
from lra.training.trainer import train
from tasks.core import Prepared
from tasks.listops import CARD
from tests.lra.conftest import leaves, tiny_config

RECIPES = [cfg.recipes("listops")["shuffle"], Denoise()]
ONE_PHASE = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)


def config_of(recipe: Any, **changes: object) -> RunConfig:
    return dataclasses.replace(tiny_config(**changes), recipe=recipe, protocol=f"small+{recipe.name}")


@ONE_PHASE
def test_the_gradient_does_not_depend_on_micro_batches_and_buckets(tiny: Prepared, recipe: Any) -> None:
    twos, eights = (StepFunctions(config_of(recipe, **{"train.micro_batch": size}), CARD) for size in (2, 8))
    state = twos.init()
    adaptive = twos.dataset(tiny.splits["train"])
    padded = DeviceDataset(adaptive.arrays, adaptive.lengths, (twos.config.max_len,), adaptive.labels, adaptive.count)
    cut, whole = gradient(twos, state, adaptive), gradient(eights, state, padded)
    for a, b in zip(leaves(cut), leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


@ONE_PHASE
def test_random_numbers_are_those_of_the_step(tiny: Prepared, recipe: Any) -> None:
    """Without dropout, the same examples at another step or under the plain protocol have another loss."""
    config = config_of(recipe, **{"model.dropout": 0.0, "model.attention_dropout": 0.0})
    functions, plain = (StepFunctions(dataclasses.replace(config, recipe=r), CARD) for r in (recipe, None))
    dataset = functions.dataset(tiny.splits["train"])
    losses = []
    for made, step in ((functions, 0), (functions, 0), (functions, 1), (plain, 0), (plain, 1)):
        state = made.init()
        accumulator, inputs = made.zero_gradients(state.params), step_inputs(made, state, dataset)
        for bucket, stack in micro_batch_stacks(made, 0, dataset):
            accumulator = made.add_gradients(accumulator, inputs._replace(step=np.uint32(step)), stack, bucket=bucket)
        losses.append(float(accumulator.loss.sum()))
    assert losses[0] == losses[1]
    assert losses[3] == losses[4]
    assert len({*losses}) == 3


@ONE_PHASE
def test_an_interrupted_run_ends_bit_equal(
    tiny: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Any
) -> None:
    config = config_of(recipe)
    whole = train(StepFunctions(config, CARD), tiny, tmp_path / "whole")
    calls, real = 0, trainer.train_steps

    def interrupting(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **kwargs)

    monkeypatch.setattr(trainer, "train_steps", interrupting)
    ends = [train(StepFunctions(config, CARD), tiny, tmp_path / "parts") for _ in range(2)]
    assert [end.status for end in ends] == ["interrupted", "complete"]
    assert ends[-1].history.curve == whole.history.curve
    assert ends[-1].history.validation == whole.history.validation
    like = StepFunctions(config, CARD).init()
    states = [Checkpoints(tmp_path / name / "checkpoints").load("latest", like)[0] for name in ("whole", "parts")]
    for a, b in zip(*map(leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)


@ONE_PHASE
def test_the_evaluation_is_that_of_the_plain_protocol(tiny: Prepared, recipe: Any) -> None:
    functions = StepFunctions(config_of(recipe), CARD)
    plain = StepFunctions(dataclasses.replace(functions.config, recipe=None), CARD)
    state, like = functions.init(), flatten(plain.init())
    arrays = {
        name: leaf[: len(like[name])]
        for name, leaf in flatten(state).items()
        if name.startswith("params") and name in like
    }  # without the output layer and the embedding of the mask symbol
    params = jax.tree.unflatten(jax.tree.structure(plain.init().params), arrays.values())
    test = functions.dataset(tiny.splits["test"])
    a, b = evaluate(functions, state, test), evaluate(plain, state._replace(params=params), test)
    np.testing.assert_array_equal(a.predictions, b.predictions)
    assert a.loss == b.loss
