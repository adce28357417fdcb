"""A mixer that does nothing and records what it is given: `tests.lra.recording:Recorder`."""

from __future__ import annotations

import jax
import numpy as np
from flax import nnx

from models.core import Dims

SPEC = "tests.lra.recording:Recorder"
MADE: list[tuple[Dims, int, str]] = []  # dims and options of each mixer that was constructed
IN_TRAINING: list[bool] = []  # of each call that was traced, whether it had keys
KEYS: list[np.ndarray] = []  # of each call that was computed, the words of its keys, [B, 2]


class Recorder(nnx.Module):
    """The identity on x."""

    def __init__(self, dims: Dims, *, colour: int = 1, shade: str = "light", rngs: nnx.Rngs) -> None:
        MADE.append((dims, colour, shade))

    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: jax.Array | None = None) -> jax.Array:
        IN_TRAINING.append(rng_keys is not None)
        if rng_keys is not None:
            jax.debug.callback(_record, jax.random.key_data(rng_keys))
        return x


def _record(words: np.ndarray) -> None:
    KEYS.append(np.array(words))


def clear() -> None:
    for records in (MADE, IN_TRAINING, KEYS):
        records.clear()
