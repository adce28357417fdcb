"""Devices that share the positions of each example: the same gradient, each with a part of what a long one needs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lra.errors import ConfigError
from lra.paths import ROOT
from lra.training.step_functions import StepFunctions
from tasks.listops import CARD
from tests.lra.conftest import tiny_config

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
import jax
import numpy as np
from lra.training.batching import stack_micro_batches
from lra.training.evaluation import evaluate
from lra.training.step_functions import StepFunctions
from lra.training.train_step import gradient, micro_batches, step_inputs
from tasks.listops import CARD
from tests.lra.conftest import tiny_config, tiny_split

mixer = sys.argv[1]
found = {}
for shards in (1, 4):
    long = {"max_len": 64, "train.batch_size": 4, "train.micro_batch": 4 // shards, "train.length_shards": shards}
    program = StepFunctions(tiny_config(mixer, **long), CARD)
    assert dict(program.mesh.shape) == {"data": 4 // shards, "length": shards}
    state, split = program.init(), program.dataset(tiny_split(40, 1))
    totals = jax.tree.map(lambda t: np.asarray(t).sum(0), gradient(program, state, split))
    found[shards] = totals, evaluate(program, state, split, 4)
largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(found[1][0].grads))
for one, four in zip(jax.tree.leaves(found[1][0]), jax.tree.leaves(found[4][0]), strict=True):
    np.testing.assert_allclose(four, one, atol=1e-5 * largest, rtol=1e-4)
np.testing.assert_allclose(found[4][1].loss, found[1][1].loss, rtol=1e-5)

needed = {}
for shards in (1, 4):
    long = {"max_len": 4096, "train.batch_size": 1, "train.length_shards": shards}
    program = StepFunctions(tiny_config(mixer, **long), CARD)
    state, split = program.init(), program.dataset(tiny_split(40, 1))
    stack = stack_micro_batches(micro_batches(program, 0, split), program.micro_batches_per_step)
    accumulator = program.zero_gradients(state.params)
    lowered = program.add_gradients.lower(accumulator, step_inputs(program, state, split), stack, bucket=4096)
    needed[shards] = lowered.compile().memory_analysis().temp_size_in_bytes
print(needed)
assert needed[4] < 0.4 * needed[1], needed
"""


@pytest.mark.parametrize("mixer", ["cosformer", "linear"])
def test_four_devices_share_the_positions(mixer: str) -> None:
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "4"}
    words = [sys.executable, "-c", SCRIPT, mixer]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--train.length-shards 3 does not divide max-len"):
        StepFunctions(tiny_config(**{"train.length_shards": 3}), CARD)
    with pytest.raises(ConfigError, match=r"--train.length-shards 20: this process has \d+ devices"):
        StepFunctions(tiny_config(**{"train.length_shards": 20}), CARD)
