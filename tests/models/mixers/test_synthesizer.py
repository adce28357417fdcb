"""Synthesizer in every mode against its definition; padding, parameters and options."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Buffer, Dims
from models.mixers import build, parse_options
from models.mixers.softmax import Softmax
from models.mixers.synthesizer import Synthesizer, outer_logits

H, K = 3, 8
DIMS = Dims(d_model=12, num_heads=H, qkv_dim=H * K, max_len=20, mlp_dim=24, dropout=0.3, bias=True)
LENGTHS = (9, 5)
MODES = ("random", "factorized_random", "dense", "factorized_dense")
every_mode = pytest.mark.parametrize("mode", MODES)
every_combination = pytest.mark.parametrize("dot_product", ["none", "weighted", "sum"])


def inputs(length: int = 9, dtype: Any = jnp.float32) -> tuple[jax.Array, jax.Array]:
    x = jax.random.normal(jax.random.key(1), (2, 20, 12), dtype)[:, :length]
    return x, jnp.arange(length)[None, :] < jnp.array(LENGTHS)[:, None]


def make(mode: Any = "random", dims: Dims = DIMS, **options: Any) -> Synthesizer:
    """Return a mixer with parameters so large that no logit is close to zero."""
    mixer = Synthesizer(dims, mode=mode, **options, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(mixer, nnx.Param, ...)
    return nnx.merge(graph, jax.tree.map(lambda p: 3 * p + 0.1 if p.ndim < 2 else 3 * p, params), rest)


def matrix(parameter: Any) -> np.ndarray:
    return np.asarray(parameter[...], np.float64)


def dense(layer: nnx.Linear, x: np.ndarray) -> np.ndarray:
    assert layer.bias is not None
    return x @ matrix(layer.kernel) + matrix(layer.bias)


def by_definition(mixer: Synthesizer, x: np.ndarray) -> np.ndarray:
    """Compute the output for one example [n, D] without padding."""
    n, heads = len(x), []
    for h in range(H):
        head = slice(h * K, (h + 1) * K)
        if mixer.mode == "random":
            s = matrix(mixer.table)[h, :n, :n]
        elif mixer.mode == "factorized_random":
            s = (matrix(mixer.left)[h] @ matrix(mixer.right)[h])[:n, :n]
        else:
            columns = np.maximum(dense(mixer.hidden, x), 0)[:, head] @ matrix(mixer.columns)[h]
            if mixer.mode == "factorized_dense":
                a, b = columns[:, : mixer.blocks], columns[:, mixer.blocks :]
                columns = np.stack([np.kron(a[i], b[i]) for i in range(n)])
            s = columns[:, :n]
        if mixer.dot_product != "none":
            dot = dense(mixer.query, x)[:, head] @ dense(mixer.key, x)[:, head].T / math.sqrt(K)
            alpha = 1 / (1 + math.exp(-float(mixer.alpha[...]))) if mixer.dot_product == "weighted" else None
            s = dot + s if alpha is None else (1 - alpha) * dot + alpha * s
        weights = np.exp(s - s.max(-1, keepdims=True))
        heads.append(weights / weights.sum(-1, keepdims=True) @ dense(mixer.value, x)[:, head])
    return dense(mixer.output, np.concatenate(heads, -1))


@pytest.mark.usefixtures("x64")
@every_combination
@every_mode
def test_equals_its_definition(mode: str, dot_product: str) -> None:
    dims = dataclasses.replace(DIMS, dtype=jnp.float64)
    mixer = make(mode, dims, dot_product=dot_product, **({"blocks": 6} if mode == "factorized_dense" else {}))
    x, mask = inputs(dtype=jnp.float64)
    graph, state = nnx.split(mixer)
    y = jax.jit(lambda x, mask: nnx.merge(graph, state)(x, mask))(x, mask)
    for b, n in enumerate(LENGTHS):
        np.testing.assert_allclose(y[b, :n], by_definition(mixer, np.asarray(x[b, :n])), rtol=1e-9, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "dot_product"), [("random", "none"), ("random", "sum"), *((mode, "weighted") for mode in MODES)]
)
def test_padding_does_not_change_outputs_and_every_parameter_has_a_gradient(mode: str, dot_product: str) -> None:
    mixer = make(mode, dot_product=dot_product)
    graph, params, rest = nnx.split(mixer, nnx.Param, ...)
    x, mask = inputs()
    padded, padded_mask = inputs(20)
    rng_keys = jax.random.split(jax.random.key(2), 2)

    @jax.jit
    def run(params: nnx.State, x: jax.Array, mask: jax.Array, rng_keys: jax.Array) -> Any:
        def loss(params: nnx.State, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            y = jnp.where(mask[..., None], nnx.merge(graph, params, rest)(x, mask, rng_keys=rng_keys), 0)
            return (y**2).sum(), y

        (_, y), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
        return y, *gradients

    y, d_params, d_x = run(params, x, mask, rng_keys)
    padded_y, padded_d_params, padded_d_x = run(
        params, jnp.where(padded_mask[..., None], padded, 1e3), padded_mask, rng_keys
    )
    for got, want in ((padded_y, y), (padded_d_x, d_x)):
        np.testing.assert_allclose(got[:, :9], want, rtol=1e-4, atol=1e-5 * float(jnp.abs(want).max()))
        assert (jnp.where(padded_mask[..., None], 0, got) == 0).all()
    assert (y != jnp.where(mask[..., None], mixer(x, mask), 0)).any()  # dropout is active
    for (path, got), want in zip(
        jax.tree_util.tree_leaves_with_path(padded_d_params), jax.tree.leaves(d_params), strict=True
    ):
        if "'key'" in jax.tree_util.keystr(path) and got.ndim == 1:
            continue  # it adds a constant to all logits of a row, which softmax ignores
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5 * float(jnp.abs(want).max()))
        assert jnp.abs(got).max() > 1e-6, jax.tree_util.keystr(path)


@every_mode
def test_bfloat16_is_close_to_float32(mode: Any) -> None:
    x, mask = inputs()
    half = Synthesizer(dataclasses.replace(DIMS, dtype=jnp.bfloat16), mode=mode, dot_product="sum", rngs=nnx.Rngs(0))
    y = half(x.astype(jnp.bfloat16), mask)
    assert y.dtype == jnp.bfloat16
    want = Synthesizer(DIMS, mode=mode, dot_product="sum", rngs=nnx.Rngs(0))(x, mask)
    np.testing.assert_allclose(y.astype(jnp.float32), want, atol=0.05 * float(jnp.abs(want).max()))


def test_a_table_of_zeros_gives_the_mean_or_softmax_attention() -> None:
    x, mask = inputs()
    mixer = make()
    mixer.table = nnx.Param(jnp.zeros((H, 20, 20)))
    mean = (mixer.value(x) * mask[..., None]).sum(1) / mask.sum(1)[:, None]
    want = jnp.broadcast_to(mixer.output(mean)[:, None], (2, 9, 12))
    np.testing.assert_allclose(mixer(x, mask), want, rtol=1e-5, atol=1e-5)

    mixer = make(dot_product="sum")
    mixer.table = nnx.Param(jnp.zeros((H, 20, 20)))
    softmax = Softmax(DIMS, rngs=nnx.Rngs(1))
    for name in ("query", "key", "value", "output"):
        setattr(softmax, name, getattr(mixer, name))
    np.testing.assert_allclose(mixer(x, mask), softmax(x, mask), rtol=1e-5, atol=1e-5)


@every_mode
def test_logits_of_a_position_depend_on_its_own_token_only(mode: str) -> None:
    x, _ = inputs()
    mixer = make(mode)
    logits, other = mixer.synthetic(x), mixer.synthetic(x.at[:, 4].add(1))
    changed = (logits != other).any((0, 1, 3))
    assert changed.tolist() == [i == 4 and "dense" in mode for i in range(9)][: len(changed)]
    assert logits.shape == (1 if "random" in mode else 2, H, 9, 9)


def test_every_pair_of_factors_occurs_once() -> None:
    parts = jnp.concatenate([10.0 ** jnp.arange(3), jnp.arange(1.0, 5)])[None]
    got = outer_logits(parts, 3, 11)[0]
    np.testing.assert_allclose(got, [1, 2, 3, 4, 10, 20, 30, 40, 100, 200, 300], rtol=1e-6)


def test_parameter_counts() -> None:
    dims = dataclasses.replace(DIMS, bias=False, max_len=37)
    base = 2 * 12 * 24  # value and output

    def count(**options: Any) -> int:
        params = nnx.state(Synthesizer(dims, **options, rngs=nnx.Rngs(0)), nnx.Param)
        return sum(p.size for p in jax.tree.leaves(params)) - base

    assert count() == H * 37**2
    assert count(dot_product="sum") == H * 37**2 + base
    assert count(dot_product="weighted") == H * 37**2 + base + 1
    assert count(mode="factorized_random") == 2 * H * 37 * 8
    assert count(mode="factorized_random", rank=100) == 2 * H * 37 * 37  # rank is at most max_len
    assert count(mode="dense") == 12 * 24 + 24 + 24 * 37
    assert count(mode="factorized_dense") == 12 * 24 + 24 + 24 * (7 + 6)
    assert count(mode="factorized_dense", blocks=4) == 12 * 24 + 24 + 24 * (4 + 10)
    assert count(trained=False) == count(mode="factorized_random", trained=False) == 0


def test_a_fixed_table_is_a_buffer_with_small_values() -> None:
    mixer = Synthesizer(DIMS, trained=False, rngs=nnx.Rngs(0))
    assert isinstance(mixer.table, Buffer)
    np.testing.assert_allclose(jnp.abs(mixer.table[...]).max(), math.sqrt(3 / (H * 20)), rtol=0.02)
    assert make("factorized_dense", dataclasses.replace(DIMS, max_len=1))(*(a[:, :1] for a in inputs())).shape[1] == 1


def test_invalid_options_are_refused() -> None:
    for options, message in (
        ({"mode": "sparse"}, "option mode=sparse: not one of random, factorized_random, dense, factorized_dense"),
        ({"dot_product": "mean"}, "option dot_product=mean: not one of none, weighted, sum"),
        ({"rank": 0}, "option rank=0: must be a whole number from 1 to"),
        ({"blocks": 0}, "option blocks=0: must be a whole number from 1 to"),
        ({"mode": "dense", "trained": False}, "option trained=false: mode=dense has no table"),
    ):
        with pytest.raises(ValueError, match=message):
            build(Synthesizer, DIMS, options, nnx.Rngs(0))
    texts = ["dot_product=sum", "trained=false", "blocks=none"]
    assert parse_options(Synthesizer, texts) == {"dot_product": "sum", "trained": False, "blocks": None}
