"""Linear and softmax attention against their definitions in numpy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from models.mixers.linear import linear_attention
from models.mixers.softmax import softmax_attention


def test_softmax_and_linear_attention_equal_their_definitions() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, n, 3, 4)).astype(np.float32) for n in (7, 9, 9))
    mask = np.arange(9) < np.array([[9], [4]])
    logits = np.einsum("bihk,bjhk->bhij", q, k, dtype=np.float64)
    weights = np.exp(logits / 2) * mask[:, None, None]
    expected = weights / weights.sum(-1, keepdims=True)
    got = softmax_attention(jnp.array(q), jnp.array(k), jnp.array(v), jnp.array(mask))
    np.testing.assert_allclose(got, np.einsum("bhij,bjhv->bihv", expected, v), atol=1e-6)

    phi_q, phi_k = (np.where(x > 0, x + 1, np.exp(x)) for x in (q, k))
    weights = np.einsum("bihk,bjhk->bhij", phi_q, phi_k, dtype=np.float64) * mask[:, None, None]
    expected = np.einsum("bhij,bjhv->bihv", weights / (weights.sum(-1, keepdims=True) + 1e-6), v)
    got = linear_attention(jnp.array(q), jnp.array(k), jnp.array(v), jnp.array(mask))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
