"""The encoder against a reference in numpy; padding, dropout, dtypes and parameter counts."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.core import Dims
from models.encoder import Classifier, EncoderConfig
from models.mixers import build, resolve

CONFIG = EncoderConfig(
    vocab_size=11, num_classes=5, max_len=30, num_layers=2, d_model=12, num_heads=2, qkv_dim=16, mlp_dim=20,
    dropout=0.2, attention_dropout=0.2, head=(7,), embed_std=1.0,
)  # fmt: skip
LENGTHS = np.array([17, 6, 1])

poolings = pytest.mark.parametrize("pooling", ["cls", "mean", "first"])


def make(config: EncoderConfig, mixer: str = "cosformer") -> tuple[Classifier, nnx.State, Any]:
    """Return a model, its parameters, and the function (params, ids, mask, rng_keys) -> logits."""

    def make_mixer(dims: Dims, layer: int, rngs: nnx.Rngs) -> Any:
        return build(resolve(mixer).cls, dims, {}, rngs)

    model = Classifier(config, make_mixer, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def apply(params: nnx.State, ids: jax.Array, mask: jax.Array | None = None, rng_keys: Any = None) -> jax.Array:
        return nnx.merge(graph, params, rest)(ids, mask, rng_keys=rng_keys)

    return model, params, apply


def tokens(pair: Any, length: int = LENGTHS.max()) -> jax.Array:
    """Return ids [3, L], or [3, 2, L] whose second documents have other lengths."""
    ids = np.random.default_rng(1).integers(1, CONFIG.vocab_size, (3, 2, CONFIG.max_len))
    ids *= np.arange(CONFIG.max_len) < np.stack([LENGTHS, LENGTHS[::-1]], 1)[..., None]
    return jnp.asarray(ids[..., :length] if pair else ids[:, 0, :length], jnp.int32)


def example_keys(n: int = 3) -> jax.Array:
    return jax.random.split(jax.random.key(4), n)


@functools.partial(jax.jit, static_argnums=0)
def loss_and_gradient(apply: Any, params: nnx.State, ids: jax.Array, mask: Any, rng_keys: Any) -> Any:
    def loss(params: nnx.State) -> Any:
        logits = apply(params, ids, mask, rng_keys)
        return -(jax.nn.log_softmax(logits)[:, 2]).sum(), logits

    (_, logits), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    return logits, gradient


def assert_close(got: Any, want: Any) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * max(1.0, float(jnp.abs(jnp.asarray(want)).max())))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pooling", "pair"), [("cls", None), ("mean", None), ("first", None), ("mean", "nli"), ("first", "concat")]
)
def test_logits_and_gradients_are_independent_of_padding_and_batch(pooling: Any, pair: Any) -> None:
    _, params, apply = make(dataclasses.replace(CONFIG, pooling=pooling, pair=pair, num_layers=1))
    ids, rng_keys = tokens(pair), example_keys()
    logits, gradient = loss_and_gradient(apply, params, ids, ids != 0, rng_keys)
    assert logits.shape == (3, 5)
    assert logits.dtype == jnp.float32

    padded = tokens(pair, CONFIG.max_len)
    filled = jnp.where(padded == 0, 9, padded)
    for other in (padded, filled):
        got = loss_and_gradient(apply, params, other, padded != 0, rng_keys)
        jax.tree.map(assert_close, got, (logits, gradient))

    assert_close(apply(params, ids[1:2], None, rng_keys[1:2]), logits[1:2])  # one example, with the default mask
    changed, _ = loss_and_gradient(apply, params, ids, ids != 0, example_keys(4)[1:])
    assert (jnp.abs(changed - logits).max(1) > 1e-3).all()


@pytest.mark.slow
@poolings
@pytest.mark.parametrize("mixer", ["cosformer", "softmax"])
def test_an_empty_example_gives_finite_logits_and_gradients(pooling: Any, mixer: str) -> None:
    _, params, apply = make(dataclasses.replace(CONFIG, pooling=pooling, num_layers=1), mixer)
    ids = tokens(None).at[1].set(0)
    results = loss_and_gradient(apply, params, ids, None, example_keys())
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(results))
    assert jnp.isfinite(apply(params, ids)).all()


def test_padding_has_zero_gradient() -> None:
    _, params, apply = make(CONFIG)
    _, gradient = loss_and_gradient(apply, params, tokens(None, CONFIG.max_len), None, None)
    assert (gradient["tokens"][0] == 0).all()
    assert (gradient["positions"][LENGTHS.max() :] == 0).all()
    assert all((jnp.abs(g) > 0).any() for g in jax.tree.leaves(gradient))


@pytest.mark.slow
@pytest.mark.parametrize("mixer", ["cosformer", "softmax"])
def test_remat_does_not_change_the_gradient(mixer: str) -> None:
    _, params, apply = make(CONFIG, mixer)
    _, _, apply_remat = make(dataclasses.replace(CONFIG, remat=True), mixer)
    arguments = (params, tokens(None), None, example_keys())
    jax.tree.map(assert_close, loss_and_gradient(apply_remat, *arguments), loss_and_gradient(apply, *arguments))


@pytest.mark.slow
def test_eager_and_bfloat16_are_close_to_jit_and_float32() -> None:
    model, params, apply = make(CONFIG)
    ids, rng_keys = tokens(None), example_keys()
    assert_close(model(ids, rng_keys=rng_keys), apply(params, ids, None, rng_keys))
    _, half_params, half = make(dataclasses.replace(CONFIG, dtype=jnp.bfloat16))
    logits = half(half_params, ids)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, apply(params, ids), atol=0.1)
    assert {p.dtype for p in jax.tree.leaves(half_params)} == {np.dtype("float32")}


def test_documents_of_a_pair_have_independent_dropout() -> None:
    class Pooled(Classifier):
        def _logits(self, x: jax.Array) -> jax.Array:
            return x

    config = dataclasses.replace(CONFIG, pair="concat")
    model = Pooled(config, lambda dims, layer, rngs: build(resolve("linear").cls, dims, {}, rngs), rngs=nnx.Rngs(0))
    ids = tokens(None)
    same_pair = jnp.stack([ids, ids], 1)
    first, second = np.split(np.asarray(model(same_pair)), 2, -1)
    np.testing.assert_allclose(first, second, atol=1e-6)
    first, second = np.split(np.asarray(model(same_pair, rng_keys=example_keys())), 2, -1)
    assert (np.abs(first - second).max(-1) > 1e-3).all()


class Reference:
    """The encoder in numpy: one document at a time, softmax attention, no padding."""

    def __init__(self, config: EncoderConfig, params: nnx.State) -> None:
        self.config = config
        self.p = jax.tree.map(lambda x: np.asarray(x, np.float64), nnx.to_pure_dict(params))

    def linear(self, p: Any, x: np.ndarray) -> np.ndarray:
        return x @ p["kernel"] + p.get("bias", 0)

    def norm(self, p: Any, x: np.ndarray) -> np.ndarray:
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]

    def attention(self, p: Any, x: np.ndarray) -> np.ndarray:
        width = self.config.qkv_dim // self.config.num_heads
        out = []
        for h in range(self.config.num_heads):
            q, k, v = (self.linear(p[n], x)[:, h * width : (h + 1) * width] for n in ("query", "key", "value"))
            weights = np.exp(q @ k.T / np.sqrt(width))
            out.append(weights / weights.sum(-1, keepdims=True) @ v)
        return self.linear(p["output"], np.concatenate(out, -1))

    def encode(self, ids: np.ndarray) -> np.ndarray:
        x = self.p["tokens"][ids]
        if self.config.pooling == "cls":
            x = np.concatenate([self.p["cls"][None], x])
        for i, row in enumerate(x):
            for d in range(len(row)):
                rate = 10000.0 ** (-(d // 2 * 2) / len(row))
                wave = (math.cos if d % 2 else math.sin)(i * rate)
                row[d] += wave if self.config.positions == "sinusoidal" else self.p["positions"][i, d]
        for layer in range(self.config.num_layers):
            p = self.p["blocks"][layer]
            x = x + self.attention(p["mixer"], self.norm(p["mixer_norm"], x))
            hidden = self.linear(p["expand"], self.norm(p["mlp_norm"], x))
            hidden = hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2
            x = x + self.linear(p["contract"], hidden)
        x = self.norm(self.p["norm"], x)
        return x.mean(0) if self.config.pooling == "mean" else x[0]

    def logits(self, ids: np.ndarray) -> np.ndarray:
        if self.config.pair is None:
            x = self.encode(ids[ids > 0])
        else:
            a, b = (self.encode(document[document > 0]) for document in ids)
            x = np.concatenate([a, b] if self.config.pair == "concat" else [a, b, a * b, a - b])
        last = len(self.config.head)
        for i in range(last):
            x = np.maximum(self.linear(self.p["head"][i], x), 0)
        return self.linear(self.p["head"][last], x)


@pytest.mark.parametrize(
    ("pooling", "positions", "pair", "head", "bias"),
    [
        ("cls", "learned", None, (), True),
        ("cls", "sinusoidal", None, (7,), False),
        ("mean", "learned", "nli", (7,), True),
        ("mean", "sinusoidal", None, (8, 7), False),
        ("first", "sinusoidal", "concat", (8, 7), False),
    ],
)
def test_equals_a_reference_in_numpy(pooling: Any, positions: Any, pair: Any, head: Any, bias: bool) -> None:
    config = dataclasses.replace(CONFIG, pooling=pooling, positions=positions, pair=pair, head=head, bias=bias)
    _, params, apply = make(config, "softmax")
    keys = iter(jax.random.split(jax.random.key(9), 200))
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(next(keys), p.shape), params)  # no zero biases
    ids, reference = tokens(pair), Reference(config, params)
    expected = np.stack([reference.logits(row) for row in np.asarray(ids)])
    np.testing.assert_allclose(apply(params, ids), expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(
    ("millions", "sizes"),
    [  # base configs of google-research/long-range-arena
        (8.95, {"vocab_size": 17, "num_classes": 10, "max_len": 2000, "d_model": 512, "num_heads": 8, "mlp_dim": 1024}),
        (3.49, {"vocab_size": 257, "num_classes": 2, "max_len": 1000, "d_model": 256, "num_heads": 4, "mlp_dim": 1024}),
    ],
    ids=["listops", "text"],
)
def test_parameter_counts_of_the_published_configurations(millions: float, sizes: dict[str, int]) -> None:
    head = (sizes["mlp_dim"],)
    config = EncoderConfig(
        num_layers=4, qkv_dim=sizes["d_model"], positions="sinusoidal", pooling="cls", head=head, **sizes
    )
    shapes = nnx.eval_shape(lambda: nnx.state(make(config)[0], nnx.Param))
    count = sum(math.prod(p.shape) for p in jax.tree.leaves(shapes))
    assert round(count / 1e6, 2) == millions


def test_make_mixer_receives_max_len_with_cls_and_the_layer() -> None:
    received: list[tuple[Dims, int]] = []

    def make_mixer(dims: Dims, layer: int, rngs: nnx.Rngs) -> Any:
        received.append((dims, layer))
        return build(resolve("linear").cls, dims, {}, rngs)

    model = Classifier(dataclasses.replace(CONFIG, pooling="cls", bias=True), make_mixer, rngs=nnx.Rngs(0))
    assert [layer for _, layer in received] == [0, 1]
    assert received[0][0] == Dims(
        d_model=12, num_heads=2, qkv_dim=16, max_len=31, mlp_dim=20, dropout=0.2, hidden_dropout=0.2, bias=True
    )
    assert CONFIG.dims.max_len == 30
    assert model.cls is not None
    assert (model.cls[...] == 0).all()
    assert not jax.tree.leaves(nnx.state(model, nnx.Not(nnx.Param)))  # no stored PRNG keys or counters


def test_initial_standard_deviation_of_tokens_and_positions() -> None:
    config = dataclasses.replace(CONFIG, vocab_size=300, max_len=200, embed_std=0.02)
    _, params, _ = make(config)
    for name in ("tokens", "positions"):
        assert abs(float(params[name][...].std()) - 0.02) < 0.001


def test_invalid_inputs_are_refused() -> None:
    single, _, _ = make(CONFIG)
    double, _, _ = make(dataclasses.replace(CONFIG, pair="nli"))
    with pytest.raises(ValueError, match=r"ids \(2, 31\) are not \[B, L\] with L <= max_len = 30"):
        single(jnp.ones((2, 31), jnp.int32))
    for shape in ((2, 10), (2, 3, 10), (2, 2, 31)):
        with pytest.raises(ValueError, match=r"are not \[B, 2, L\] with L <= max_len = 30"):
            double(jnp.ones(shape, jnp.int32))
    with pytest.raises(ValueError, match="pooling 'max' is not one of cls, mean, first"):
        dataclasses.replace(CONFIG, pooling="max")
    with pytest.raises(ValueError, match=r"dropout 1 is not between 0 and 0\.99"):
        dataclasses.replace(CONFIG, dropout=1)
