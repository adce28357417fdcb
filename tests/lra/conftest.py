"""A tiny data set and a tiny run, for what has to be trained."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from configs import listops
from lra.config import RunConfig, resolve
from lra.training import batching as batches
from tasks.core import Prepared, Split
from tasks.listops import CARD, encode, generate


def tiny_split(n: int, seed: int) -> Split:
    expressions, answers = generate(n, seed=seed, min_length=4, max_length=40, max_depth=4, max_args=5)
    return Split.from_documents([encode(e) for e in expressions], answers)


@pytest.fixture(scope="session")
def tiny() -> Prepared:
    """ListOps of 5 to 39 symbols: 200 examples to train on, 50 each to select and to test on."""
    splits = {"train": tiny_split(200, 1), "validation": tiny_split(50, 2), "test": tiny_split(50, 3)}
    return Prepared("listops", "full", CARD.version, "tiny", "0" * 64, splits)


@pytest.fixture(autouse=True)
def few_buckets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two instead of six: each is a program to compile, and two are as good to show that buckets change nothing."""
    if "tiny" in request.fixturenames:
        monkeypatch.setattr(batches, "MAX_BUCKETS", 2)


def tiny_config(mixer: str = "cosformer", **changes: object) -> RunConfig:
    """One layer of width 16, 12 steps of 8 examples, with dropout; a selection every 4 steps."""
    base = listops.PROTOCOLS["small"]
    model = dataclasses.replace(base.model, layers=1, d_model=16, qkv_dim=16, mlp_dim=16, head=(16,), init="xavier")
    train = dataclasses.replace(base.train, steps=12, batch_size=8, learning_rate=1e-2, warmup=2, eval_every=4)
    base = dataclasses.replace(base, max_len=40, model=model, train=train)
    return resolve(
        base,
        mixer=mixer,
        mixer_label=mixer,
        mixer_options={},
        mixer_sha256=None,
        task_version=CARD.version,
        seed=0,
        overrides=changes,
    )


def leaves(tree: object) -> list[np.ndarray]:
    import jax

    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
