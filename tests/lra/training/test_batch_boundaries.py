"""Boundaries of batches and buckets: smallest sizes, epochs that end inside a batch, documents that fill a bucket."""

from __future__ import annotations

import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from lra.training.batching import (
    batch_indices,
    best_edges,
    choose_buckets,
    epoch_order,
    micro_batch_size,
    split_into_micro_batches,
)
from lra.training.device_dataset import example_lengths, gather, put_split
from lra.training.evaluation import evaluation_micro_batch
from lra.training.train_step import dispatch_steps
from tasks.core import Split
from tests.lra.conftest import tiny_config


@pytest.mark.parametrize(("batch", "count"), [(7, 7), (1, 1), (5, 1), (8, 3), (3, 8), (4, 8)])
def test_every_epoch_has_every_example_once_wherever_batches_end(batch: int, count: int) -> None:
    steps = 6 * count
    rows = np.concatenate([batch_indices(3, step, batch, count) for step in range(steps)])
    assert len(rows) == steps * batch
    for epoch in range(len(rows) // count):
        part = rows[count * epoch : count * (epoch + 1)]
        np.testing.assert_array_equal(part, epoch_order(3, epoch, count))
        assert sorted(part) == list(range(count))


def test_a_batch_that_ends_one_epoch_begins_the_next() -> None:
    rows = batch_indices(0, 1, 4, 6)  # examples 4 and 5 of the first epoch, 0 and 1 of the second
    np.testing.assert_array_equal(rows, [*epoch_order(0, 0, 6)[4:], *epoch_order(0, 1, 6)[:2]])


def test_one_example_of_one_token_has_a_bucket_and_a_batch() -> None:
    assert choose_buckets(np.array([1]), 1) == best_edges(np.array([1]), 1, 3) == (1,)
    (part,) = split_into_micro_batches(np.array([5]), np.array([1]), 4, (1,))
    assert (part.indices.tolist(), part.batch_positions.tolist(), part.bucket) == ([5] * 4, [0] * 4, 1)
    assert part.weights.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(("length", "bucket"), [(1, 4), (4, 4), (5, 8), (8, 8)])
def test_a_length_that_equals_an_edge_is_in_its_bucket(length: int, bucket: int) -> None:
    (part,) = split_into_micro_batches(np.array([0]), np.array([length]), 1, (4, 8))
    assert part.bucket == bucket


@pytest.mark.parametrize(
    ("batch", "length", "micro"),
    [(32, 1_024, 1), (32, 1_023, 1), (32, 512, 2), (32, 513, 1), (32, 4_000, 1), (30, 200, 5), (8, 1, 8), (1, 1, 1)],
)
def test_a_micro_batch_on_a_cpu_has_at_most_1024_tokens_and_divides_the_batch(
    batch: int, length: int, micro: int
) -> None:
    assert micro_batch_size(batch, length, accelerator=False, equal_lengths=False) == micro


@pytest.mark.parametrize(("every", "at_once"), [(500, 10), (32, 16), (7, 7), (17, 1), (1, 1), (48, 16), (30, 15)])
def test_on_a_gpu_the_steps_of_a_dispatch_divide_those_between_validations(every: int, at_once: int) -> None:
    """At most 16, where all examples are of one length; else one."""
    program: Any = types.SimpleNamespace(accelerator=False, config=tiny_config("linear", **{"train.eval_every": every}))
    one, two = (types.SimpleNamespace(buckets=buckets) for buckets in ((8,), (4, 8)))
    assert dispatch_steps(program, one) == dispatch_steps(program, two) == 1  # type: ignore[arg-type]
    program.accelerator = True
    assert dispatch_steps(program, one) == at_once  # type: ignore[arg-type]
    assert dispatch_steps(program, two) == 1  # type: ignore[arg-type]
    program.config = tiny_config("linear", **{"train.dispatch_steps": 3})
    assert dispatch_steps(program, two) == 3  # type: ignore[arg-type]


def test_an_evaluation_has_the_batch_of_the_training_on_a_gpu_and_16384_tokens_on_a_cpu() -> None:
    program: Any = types.SimpleNamespace(devices=2, accelerator=False, config=tiny_config("linear", max_len=4_000))
    assert evaluation_micro_batch(program) == 2 * 4
    program.config = tiny_config("linear", max_len=16_385)
    assert evaluation_micro_batch(program) == 2 * 1
    program.accelerator = True
    assert evaluation_micro_batch(program) == program.config.train.batch_size == 8


@pytest.mark.parametrize("pairs", [False, True])
def test_no_bucket_cuts_a_document(pairs: bool) -> None:
    """Every byte up to max_len of every document of every example is a token of its micro-batch."""
    rng = np.random.RandomState(0)
    documents = [bytes([n % 250]) * int(rng.randint(1, 60)) for n in range(40)]
    items = np.stack([np.arange(40), rng.permutation(40)], 1) if pairs else np.arange(40)
    split = Split.from_documents(documents, np.zeros(40), items)
    lengths = example_lengths(split, 50)
    arrays = put_split(split, 50, SingleDeviceSharding(jax.devices()[0]))
    buckets = choose_buckets(lengths, 50)
    assert len(buckets) > 1
    seen = 0
    for part in split_into_micro_batches(np.arange(40), lengths, 8, buckets):
        ids = np.asarray(gather(arrays, jnp.asarray(part.indices), part.bucket)[0])
        for row, example in zip(ids.reshape(len(ids), -1, part.bucket), part.indices, strict=True):
            for tokens, document in zip(row, np.atleast_1d(items[example]), strict=True):
                assert tokens[tokens > 0].tolist() == [byte + 1 for byte in documents[document][:50]]
                seen += 1
    assert seen == 40 * (1 + pairs)
