"""Initialisation of parameters: bounds and moments against the definitions of torch and flax."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models import mixers
from models.core import Dims, linear_layer
from models.encoder import Classifier, EncoderConfig

CONFIG = EncoderConfig(
    vocab_size=300, num_classes=10, max_len=400, num_layers=1, d_model=64, num_heads=2, qkv_dim=64, mlp_dim=128,
    head=(128,), bias=True,
)  # fmt: skip


def classifier(mixer: str = "softmax", **fields: Any) -> Classifier:
    def make_mixer(dims: Dims, layer: int, rngs: nnx.Rngs) -> Any:
        return mixers.build(mixers.resolve(mixer).cls, dims, {}, rngs)

    return Classifier(dataclasses.replace(CONFIG, **fields), make_mixer, rngs=nnx.Rngs(0))


def linears(model: nnx.Module) -> dict[str, nnx.Linear]:
    return {"/".join(map(str, path)): node for path, node in nnx.iter_graph(model) if isinstance(node, nnx.Linear)}


def test_tokens_and_learned_positions_have_separate_standard_deviations() -> None:
    """As in transformer.py of the reference suite: tokens N(0, 1), positions N(0, 0.02^2)."""
    model = classifier(embed_std=1.0, position_std=0.02, positions="learned")
    assert model.positions is not None
    assert np.asarray(model.tokens[...]).std() == pytest.approx(1.0, rel=0.03)
    assert np.asarray(model.positions[...]).std() == pytest.approx(0.02, rel=0.03)


@pytest.mark.parametrize("mixer", ["softmax", "cosformer", "mega", "s4d", "longformer", "reformer", "synthesizer"])
def test_torch_initialises_linear_layers_uniformly_by_their_fan_in(mixer: str) -> None:
    """As torch.nn.Linear: weights and biases U(-1/sqrt(fan_in), 1/sqrt(fan_in)), deviation 1/sqrt(3 fan_in)."""
    layers = linears(classifier(mixer, init="torch"))
    assert len(layers) >= 5
    for name, layer in layers.items():
        limit = 1 / math.sqrt(layer.in_features)
        kernel = np.asarray(layer.kernel[...])
        assert np.abs(kernel).max() <= limit, name
        assert np.abs(kernel).max() > 0.95 * limit, name
        assert kernel.std() == pytest.approx(limit / math.sqrt(3), rel=0.05), name
        if layer.bias is not None:
            bias = np.asarray(layer.bias[...])
            assert np.abs(bias).max() <= limit, name
            assert np.abs(bias).max() > 0.5 * limit, name


def test_lra_has_a_lecun_normal_head_and_xavier_blocks() -> None:
    layers = linears(classifier(init="lra"))
    for name, layer in layers.items():
        kernel = np.asarray(layer.kernel[...])
        bound = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert layer.bias is not None
        assert not np.asarray(layer.bias[...]).any(), name
        if name.startswith("head"):  # truncated at two deviations, rescaled to variance 1 / fan_in
            deviation = 1 / math.sqrt(layer.in_features)
            assert kernel.std() == pytest.approx(deviation, rel=0.05), name
            assert 0.8 < np.abs(kernel).max() / (2 * deviation / 0.87962566) <= 1, name
        else:
            assert 0.95 < np.abs(kernel).max() / bound <= 1, name
    assert sum(name.startswith("head") for name in layers) == 2


def test_xavier_is_the_default_and_has_zero_biases() -> None:
    assert EncoderConfig.__dataclass_fields__["init"].default == "xavier"
    for name, layer in linears(classifier()).items():
        bound = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert 0.9 < np.abs(np.asarray(layer.kernel[...])).max() / bound <= 1, name
        assert layer.bias is not None
        assert not np.asarray(layer.bias[...]).any()


def test_an_unknown_initialisation_is_refused() -> None:
    with pytest.raises(ValueError, match="xavier, lra, torch"):
        dataclasses.replace(CONFIG, init="he")  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        linear_layer(2, 2, init="he", rngs=nnx.Rngs(0))  # type: ignore[arg-type]


@pytest.mark.parametrize("mixer", ["softmax", "mega"])
def test_every_layer_norm_uses_norm_eps(mixer: str) -> None:
    norms = [node for _, node in nnx.iter_graph(classifier(mixer, norm_eps=1e-5)) if isinstance(node, nnx.LayerNorm)]
    assert len(norms) == 3
    assert {norm.epsilon for norm in norms} == {1e-5}


def test_tanh_gelu_equals_its_formula() -> None:
    """0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), as in `flax.linen.gelu`."""
    x = np.linspace(-4, 4, 101)
    formula = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    block = classifier(gelu="tanh").blocks[0]
    np.testing.assert_allclose(np.asarray(block.activation(jnp.asarray(x, jnp.float32))), formula, atol=1e-6)
    exact = np.asarray(classifier().blocks[0].activation(jnp.asarray(x, jnp.float32)))
    assert 1e-4 < np.abs(exact - formula).max() < 1e-3


def test_the_form_of_gelu_changes_the_logits() -> None:
    ids = jnp.asarray(np.random.default_rng(0).integers(1, 300, (2, 50)), jnp.int32)
    logits = [np.asarray(classifier(gelu=form)(ids)) for form in ("erf", "tanh")]
    assert 0 < np.abs(logits[0] - logits[1]).max() < 0.1
    assert jax.numpy.isfinite(jnp.asarray(logits)).all()
