"""HGRN2 against its recurrence, token by token in float64."""

from __future__ import annotations

import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.mixers.hgrn2 import HGRN2
from tests.models.recurrent import assert_equal_to, of, sigmoid

DIMS = Dims(d_model=12, num_heads=3, qkv_dim=12, max_len=80, mlp_dim=12)


def reference(mixer: HGRN2, x: np.ndarray) -> np.ndarray:
    """One example without padding, x [L, D]; the backward direction sees later positions alone."""
    length, heads, c = len(x), 3, mixer.lower_bound
    q, f, v = ((x @ of(layer.kernel)).reshape(length, heads, -1) for layer in (mixer.query, mixer.forget, mixer.value))
    q, f = q * sigmoid(q), c + (1 - c) * sigmoid(f)
    y = np.zeros_like(v)
    for direction in (0, 1):
        state = np.zeros((heads, 4, 4))
        for t in range(length) if direction == 0 else range(length - 1, -1, -1):
            state = f[t][:, :, None] * state
            if direction == 1:
                y[t] += np.einsum("hk,hkv->hv", q[t], state)
            state = state + (1 - f[t])[:, :, None] * v[t][:, None]
            if direction == 0:
                y[t] += np.einsum("hk,hkv->hv", q[t], state)
    y = y.reshape(length, -1)
    y = y / np.sqrt((y * y).mean(-1, keepdims=True) + 1e-5) * of(mixer.norm_scale)
    return y @ of(mixer.output.kernel)


@pytest.mark.parametrize("lower_bound", [0.0, 0.9])
def test_it_is_the_recurrence(lower_bound: float) -> None:
    mixer = HGRN2(DIMS, lower_bound=lower_bound, rngs=nnx.Rngs(0))
    assert_equal_to(lambda x: reference(mixer, x), mixer)
