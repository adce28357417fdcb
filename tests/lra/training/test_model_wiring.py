"""Every setting of a model arrives where it is used: protocol, encoder, dims, mixer, dropout."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra.api import configure
from lra.config import Model, RunConfig
from lra.training.step_functions import StepFunctions, encoder_config
from models import encoder, mixers
from models.core import Dims
from models.encoder import Classifier, EncoderConfig
from tasks import load_task
from tests.lra import recording
from tests.lra.distinct import changed_fields, other

CARD = load_task("listops").CARD
ENCODER_NAMES = {"layers": "num_layers", "heads": "num_heads"}  # of fields of `Model`; the others keep theirs
DIMS_NAMES = {"attention_dropout": "dropout", "dropout": "hidden_dropout"}  # of fields of `EncoderConfig`


def config(**overrides: Any) -> RunConfig:
    return configure("listops", "linear", protocol="small", overrides=overrides)


@pytest.mark.parametrize("field", dataclasses.fields(Model), ids=lambda field: field.name)
def test_a_field_of_the_model_changes_its_field_of_the_encoder(field: dataclasses.Field[Any]) -> None:
    plain = config()
    value = other(typing.get_type_hints(Model)[field.name], getattr(plain.model, field.name))
    changed = dataclasses.replace(plain, model=dataclasses.replace(plain.model, **{field.name: value}))
    found = changed_fields(encoder_config(plain, CARD), encoder_config(changed, CARD))
    assert found == {ENCODER_NAMES.get(field.name, field.name): jnp.dtype(value) if field.name == "dtype" else value}


def test_the_other_fields_of_the_encoder_are_those_of_run_and_task() -> None:
    plain = config()
    before = encoder_config(plain, CARD)
    assert (before.max_len, before.vocab_size, before.num_classes, before.remat) == (2_000, 16, 10, False)
    assert changed_fields(before, encoder_config(config(max_len=77), CARD)) == {"max_len": 77}
    assert changed_fields(before, encoder_config(config(**{"train.remat": True}), CARD)) == {"remat": True}
    card = dataclasses.replace(CARD, vocab_size=31)
    assert changed_fields(before, encoder_config(plain, card)) == {"vocab_size": 31}
    card = dataclasses.replace(CARD, classes=("a", "b", "c"))
    assert changed_fields(before, encoder_config(plain, card)) == {"num_classes": 3}
    from_model = {ENCODER_NAMES.get(field.name, field.name) for field in dataclasses.fields(Model)}
    from_run = {"max_len", "vocab_size", "num_classes", "symbols", "remat"}
    assert from_model | from_run == {field.name for field in dataclasses.fields(EncoderConfig)}


def test_a_field_of_the_encoder_changes_its_field_of_the_dims() -> None:
    before = dataclasses.replace(encoder_config(config(), CARD), pooling="mean")
    hints = typing.get_type_hints(EncoderConfig) | {"dtype": typing.Literal["float32", "bfloat16"]}
    reached = set()
    for field in dataclasses.fields(EncoderConfig):
        value = other(hints[field.name], getattr(before, field.name))
        if field.name == "num_heads":
            value = 16  # a divisor of qkv_dim, 64
        if field.name == "qkv_dim":
            value *= before.num_heads
        if field.name.endswith("dropout"):
            value = 0.375 if field.name == "dropout" else 0.625
        after = dataclasses.replace(before, **{field.name: value}).dims
        name = DIMS_NAMES.get(field.name, field.name)
        if name in {f.name for f in dataclasses.fields(Dims)}:
            assert changed_fields(before.dims, after) == {name: value}
            reached.add(name)
        elif field.name == "pooling":
            assert value == "cls"
            assert changed_fields(before.dims, after) == {"max_len": before.max_len + 1}
        else:
            assert after == before.dims
    assert reached == {field.name for field in dataclasses.fields(Dims)}


def test_each_layer_has_a_mixer_with_these_dims_and_options() -> None:
    overrides = {
        **{"max_len": 45, "model.layers": 3, "model.d_model": 12, "model.heads": 2, "model.qkv_dim": 10},
        **{"model.mlp_dim": 14, "model.dropout": 0.25, "model.attention_dropout": 0.5, "model.bias": False},
        **{"model.pooling": "cls", "model.dtype": "bfloat16"},
    }
    options = {"colour": 7, "shade": "dark"}
    made = configure("listops", recording.SPEC, protocol="small", options=options, overrides=overrides)
    recording.clear()  # `configure` has constructed one to check it
    StepFunctions(made, CARD)
    assert len(recording.MADE) == 3
    assert len(set(recording.MADE)) == 1
    dims, *given = recording.MADE[0]
    assert given == [7, "dark"]
    wanted = {"d_model": 12, "num_heads": 2, "qkv_dim": 10, "max_len": 46, "mlp_dim": 14, "dropout": 0.5}
    wanted |= {"hidden_dropout": 0.25, "bias": False, "dtype": jnp.bfloat16}
    assert {name: getattr(dims, name) for name in wanted} == wanted


ATTENTION, HIDDEN = 0.37, 0.19
RATES = {
    **dict.fromkeys(("bigbird", "linformer", "local", "longformer", "nystromformer", "polynomial"), (ATTENTION,)),
    **dict.fromkeys(("reformer", "sinkhorn", "softmax", "sparse", "synthesizer"), (ATTENTION,)),
    **dict.fromkeys(("longconv", "lru", "s4d", "s5"), (HIDDEN,)),
    **dict.fromkeys(("conv", "cosformer", "fnet", "linear", "performer", "skyformer"), ()),  # no weights to drop
    **dict.fromkeys(("gated_deltanet", "gla", "hgrn2", "lion", "mamba2", "mlstm", "retnet"), ()),
    "mega": (ATTENTION, HIDDEN),
}


@pytest.mark.parametrize("name", mixers.available())
def test_a_mixer_drops_by_the_rate_that_is_meant_for_it(name: str) -> None:
    """The traced program contains the thresholds of `models.dropout.hash_dropout`, which identify the rates."""
    dims = Dims(d_model=8, num_heads=2, qkv_dim=8, max_len=32, mlp_dim=8, dropout=ATTENTION, hidden_dropout=HIDDEN)
    made = nnx.eval_shape(lambda: mixers.build(mixers.resolve(name).cls, dims, {}, nnx.Rngs(0)))
    graph, *arrays = nnx.split(made, nnx.Param, ...)
    x, rng_keys = jnp.ones((1, 32, 8)), jax.random.split(jax.random.key(0), 1)

    def call(arrays: Any, rng_keys: Any) -> jax.Array:
        return nnx.merge(graph, *arrays)(x, jnp.ones((1, 32), bool), rng_keys=rng_keys)

    def rates(rng_keys: Any) -> tuple[float, ...]:
        program = str(jax.make_jaxpr(call)(arrays, rng_keys))
        return tuple(rate for rate in (ATTENTION, HIDDEN) if str(round(rate * 2**32)) in program)

    assert rates(rng_keys) == RATES[name]
    assert rates(None) == ()


@pytest.mark.parametrize("pair", [None, "concat"])
def test_every_dropout_site_has_its_rate_and_keys_of_its_own(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embedding, and in each of three blocks mixer, hidden units and MLP, for each example and document."""
    rates: list[float] = []
    sites: list[jax.Array] = []

    def dropout(x: jax.Array, rate: float, rng_keys: Any) -> jax.Array:
        rates.append(rate)
        sites.append(jax.random.key_data(rng_keys))
        return x

    class Site(nnx.Module):
        def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: Any = None) -> jax.Array:
            sites.append(jax.random.key_data(rng_keys))
            return x

    monkeypatch.setattr(encoder, "dropout", dropout)
    sizes = EncoderConfig(
        vocab_size=5, num_classes=2, max_len=4, num_layers=3, d_model=4, num_heads=1, qkv_dim=4, mlp_dim=4,
        dropout=HIDDEN, attention_dropout=ATTENTION, pair=pair,
    )  # fmt: skip
    model = nnx.eval_shape(lambda: Classifier(sizes, lambda *_, **__: Site(), rngs=nnx.Rngs(0)))
    graph, arrays = nnx.split(model)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), arrays)
    ids = jnp.ones((5, 2, 4) if pair else (5, 4), jnp.int32)

    @jax.jit
    def keys_of_sites(rng_keys: jax.Array) -> list[jax.Array]:
        nnx.merge(graph, zeros)(ids, rng_keys=rng_keys)
        return [jax.random.key_data(rng_keys), *sites]

    words = np.concatenate(keys_of_sites(jax.random.split(jax.random.key(3), 5)))
    assert rates == [HIDDEN] * (1 + 3 * 3)
    assert len(words) == 5 + (10 if pair else 5) * (1 + 3 * 4)
    assert len(np.unique(words, axis=0)) == len(words)  # the examples' own keys are used by no site


def test_the_epsilon_of_a_norm_is_that_of_the_protocol() -> None:
    """Where the variance of an input is as small as epsilon, the norm shows which one it has."""
    sizes = dict.fromkeys(("vocab_size", "num_classes", "max_len", "num_heads", "qkv_dim", "mlp_dim"), 4)
    settings = EncoderConfig(num_layers=1, d_model=4, norm_eps=3e-6, **sizes)
    model = Classifier(settings, lambda dims, layer, rngs: recording.Recorder(dims, rngs=rngs), rngs=nnx.Rngs(0))
    x = np.array([3.0, -1.0, 1.0, -3.0]) * 1e-3
    want = x / np.sqrt((x**2).mean() + 3e-6)
    block: Any = model.blocks[0]
    for norm in (model.norm, block.mixer_norm, block.mlp_norm):
        np.testing.assert_allclose(norm(jnp.asarray(x)), want, rtol=1e-5)
