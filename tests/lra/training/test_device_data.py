"""Token ids formed on the device, against plain Python."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from lra.training.device_dataset import gather, put_split
from tasks.core import Split
from tasks.errors import DataError

ONE = SingleDeviceSharding(jax.devices()[0])


def expected(document: bytes, max_len: int, bucket: int) -> list[int]:
    ids = [byte + 1 for byte in document[:max_len]]
    return (ids + [0] * bucket)[:bucket]


def test_ragged_documents():
    documents = [b"abc", b"\x00\xff", b"a much longer document", b"z"]
    data = put_split(Split.from_documents(documents, [0, 1, 1, 0]), 10, ONE)
    ids, labels = gather(data, jnp.array([2, 0, 3, 1]), 10)
    assert ids.tolist() == [expected(documents[i], 10, 10) for i in (2, 0, 3, 1)]
    assert labels.tolist() == [1, 0, 0, 1]
    assert gather(data, jnp.array([3]), 4)[0].tolist() == [expected(b"z", 10, 4)]


def test_pairs_share_documents():
    documents = [b"abc", b"defgh"]
    data = put_split(Split.from_documents(documents, [1, 0, 1], [[0, 1], [1, 1], [1, 0]]), 4, ONE)
    ids, _ = gather(data, jnp.array([2, 0]), 4)
    assert ids.tolist() == [[expected(documents[d], 4, 4) for d in pair] for pair in ((1, 0), (0, 1))]


def test_images_are_rows_and_black_is_a_token():
    images = np.random.RandomState(0).randint(0, 256, (3, 4, 4)).astype(np.uint8)
    images[0] = 0
    data = put_split(Split.from_images(images, [0, 1, 2]), 16, ONE)
    ids, _ = gather(data, jnp.array([0, 2]), 16)
    np.testing.assert_array_equal(ids, images.reshape(3, 16)[[0, 2]].astype(int) + 1)
    cut, _ = gather(put_split(Split.from_images(images, [0, 1, 2]), 10, ONE), jnp.array([1]), 12)
    assert cut.tolist() == [expected(images[1].tobytes(), 10, 12)]


def test_an_empty_document_is_refused():
    with pytest.raises(DataError, match="empty document"):
        put_split(Split.from_documents([b"a", b""], [0, 1]), 4, ONE)
