"""A split on the device, and batches of token ids gathered from it inside jit."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from tasks.core import Split
from tasks.errors import DataError


class DeviceSplit(NamedTuple):
    """data: uint8 [D, width] where all documents are equally long, else [total]; starts, lengths: int32 [D];
    labels: int32 [N]; items: int32 [N] or [N, 2]."""

    data: jax.Array
    starts: jax.Array
    lengths: jax.Array
    labels: jax.Array
    items: jax.Array


def example_lengths(split: Split, max_len: int) -> np.ndarray:
    """Tokens of each example, [N]; of a pair, those of its longer document."""
    lengths = np.minimum(split.lengths, max_len)
    return lengths if lengths.ndim == 1 else lengths.max(1)


def put(split: Split, max_len: int, everywhere: Sharding) -> DeviceSplit:
    """The split on every device, documents cut to max_len.

    Raises:
      DataError: an empty document, or ragged data beyond 2 GiB (int32 offsets).
    """
    lengths = np.diff(split.offsets)
    if not len(split) or lengths.min() < 1:
        raise DataError("a split without examples, or with an empty document, cannot be trained on")
    if (lengths == lengths[0]).all():  # rows: no offset can overflow, however large the split
        data = split.data.reshape(len(lengths), -1)[:, :max_len]
    elif len(split.data) + max_len < 2**31:
        data = np.concatenate([split.data, np.zeros(max_len, np.uint8)])
    else:
        raise DataError(f"a ragged split of {len(split.data)} bytes is too large: 2 GiB at most")
    arrays = {
        "data": data,
        "starts": np.asarray(split.offsets[:-1] if data.ndim == 1 else lengths * 0, np.int32),
        "lengths": np.asarray(np.minimum(lengths, max_len), np.int32),
        "labels": np.asarray(split.labels, np.int32),
        "items": split.items,
    }
    return DeviceSplit(**jax.device_put(arrays, everywhere))


def gather(split: DeviceSplit, indices: jax.Array, bucket: int) -> tuple[jax.Array, jax.Array]:
    """Token ids (byte + 1; 0 is padding) int32 [m, bucket] or [m, 2, bucket], and labels int32 [m]."""
    documents = split.items[indices]
    position = jnp.arange(bucket)
    if split.data.ndim == 2:
        rows = split.data[documents][..., :bucket]
        bytes_ = jnp.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, bucket - rows.shape[-1])])
    else:
        bytes_ = split.data[split.starts[documents][..., None] + position]
    real = position < split.lengths[documents][..., None]
    return jnp.where(real, bytes_.astype(jnp.int32) + 1, 0), split.labels[indices]
