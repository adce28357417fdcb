"""LION against its quadratic form in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.mixers.lion import LION
from tests.models.recurrent import assert_equal_to, of, sigmoid

DIMS = Dims(d_model=12, num_heads=3, qkv_dim=12, max_len=80, mlp_dim=12)


def reference(mixer: LION, x: np.ndarray) -> np.ndarray:
    """One example without padding, x [L, D], by the matrix of all weights."""
    length, heads = len(x), 3
    q, k, v = ((x @ of(layer.kernel)).reshape(length, heads, -1) for layer in (mixer.query, mixer.key, mixer.value))
    if mixer.features == "silu":
        q, k = (y * sigmoid(y) + 0.5 for y in (q, k))
        q, k = (y / np.linalg.norm(y, axis=-1, keepdims=True) for y in (q, k))
    else:
        q, k = (np.where(y > 0, y + 1, np.exp(np.minimum(y, 0))) for y in (q, k))
    a = np.ones((length, heads))
    if mixer.decay == "fixed":
        a = a * sigmoid(np.asarray(mixer.decay_logit[...], np.float64))
    if mixer.decay == "selective":
        a = 1 - sigmoid(x @ of(mixer.decay_layer.kernel) + np.asarray(mixer.decay_layer.bias[...], np.float64))
    m = np.ones((length, length, heads))
    for i in range(length):
        for j in range(length):
            m[i, j] = a[j:i].prod(0) if i > j else a[i + 1 : j + 1].prod(0)
    weights = np.einsum("ihk,jhk->ijh", q, k) * m
    y = np.einsum("ijh,jhv->ihv", weights, v) / weights.sum(1)[..., None]
    return y.reshape(length, -1) @ of(mixer.output.kernel)


@pytest.mark.parametrize("features", ["silu", "elu"])
@pytest.mark.parametrize("decay", ["none", "fixed", "selective"])
def test_it_is_the_quadratic_form(decay: Any, features: Any) -> None:
    mixer = LION(DIMS, decay=decay, features=features, rngs=nnx.Rngs(0))
    assert_equal_to(lambda x: reference(mixer, x), mixer)
