"""The effective receptive field of a trained model: how far away the tokens are that its answer depends on.

For an example, let s_i be the term of position i in the logit of the predicted class, with the classifier linearised:
the gradient of the logit with respect to the last state h_i, times h_i. The influence of token j on it is the norm of
the gradient of s_i with respect to the embedding of j. Its distribution over the distance |i - j|, averaged over
examples and positions i, is the effective receptive field (Luo et al., 2016, arXiv:1701.04128, have the idea for
convolutional networks). If a model pools by its first position, i is that position. Of pairs, the first document
counts.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lra.runtime.devices import compiler_options
from lra.training.device_dataset import DeviceDataset, DeviceSplit, gather
from lra.training.step_functions import PyTree, StepFunctions, TrainState

EXAMPLES = 64  # the first of the test split


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """The effective receptive field, in tokens.

    Attributes:
      half: smallest distance within which half of the influence of other positions lies
      distances: 0, 1, 2, 4, ...
      within: share of all influence within each distance; that of 0 is the influence of the position itself
    """

    half: int
    distances: list[int]
    within: list[float]


def receptive_field(functions: StepFunctions, state: TrainState, dataset: DeviceDataset) -> ReceptiveField | None:
    """Measure the effective receptive field on the first `EXAMPLES` examples, one position of each.

    Returns:
      None if no example has two tokens, or a gradient is zero or not finite
    """
    count = min(EXAMPLES, dataset.count)
    documents = np.asarray(dataset.arrays.items)[:count].reshape(count, -1)[:, 0]
    lengths = np.asarray(dataset.arrays.lengths)[documents]
    places = np.floor(lengths * (np.arange(count) + 0.5) / count).astype(np.int32)  # from the start to the end
    bucket = next(bucket for bucket in dataset.buckets if bucket >= dataset.lengths[:count].max())
    measure = jax.jit(
        partial(_influence, functions, bucket), compiler_options=compiler_options(), out_shardings=functions.replicated
    )
    influence = np.asarray(
        measure(state.params, state.buffers, dataset.arrays, np.arange(count, dtype=np.int32), places), np.float64
    )
    return summarised(influence)


def summarised(influence: np.ndarray) -> ReceptiveField | None:
    """Return the receptive field for the influence [N, L] of each distance; each example counts the same."""
    totals = influence.sum(1, keepdims=True)
    if not (np.isfinite(totals).all() and (totals > 0).all()):
        return None
    shares = (influence / totals).mean(0)
    others = np.cumsum(shares[1:])
    if not len(others) or not others[-1] > 0:
        return None
    distances = [0, *(2**n for n in range((len(shares) - 1).bit_length()))]
    within = [min(1.0, float(shares[: d + 1].sum())) for d in distances]
    return ReceptiveField(int(np.searchsorted(others, others[-1] / 2)) + 1, distances, within)


def _influence(
    functions: StepFunctions,
    bucket: int,
    params: PyTree,
    buffers: PyTree,
    data: DeviceSplit,
    indices: Array,
    places: Array,
) -> Array:
    """Return the influence of each distance on one position of each example, float32 [N, bucket]."""
    model = functions.classifier(TrainState(0, params, buffers, None))

    def one(example: tuple[Array, Array]) -> Array:
        index, place = example
        ids = gather(data, index[None], bucket)[0].reshape(-1, bucket)  # one document or two
        x, mask = model.embed(ids, ids > 0)
        if model.config.pooling != "mean":
            place = jnp.zeros_like(place)
        states, to_inputs = jax.vjp(lambda x: model.transform(x, mask), x)
        logits, to_states = jax.vjp(lambda states: model.classify(states, mask), states)
        (gradient,) = to_states(jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=logits.dtype))
        (of_inputs,) = to_inputs(jnp.zeros_like(gradient).at[0, place].set(gradient[0, place]))
        sizes = jnp.linalg.norm(of_inputs[0].astype(jnp.float32), axis=-1)
        distances = jnp.abs(jnp.arange(len(sizes)) - place)
        return jnp.zeros(bucket).at[distances].add(sizes, mode="drop")

    with jax.default_matmul_precision(functions.config.train.matmul_precision):
        return jax.lax.map(one, (indices, places))
