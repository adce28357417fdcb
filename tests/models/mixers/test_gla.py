"""GLA against its recurrence, token by token in float64."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.mixers.gla import GLA
from tests.models.recurrent import assert_equal_to, of, sigmoid

DIMS = Dims(d_model=12, num_heads=3, qkv_dim=12, max_len=80, mlp_dim=12)


def reference(mixer: GLA, x: np.ndarray) -> np.ndarray:
    """One example without padding, x [L, D]; a state for each direction and head."""
    heads, length = 3, len(x)
    q, k, v = (x @ of(layer.kernel) for layer in (mixer.query, mixer.key, mixer.value))
    logits = x @ of(mixer.decay_in.kernel) @ of(mixer.decay_out.kernel) + np.asarray(mixer.decay_out.bias[...])
    decay = sigmoid(logits) ** (1 / 16)
    q, k, v, decay = (y.reshape(length, heads, -1) for y in (q, k, v, decay))
    y = np.zeros_like(v)
    for direction in range(1 + mixer.bidirectional):
        order = range(length) if direction == 0 else range(length - 1, -1, -1)
        width = q.shape[-1]
        state = np.zeros((heads, width, v.shape[-1]))
        for t in order:
            state = decay[t, :, direction * width : (direction + 1) * width, None] * state
            if direction == 1:  # the position itself is in the first direction already
                y[t] += np.einsum("hk,hkv->hv", q[t], state) / np.sqrt(width)
            state = state + k[t, :, :, None] * v[t, :, None]
            if direction == 0:
                y[t] += np.einsum("hk,hkv->hv", q[t], state) / np.sqrt(width)
    y = y / np.sqrt((y * y).mean(-1, keepdims=True) + 1e-5) * np.asarray(mixer.norm_scale[...], np.float64)
    y = y.reshape(length, -1)
    if mixer.gate is not None:
        gate = x @ of(mixer.gate.kernel)
        y = y * gate * sigmoid(gate)
    return y @ of(mixer.output.kernel)


@pytest.mark.parametrize("options", [{}, {"bidirectional": False}, {"output_gate": False, "gate_rank": 3}])
def test_it_is_the_recurrence(options: dict) -> None:
    mixer = GLA(DIMS, **options, rngs=nnx.Rngs(0))
    assert_equal_to(lambda x: reference(mixer, x), mixer)


def test_it_has_about_the_parameters_of_softmax_attention() -> None:
    dims = Dims(d_model=256, num_heads=4, qkv_dim=256, max_len=80, mlp_dim=12)
    parameters = sum(p.size for p in jax.tree.leaves(nnx.state(GLA(dims, rngs=nnx.Rngs(0)), nnx.Param)))
    assert parameters == pytest.approx(4 * 256**2, rel=0.05)
