"""Sinkhorn attention: balancing, limit cases, padding inside and between blocks, form of the reference suite."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.block_attention import merge_blocks, split_blocks
from models.core import Dims
from models.mixers import build
from models.mixers.local import local_attention
from models.mixers.sinkhorn import Sinkhorn, balance, sorted_attention, summed_attention
from models.mixers.softmax import Softmax

DIMS = Dims(d_model=8, num_heads=2, qkv_dim=8, max_len=20, mlp_dim=8)
SIZE = 5


def inputs(lengths: tuple[int, ...] = (20, 13)) -> tuple[jax.Array, ...]:
    q, k, v = jax.random.normal(jax.random.key(0), (3, len(lengths), 20, 2, 4))
    return q, k, v, jnp.arange(20)[None, :] < jnp.array(lengths)[:, None]


@jax.jit
def attend(s: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    q, k, v, mask = (split_blocks(x, SIZE) for x in (q, k, v, mask))
    return merge_blocks(sorted_attention(q, k, v, mask, s, 0.0, None), 20)


def test_balance_gives_a_doubly_stochastic_matrix_and_isolates_padding() -> None:
    r = 2 * jax.random.normal(jax.random.key(3), (2, 3, 6, 6))
    real = jnp.arange(6)[None, :] < jnp.array([6, 4])[:, None]
    s = balance(r, real, 60)
    np.testing.assert_allclose(s.sum(-1), 1, atol=1e-3)  # columns are balanced last, so rows are less exact
    np.testing.assert_allclose(s.sum(-2), 1, atol=1e-5)
    np.testing.assert_array_equal(s[1, :, 4:], jnp.broadcast_to(jnp.eye(6)[None, 4:], (3, 2, 6)))
    np.testing.assert_allclose(s[1, :, :4, :4], balance(r[1:, :, :4, :4], real[1:, :4], 60)[0], rtol=1e-5)
    # The textbook form divides by row sums and column sums in turn.
    want = np.exp(np.array(r[0], np.float64))
    for _ in range(7):
        want /= want.sum(-1, keepdims=True)
        want /= want.sum(-2, keepdims=True)
    np.testing.assert_allclose(balance(r, real, 7)[0], want, rtol=1e-5)


def test_identity_sorting_equals_local_attention() -> None:
    """Every key occurs twice with half its weight."""
    q, k, v, mask = inputs()
    s = jnp.broadcast_to(jnp.eye(4)[None, None], (2, 2, 4, 4))
    got, want = attend(s, q, k, v, mask), local_attention(q, k, v, mask, SIZE)
    np.testing.assert_allclose(jnp.where(mask[..., None, None], got - want, 0), 0, atol=1e-6)


def test_a_permutation_equals_dense_attention() -> None:
    """Heads sort differently. In the second example the fourth block is padding and the third is partly padding."""
    q, k, v, mask = inputs()
    orders = np.array([[[1, 2, 3, 0], [2, 0, 3, 1]], [[1, 2, 0, 3], [2, 0, 1, 3]]])  # [B, H, N]
    s = jnp.array(np.eye(4, dtype=np.float32)[orders])
    weights = np.zeros((2, 2, 20, 20))
    for b, h, i, j in np.ndindex(2, 2, 20, 20):
        count = (j // SIZE == i // SIZE) + (j // SIZE == orders[b, h, i // SIZE])
        weights[b, h, i, j] = count * mask[b, j] * np.exp(q[b, i, h] @ k[b, j, h] / 2)
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-30)
    want = np.einsum("bhij,bjhv->bihv", weights, v)
    np.testing.assert_allclose(attend(s, q, k, v, mask), want, atol=1e-6)


def test_soft_sorting_equals_the_formula_of_the_paper_without_padding() -> None:
    q, k, v, mask = inputs((20, 20))
    s = balance(jax.random.normal(jax.random.key(5), (2, 2, 4, 4)), jnp.ones((2, 4), bool), 2)
    want = np.zeros((2, 20, 2, 4))
    for b, i, h in np.ndindex(2, 20, 2):
        block = slice(i // SIZE * SIZE, i // SIZE * SIZE + SIZE)
        both = [
            np.concatenate([np.tensordot(s[b, h, i // SIZE], x[b, :, h].reshape(4, SIZE, 4), 1), x[b, block, h]])
            for x in (k, v)
        ]
        weights = np.exp(both[0] @ q[b, i, h] / 2)
        want[b, i, h] = weights / weights.sum() @ both[1]
    np.testing.assert_allclose(attend(s, q, k, v, mask), want, atol=1e-6)


def test_a_partly_padded_sorted_key_has_the_weight_of_its_real_share() -> None:
    """Two blocks have equal shares and one of them is padded at an index: the real key has half its weight."""
    q, k, v, mask = inputs((20, 8))
    s = jnp.broadcast_to(jnp.array([[0.5, 0.5], [0.5, 0.5]])[None, None], (1, 2, 2, 2))
    q, k, v, mask = (split_blocks(x[1:, :10], SIZE) for x in (q, k, v, mask))
    got = sorted_attention(q, k, v, mask, s, 0.0, None)[0, 0, 0, 0]
    entries = [(k[0, :, t, 0].mean(0), v[0, :, t, 0].mean(0), 1.0) for t in range(3)]
    entries += [(k[0, 0, t, 0], v[0, 0, t, 0], 0.5) for t in (3, 4)]
    entries += [(k[0, 0, t, 0], v[0, 0, t, 0], 1.0) for t in range(5)]
    weights = np.array([share * np.exp(q[0, 0, 0, 0] @ key / 2) for key, _, share in entries])
    np.testing.assert_allclose(got, weights / weights.sum() @ np.array([value for _, value, _ in entries]), atol=1e-6)


def test_one_block_equals_softmax_attention() -> None:
    mixer, softmax = Sinkhorn(DIMS, window=100, rngs=nnx.Rngs(0)), Softmax(DIMS, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (1, 20, 8))
    mask = jnp.arange(20)[None, :] < 17
    got, want = jax.jit(lambda x: (mixer(x, mask), softmax(x, mask)))(x)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_the_sorting_network_of_the_reference_suite_has_no_effect() -> None:
    """The einsums of the suite, whose sorted blocks do not depend on S, equal the form without S."""
    q, k, v, mask = inputs((20, 20))
    blocks = [np.array(x).reshape(2, SIZE, 4, 2, 4) for x in (q, k, v)]
    got = jax.jit(lambda: summed_attention(q, k, v, mask, 4, 0.0, None))()
    for seed in range(2):
        s = jax.nn.softmax(jax.random.normal(jax.random.key(seed), (2, 4, 2, 4)), -1)  # [B, N, H, N]
        want = np.zeros((2, SIZE, 4, 2, 4))
        for sorting in (False, True):
            key, value = (np.einsum("bskhd,bnhl->bsnhd", x, s) if sorting else x for x in blocks[1:])
            weights = np.exp(np.einsum("binhd,bjnhd->bnhij", blocks[0], key) / 2)
            want += np.einsum("bnhij,bjnhd->binhd", weights / weights.sum(-1, keepdims=True), value)
        np.testing.assert_allclose(got, want.reshape(2, 20, 2, 4), atol=1e-5)
    assert Sinkhorn(DIMS, form="lra", rngs=nnx.Rngs(0)).sort is None


@pytest.mark.parametrize("form", ["paper", "lra"])
def test_noise_dropout_and_gradients_are_independent_of_padding(form: Literal["paper", "lra"]) -> None:
    mixer = Sinkhorn(dataclasses.replace(DIMS, dropout=0.4), form=form, rngs=nnx.Rngs(0))
    graph, params = nnx.split(mixer)
    x = jax.random.normal(jax.random.key(1), (3, 20, 8))
    rng_keys = jax.random.split(jax.random.key(2), 3)
    results = []
    for length in (20, 13):
        mask = jnp.arange(length)[None, :] < jnp.array([13, 4, 0])[:, None]

        def loss(params: nnx.State, x: jax.Array, mask: jax.Array = mask) -> jax.Array:
            return (jnp.where(mask[..., None], nnx.merge(graph, params)(x, mask, rng_keys=rng_keys), 0) ** 2).sum()

        value, (d_params, d_x) = jax.jit(jax.value_and_grad(loss, (0, 1)))(params, x[:, :length])
        assert (jnp.where(mask[..., None], 0, d_x) == 0).all()
        results.append(jax.tree.leaves((value, d_params, d_x[:, :13])))
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5 * float(jnp.abs(want).max()))
        assert jnp.isfinite(got).all()


def test_noise_is_added_in_training_only() -> None:
    mixer = Sinkhorn(DIMS, rngs=nnx.Rngs(0))
    x, mask = jax.random.normal(jax.random.key(1), (1, 20, 8)), jnp.ones((1, 20), bool)
    rng_keys = jax.random.split(jax.random.key(2), 2)
    first, second, without = jax.jit(lambda: [mixer(x, mask, rng_keys=k) for k in (rng_keys[:1], rng_keys[1:], None)])()
    assert (first != second).any()
    assert (first != without).any()


@pytest.mark.parametrize("option", [{"window": 0}, {"iterations": 0}, {"temperature": 0.0}, {"form": "soft"}])
def test_invalid_options_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"sinkhorn: .*{next(iter(option))}"):
        build(Sinkhorn, DIMS, option, nnx.Rngs(0))
