"""Retention against its quadratic form in float64."""

from __future__ import annotations

import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.mixers.retnet import RetNet
from tests.models.recurrent import assert_equal_to, of

DIMS = Dims(d_model=12, num_heads=2, qkv_dim=12, max_len=80, mlp_dim=12)


def reference(mixer: RetNet, x: np.ndarray) -> np.ndarray:
    """One example without padding, x [L, D]; channels as complex numbers, which are turned."""
    length, heads, width = len(x), 2, 6
    q, k, v = ((x @ of(layer.kernel)).reshape(length, heads, -1) for layer in (mixer.query, mixer.key, mixer.value))
    turns = np.exp(1j * np.arange(length)[:, None, None] * 10_000 ** -np.linspace(0, 1, width // 2))
    q, k = ((y[..., : width // 2] + 1j * y[..., width // 2 :]) * turns for y in (q, k))
    distance = np.abs(np.arange(length)[:, None] - np.arange(length))
    decay = (1 - 2.0 ** (-5 - np.arange(heads))) ** distance[:, :, None]
    weights = np.einsum("ihp,jhp->ijh", q, k.conj()).real * decay / np.sqrt(width)
    y = np.einsum("ijh,jhv->ihv", weights, v)
    y = (y / np.sqrt((y * y).mean(-1, keepdims=True) + 1e-5)).reshape(length, -1)
    gate = x @ of(mixer.gate.kernel)
    return (y * gate / (1 + np.exp(-gate))) @ of(mixer.output.kernel)


@pytest.mark.parametrize("expand", [1, 2])
def test_it_is_the_quadratic_form(expand: int) -> None:
    mixer = RetNet(DIMS, expand=expand, rngs=nnx.Rngs(0))
    assert_equal_to(lambda x: reference(mixer, x), mixer)
