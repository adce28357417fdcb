"""Random streams: those of seeds, steps, examples, sites and parameters differ."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra.api import configure
from lra.contract.harness import MixerUnderTest, Probe
from lra.training.batching import batch_indices, epoch_order, stack_micro_batches
from lra.training.device_dataset import DeviceDataset
from lra.training.step_functions import StepFunctions, TrainState, seed_keys
from lra.training.train_step import gradient, micro_batches, step_inputs
from models import mixers
from models.dropout import attention_dropout, dropout, fold_in_keys
from tasks.core import Split
from tasks.listops import CARD
from tests.lra import recording

SMALL = {"max_len": 40, "model.layers": 1, "model.d_model": 4, "model.qkv_dim": 4, "model.mlp_dim": 4}
SMALL |= {"model.head": (4,), "train.batch_size": 4, "train.micro_batch": 2, "train.steps": 9}


def config(seed: int = 0, **overrides: Any) -> Any:
    return configure("listops", recording.SPEC, protocol="small", seed=seed, overrides=SMALL | overrides)


def recorded() -> set[tuple[int, ...]]:
    """Return the words of all keys that mixers were given, once computed."""
    jax.effects_barrier()
    return {tuple(word.tolist()) for words in recording.KEYS for word in words.reshape(-1, 2)}


@pytest.fixture(scope="module")
def examples() -> DeviceDataset:
    """40 examples of one length, so that a step is one compiled program."""
    split = Split.from_documents([bytes([n % 10] * 12) for n in range(40)], [n % 10 for n in range(40)])
    return StepFunctions(config(), CARD).dataset(split)


def trace_step(program: StepFunctions, examples: DeviceDataset) -> None:
    state = TrainState(0, *jax.eval_shape(program.init)[1:])
    stack = stack_micro_batches(micro_batches(program, 0, examples), program.micro_batches_per_step)
    accumulator = jax.eval_shape(program.zero_gradients, state.params)
    program.add_gradients.trace(accumulator, step_inputs(program, state, examples), stack, bucket=examples.buckets[-1])


def keys_of_steps(program: StepFunctions, examples: DeviceDataset, steps: list[int]) -> set[tuple[int, ...]]:
    recording.clear()
    start = program.init()
    for step in steps:
        jax.block_until_ready(gradient(program, start._replace(step=step), examples))
    return recorded()


def test_no_two_epochs_of_any_seeds_are_alike() -> None:
    orders = {epoch_order(seed, epoch, 60).tobytes() for seed, epoch in itertools.product(range(30), repeat=2)}
    assert len(orders) == 900
    for seed, epoch in itertools.product(range(4), repeat=2):  # the batches of an epoch are its order
        rows = np.concatenate([batch_indices(seed, 6 * epoch + n, 10, 60) for n in range(6)])
        np.testing.assert_array_equal(rows, epoch_order(seed, epoch, 60))


def test_parameters_and_dropout_of_all_seeds_have_streams_of_their_own() -> None:
    keys = [tuple(jax.random.key_data(key).tolist()) for seed in range(100) for key in seed_keys(seed)]
    assert len(set(keys)) == 200


def test_dropout_differs_by_seed_step_and_example(examples: DeviceDataset) -> None:
    """Of 2 seeds, 3 steps and 4 examples each key is another, whatever batch the step has."""
    alone = [StepFunctions(config(seed), CARD) for seed in (0, 1)]
    alone[1].add_gradients = alone[0].add_gradients  # compiled once; the key is an argument
    keys = [keys_of_steps(program, examples, [0, 1, 2]) for program in alone]
    assert [len(found) for found in keys] == [3 * 4] * 2
    assert not keys[0] & keys[1]


def test_an_evaluation_drops_nothing(examples: DeviceDataset) -> None:
    program = StepFunctions(config(**{"model.dropout": 0.9, "model.attention_dropout": 0.9}), CARD)
    recording.clear()
    program.predict.trace(
        *jax.eval_shape(program.init)[1:3], examples.arrays, np.zeros(4, np.int32), bucket=examples.buckets[-1]
    )
    assert recording.IN_TRAINING == [False]


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout"])
def test_one_rate_alone_makes_a_training_random(examples: DeviceDataset, rate: str) -> None:
    for value in (0.0, 0.5):
        rates = {"model.dropout": 0.0, "model.attention_dropout": 0.0, f"model.{rate}": value}
        program = StepFunctions(config(**rates), CARD)
        recording.clear()
        trace_step(program, examples)
        assert recording.IN_TRAINING
        assert set(recording.IN_TRAINING) == {value > 0}


def test_masks_differ_by_example_head_row_site_and_kind() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    sites = [fold_in_keys(keys, site) for site in range(3)]
    weights = jnp.ones((3, 2, 4, 64))  # examples, heads, rows, places
    masks = [attention_dropout(weights, 0.5, site) for site in sites]
    masks += [dropout(jnp.ones((3, 8, 64)), 0.5, site) for site in (keys, *sites)]
    rows = np.concatenate([np.asarray(mask).reshape(-1, 64) != 0 for mask in masks])
    # A mask of activations takes the rows of one head, so that head 0 of the weights at its key and site is no other.
    distinct = len(np.unique(rows, axis=0))
    assert distinct >= len(rows) - 3 * 3 * 4
    assert len(np.unique(np.asarray(masks[0]).reshape(-1, 64), axis=0)) == 3 * 2 * 4


@pytest.mark.parametrize("name", mixers.available())
def test_arrays_of_a_mixer_are_drawn_apart(name: str) -> None:
    """Queries, keys, values, and whatever else is drawn, by the program that the mixer's contract is tested with."""
    probe = Probe(MixerUnderTest(mixers.resolve(name)), "float32")
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves((probe.params, probe.buffers))]
    random = [leaf for leaf in arrays if np.unique(leaf).size > max(8, leaf.size // 2)]
    assert len(random) >= 4 or name in ("conv", "fnet", "longconv", "reformer", "s4d", "lru", "synthesizer")
    copies = sum(np.array_equal(a, b) for a, b in itertools.combinations(random, 2))
    assert copies == (3 if name == "longformer" else 0)  # its global projections begin as the local ones


def test_arrays_of_the_encoder_are_drawn_apart() -> None:
    """Of two layers with softmax every matrix is another, and of another seed all are."""
    overrides = SMALL | {"model.layers": 2}
    made = [configure("listops", "softmax", protocol="small", seed=seed, overrides=overrides) for seed in (0, 1)]
    drawn = [leaf for c in made for leaf in jax.tree.leaves(StepFunctions(c, CARD).init().params)]
    matrices = [np.asarray(leaf) for leaf in drawn if leaf.ndim == 2]
    assert len(matrices) == 2 * (2 + 2 * 6 + 2)  # tokens, positions; q, k, v, output and the MLP's two; the head's two
    for a, b in itertools.combinations(matrices, 2):
        assert a.shape != b.shape or (a != b).mean() > 0.9
