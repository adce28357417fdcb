"""The weights of mixers, compared with their formulas."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra.analysis import attention_maps as attention
from lra.errors import RunError
from lra.finished import Trained
from lra.training.step_functions import StepFunctions
from models.core import project
from models.encoder import Classifier
from tasks.core import Prepared
from tasks.listops import CARD
from tests.lra.conftest import tiny_config
from tests.lra.leaderboard.test_leaderboard import run as recorded

IDS = np.random.RandomState(0).randint(1, 17, 29).astype(np.int32)


def model(mixer: str) -> Classifier:
    program = StepFunctions(tiny_config(mixer), CARD)
    return program.classifier(program.init())


def first_layer(classifier: Classifier) -> list[jax.Array]:
    """q, k, v [L, H, K] of the first layer."""
    x, _ = classifier.embed(jnp.asarray(IDS)[None], jnp.ones((1, len(IDS)), bool))
    block = classifier.blocks[0]
    mixer = block.mixer
    parts = project(block.mixer_norm(x), mixer.query, mixer.key, mixer.value)
    return [p.reshape(len(IDS), mixer.dims.num_heads, -1) for p in parts]


def test_softmax() -> None:
    classifier = model("softmax")
    (actual,) = attention.weights(classifier, IDS)
    q, k, _ = first_layer(classifier)
    want = jax.nn.softmax(jnp.einsum("ihk,jhk->hij", q, k) / np.sqrt(q.shape[-1]), -1)
    np.testing.assert_allclose(actual, want, atol=1e-6)
    np.testing.assert_allclose(actual.sum(-1), 1, rtol=1e-5)


def test_cosformer() -> None:
    classifier = model("cosformer")
    (actual,) = attention.weights(classifier, IDS)
    q, k, _ = (jax.nn.relu(x) for x in first_layer(classifier))
    place = np.arange(len(IDS))
    near = np.cos(np.pi / 2 * (place[:, None] - place[None, :]) / 40)  # max_len of the tiny run
    want = jnp.einsum("ihk,jhk->hij", q, k) * near
    np.testing.assert_allclose(actual, want / jnp.maximum(want.sum(-1, keepdims=True), 1e-6), atol=1e-5)


def test_a_mixer_without_values_is_rejected() -> None:
    with pytest.raises(RunError, match="FNet has no weights of v to draw"):
        attention.weights(model("fnet"), IDS)


def test_a_mixer_that_is_not_linear_in_v_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = model("linear")
    real = type(classifier.blocks[0].mixer).attend
    monkeypatch.setattr(
        type(classifier.blocks[0].mixer), "attend", lambda self, q, k, v, *rest: real(self, q, k, v**2, *rest)
    )
    with pytest.raises(RunError, match="not linear in v"):
        attention.weights(classifier, IDS)


def test_local_attention_fraction() -> None:
    fraction = attention.local_attention_fraction
    assert fraction(np.eye(100)[None]) == 1
    assert fraction(np.fliplr(np.eye(100))[None]) == pytest.approx(0.16)  # |i - (99 - i)| <= 16


def test_a_picture_of_two_runs(tiny: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str) -> Trained:
        program = StepFunctions(tiny_config(name), CARD)
        return Trained(recorded(0.5, mixer=name).record, program, program.init(), tiny)

    monkeypatch.setattr(attention, "trained", run)
    lines = attention.draw(["softmax", "cosformer"], 3, tmp_path / "a" / "weights.png")
    assert [line.partition(",")[0] for line in lines] == ["softmax", "cosformer"]
    assert (tmp_path / "a" / "weights.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(RunError, match="--example 50: the test split has 0 to 49"):
        attention.draw(["softmax"], 50, tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()
