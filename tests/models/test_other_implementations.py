"""Agreement with implementations that others wrote: their outputs are stored in tests/data/."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from models.decayed_attention import decayed_attention
from models.delta_rule import gated_delta_rule
from models.mixers.mlstm import matrix_memory

STORED = np.load(Path(__file__).parents[1] / "data" / "jax_linear_attention.npz")
q, k, unit_k, v, input_gate, scalar_decay, vector_decay, beta = (
    STORED[name] for name in ("q", "k", "unit_k", "v", "input_gate", "scalar_decay", "vector_decay", "beta")
)


def mlstm() -> np.ndarray:
    """The direction from left to right; the other one gets gates that do not matter."""
    gates = (jnp.stack([x, jnp.zeros_like(x)], 2) for x in (input_gate, scalar_decay))
    return np.asarray(matrix_memory(q, k, v, jnp.ones(q.shape[:2], bool), *gates)[:, :, 0])


@pytest.mark.parametrize(
    ("name", "compute"),
    [
        ("simple_gla", lambda: decayed_attention(q, k, v, scalar_decay[..., None])),
        ("gla", lambda: decayed_attention(q, k, v, vector_decay)),
        ("delta_rule", lambda: gated_delta_rule(q, unit_k, v, beta, jnp.zeros_like(beta))),
        ("gated_delta_rule", lambda: gated_delta_rule(q, unit_k, v, beta, scalar_decay)),
        ("mlstm", mlstm),
    ],
)
def test_a_recurrence_equals_that_of_jax_linear_attention(name: str, compute: Callable[[], np.ndarray]) -> None:
    """`simple_gla` is the recurrence of RetNet and Mamba-2, `gla` that of GLA and HGRN2."""
    np.testing.assert_allclose(compute(), STORED[f"output_of_{name}"], rtol=2e-4, atol=2e-5)
