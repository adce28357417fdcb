"""Several seeds of one configuration in one program: LRA's models are small, and one leaves a GPU mostly idle.

Each seed has the parameters, the batches and the dropout that it has alone. A micro-batch is as long as the longest
of the seeds' own, which changes nothing where padding does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from lra.config import RunConfig
from lra.training.step_functions import Program, PyTree, Totals, TrainState, seed_streams
from tasks.core import Card


class Together(Program):
    """A `Program` whose state, metrics and predictions are [S, ...], its totals [devices, S, ...]."""

    rows = PartitionSpec(None, "data")

    def __init__(self, config: RunConfig, card: Card, seeds: Sequence[int]) -> None:
        self._seeds = tuple(seeds)
        super().__init__(config, card)
        self.seeds = self._seeds

    def _streams(self) -> tuple[jax.Array, jax.Array]:
        streams = [seed_streams(seed) for seed in self._seeds]
        return jnp.stack([init for init, _ in streams]), jnp.stack([dropout for _, dropout in streams])

    def _arrays(self, key: jax.Array) -> tuple[PyTree, PyTree, PyTree]:
        return jax.vmap(super()._arrays)(key)

    def _no_totals(self, params: PyTree) -> Totals:
        return jax.vmap(super()._no_totals, out_axes=1)(params)

    def _add_gradient(self, *arguments: Any, bucket: int) -> Totals:
        def one(*arguments: Any) -> Totals:
            return super(Together, self)._add_gradient(*arguments, bucket=bucket)

        # totals, params, rest, data, dropout key, step, indices, places, weights
        return jax.vmap(one, (1, 0, 0, None, 0, None, 0, 0, None), out_axes=1)(*arguments)

    def _update(self, params: PyTree, opt: PyTree, totals: Totals) -> tuple[PyTree, PyTree, jax.Array]:
        return jax.vmap(super()._update, (0, 0, 1))(params, opt, totals)

    def _predict(self, *arguments: Any, bucket: int) -> tuple[jax.Array, jax.Array]:
        def one(*arguments: Any) -> tuple[jax.Array, jax.Array]:
            return super(Together, self)._predict(*arguments, bucket=bucket)

        return jax.vmap(one, (0, 0, None, None))(*arguments)  # params, rest, data, indices

    def of_seed(self, state: TrainState, number: int) -> TrainState:
        parts = jax.tree.map(lambda leaf: leaf[number], state[1:])
        return TrainState(state.step, *parts)

    def joined(self, states: Sequence[TrainState]) -> TrainState:
        parts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(state[1:] for state in states))
        return TrainState(states[0].step, *jax.device_put(parts, self.everywhere))
