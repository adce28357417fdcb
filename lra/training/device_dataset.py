"""A split on the devices, and batches of token ids gathered from it inside jit."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec, Sharding

from lra.training.batching import choose_buckets
from tasks.core import Split
from tasks.errors import DataError


class DeviceSplit(NamedTuple):
    """The arrays of a split: D documents and N examples.

    Attributes:
      data: uint8 [D, width] if all documents have the same length, else [total]
      starts: int32 [D], offset of each document in `data`
      lengths: int32 [D], cut to max_len
      labels: int32 [N]
      items: int32 [N] or [N, 2], the documents of each example
    """

    data: jax.Array
    starts: jax.Array
    lengths: jax.Array
    labels: jax.Array
    items: jax.Array


@dataclasses.dataclass(frozen=True)
class DeviceDataset:
    """A split on the devices, with what the host needs to form micro-batches.

    Attributes:
      lengths: [N], tokens of each example
      buckets: lengths that examples are padded to
      labels: [N]
      count: the first `count` examples are used
    """

    arrays: DeviceSplit
    lengths: np.ndarray
    buckets: tuple[int, ...]
    labels: np.ndarray
    count: int

    @classmethod
    def put(cls, split: Split, max_len: int, sharding: Sharding, *, limit: int | None = None) -> DeviceDataset:
        """Copy a split to the devices, its documents cut to max_len.

        Raises:
          DataError: as `put_split`
        """
        lengths = example_lengths(split, max_len)
        count = len(split) if limit is None else min(limit, len(split))
        buckets = choose_buckets(lengths, max_len)
        return cls(put_split(split, max_len, sharding), lengths, buckets, split.labels, count)

    @property
    def tokens(self) -> int:
        """The tokens of the examples that are used."""
        return int(self.lengths[: self.count].sum())


@dataclasses.dataclass(frozen=True)
class Datasets:
    """The splits of a task on the devices; validation is None if it is not used."""

    train: DeviceDataset
    validation: DeviceDataset | None
    test: DeviceDataset


def example_lengths(split: Split, max_len: int) -> np.ndarray:
    """Return the tokens of each example, [N]; for pairs, those of the longer document."""
    lengths = np.minimum(split.lengths, max_len)
    return lengths if lengths.ndim == 1 else lengths.max(1)


def put_split(split: Split, max_len: int, sharding: Sharding) -> DeviceSplit:
    """Copy a split to the devices, its documents cut to max_len.

    Raises:
      DataError: a document is empty, or ragged data have more than 2 GiB (int32 offsets)
    """
    lengths = np.diff(split.offsets)
    if not len(split) or lengths.min() < 1:
        raise DataError("the split has no examples, or an empty document; it cannot be used")
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
    return DeviceSplit(**jax.device_put(arrays, sharding))


def gather(split: DeviceSplit, indices: jax.Array, bucket: int, length_shards: int = 1) -> tuple[jax.Array, jax.Array]:
    """Return token ids int32 [m, bucket] or [m, 2, bucket], and labels int32 [m].

    A token id is a byte + 1; 0 is padding. With several `length_shards`, positions are padded to a multiple of them and
    sharded along the mesh axis "length".
    """
    documents = split.items[indices]
    length = -(-bucket // length_shards) * length_shards
    position = jnp.arange(length)
    if split.data.ndim == 2:
        rows = split.data[documents][..., :length]
        document_bytes = jnp.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, length - rows.shape[-1])])
    else:
        document_bytes = split.data[split.starts[documents][..., None] + position]
    real = position < split.lengths[documents][..., None]
    ids = jnp.where(real, document_bytes.astype(jnp.int32) + 1, 0)
    if length_shards > 1:
        ids = jax.lax.with_sharding_constraint(ids, PartitionSpec(*[None] * (ids.ndim - 1), "length"))
    return ids, split.labels[indices]
