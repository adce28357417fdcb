"""Every mixer trains: two steps with each of the encoder's heads."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from lra.training.device_dataset import DeviceDataset
from lra.training.step_functions import StepFunctions, TrainState
from lra.training.train_step import gradient
from models.mixers import available
from tasks import load_task
from tasks.core import Prepared, Split
from tests.lra.conftest import leaves, tiny_config


def pairs() -> Split:
    """Ten pairs of documents of 25 to 30 bytes."""
    rng = np.random.RandomState(0)
    documents = [bytes(rng.randint(97, 123, n).astype(np.uint8)) for n in rng.randint(25, 31, 20)]
    split = Split.from_documents(documents, np.arange(20) % 2)
    return dataclasses.replace(split, items=split.items.reshape(10, 2), labels=split.labels[:10])


@pytest.mark.parametrize("name", available())
@pytest.mark.slow
@pytest.mark.parametrize("head", ["mean", "cls", "pair"])
def test_two_steps(tiny: Prepared, name: str, head: str) -> None:
    sort = {"model.pair": "nli"} if head == "pair" else {"model.pooling": head}
    config = tiny_config(name, **{"train.micro_batch": 8}, **sort)
    card = load_task("retrieval" if head == "pair" else "listops").CARD
    program = StepFunctions(config, card)
    split = program.dataset(pairs() if head == "pair" else tiny.splits["train"])
    split = DeviceDataset(split.arrays, split.lengths, (config.max_len,), split.labels, split.count)
    state = program.init()
    first, losses = leaves(state.params), []
    for step in range(2):
        totals = gradient(program, state, split)
        params, opt, metrics = program.update(state.params, state.opt_state, totals)
        state = TrainState(step + 1, params, state.buffers, opt)
        losses.append(float(metrics[0]))
    assert np.isfinite(losses).all()
    assert losses[0] != losses[1]
    changed = [(after != before).any() for after, before in zip(leaves(state.params), first, strict=True)]
    assert all(np.isfinite(leaf).all() for leaf in leaves(state.params))
    assert np.mean(changed) > 0.75  # `cls` reads one position, whose result some do not reach
    jax.clear_caches()
