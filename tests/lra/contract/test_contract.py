"""Every mixer satisfies its contract, and the checks detect violations."""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from lra.contract import checks as contract
from lra.contract import report as check
from lra.contract.harness import MixerUnderTest, unoptimised
from lra.contract.report import Finding
from lra.training.batching import micro_batch_size
from models import mixers
from models.core import Dims, QKVAttention
from models.dropout import dropout
from models.mixers.linear import linear_attention

SUBJECTS = [(name, form) for name in mixers.available() for form in ({}, *contract.FORMS.get(name, ()))]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        pytest.param(name, form, id=mixers.label(name, form), marks=pytest.mark.slow if form else pytest.mark.in_check)
        for name, form in SUBJECTS
    ],
)
def test_every_mixer_satisfies_the_contract(name: str, form: dict[str, Any]) -> None:
    findings = list(check.check(mixers.resolve(name), form, quick=True))
    assert [f.check for f in findings] == list(contract.QUICK)
    assert [f for f in findings if f.status != "pass"] == []
    jax.clear_caches()


class Attention(QKVAttention):
    """Correct; each broken one below differs from it in one thing."""

    def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: Any) -> jax.Array:
        return linear_attention(q, k, v, mask)


class MixesContentsOfPadding(Attention):
    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: Any = None) -> jax.Array:
        return super().__call__(x, mask, rng_keys=rng_keys) + x.sum(1, keepdims=True)


class ForgetsTheMask(Attention):
    """Padding is zero before the projections, so its contents do not matter, but its keys and values have a bias."""

    def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: Any) -> jax.Array:
        return linear_attention(q, k, v, jnp.ones_like(mask))


class ZeroesKeysBeforeTheFeatureMap(Attention):
    """phi(0) = 1: contents do not matter, but each pad adds to the denominator."""

    def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: Any) -> jax.Array:
        real = mask[..., None, None]
        return linear_attention(q, jnp.where(real, k, 0), jnp.where(real, v, 0), jnp.ones_like(mask))


class DividesByThePaddedLength(Attention):
    def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: Any) -> jax.Array:
        return super().attend(q, k, v, mask, rng_keys) / q.shape[1]


class StabilisesOverTheBatch(Attention):
    def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: Any) -> jax.Array:
        return super().attend(q, k, v, mask, rng_keys) / jnp.abs(jnp.where(mask[..., None, None], v, 0)).max()


class AveragesNothing(Attention):
    """0 / 0 for an example without tokens."""

    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: Any = None) -> jax.Array:
        real = mask[..., None]
        return x + jnp.where(real, x, 0).sum(1, keepdims=True) / real.sum(1, keepdims=True)


class LeavesAParameterOut(Attention):
    def __init__(self, dims: Dims, *, rngs: nnx.Rngs) -> None:
        super().__init__(dims, rngs=rngs)
        self.unused = nnx.Param(jnp.ones(3))


class DependsOnTheCall(Attention):
    calls = 0

    def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: Any) -> jax.Array:
        DependsOnTheCall.calls += 1
        return super().attend(q, k, v, mask, rng_keys) * DependsOnTheCall.calls


class DropsByNumberOfThePlace(Attention):
    """jax.random's draw for one place moves with the shape of the whole."""

    def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: Any) -> jax.Array:
        y = super().attend(q, k, v, mask, rng_keys)
        if rng_keys is None:
            return y
        draw = jax.vmap(lambda key, like: jax.random.bernoulli(key, 0.5, like.shape), (0, 0))
        return jnp.where(draw(rng_keys, y.swapaxes(1, 3)).swapaxes(1, 3), y, 0)


class LosesDigitsInHalfPrecision(Attention):
    def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: Any) -> jax.Array:
        bits = 2 if v.dtype == jnp.bfloat16 else 7  # as after a subtraction of nearly equal numbers
        return super().attend(q, k, jax.lax.reduce_precision(v, 8, bits), mask, rng_keys)


class Returns32Bits(Attention):
    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: Any = None) -> jax.Array:
        return super().__call__(x, mask, rng_keys=rng_keys).astype(jnp.promote_types(x.dtype, jnp.float32))


class IsOfAnotherShape(Attention):
    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: Any = None) -> jax.Array:
        return super().__call__(x, mask, rng_keys=rng_keys)[..., :-1]


class Raises(Attention):
    def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: Any) -> jax.Array:
        raise ValueError("no such thing")


class Dropped(Attention):
    """Correct, and random in training."""

    def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: Any) -> jax.Array:
        return dropout(super().attend(q, k, v, mask, rng_keys), 0.5, rng_keys)


def findings(cls: type, *only: str) -> dict[str, Finding]:
    checks = check.checks(mixers.Resolved(cls.__name__, cls.__name__, cls, None, None), {}, quick=True)
    return {name: check.examine(name, run) for name, run in checks if name in only}


@pytest.mark.parametrize("cls", [Attention, Dropped])
def test_a_correct_mixer_passes(cls: type) -> None:
    names = ("content of padding", "amount of padding", "batch independence", "jit", "rng determinism")
    results = findings(cls, *names)
    assert {f.status for f in results.values()} == {"pass"}
    assert ("not random" in results["rng determinism"].detail) == (cls is Attention)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cls", "name", "message"),
    [
        (
            MixesContentsOfPadding,
            "content of padding",
            "outputs in evaluation differ by .* times their largest value, in float64 too. Mask x, k, v",
        ),
        (ForgetsTheMask, "amount of padding", "in float64 too. Mask k, v or the weights"),
        (ZeroesKeysBeforeTheFeatureMap, "amount of padding", "take sizes from dims.max_len or from mask.sum"),
        (DividesByThePaddedLength, "amount of padding", "never from x.shape"),
        (StabilisesOverTheBatch, "batch independence", "example . among others: .*never over the batch axis"),
        (AveragesNothing, "all-padding example", "not finite if an example is all padding"),
        (LeavesAParameterOut, "gradients", "no gradient reaches .*unused.*: use it, or make it a Buffer"),
        (DependsOnTheCall, "jit", "outputs without jit differ by"),
        (DropsByNumberOfThePlace, "amount of padding", "draw random numbers by position"),
        (
            DropsByNumberOfThePlace,
            "micro-batches, remat",
            "draw random numbers by the example's key and the position only",
        ),
        (LosesDigitsInHalfPrecision, "bfloat16", "differs by .* from float32"),
        (Returns32Bits, "bfloat16", "with dims.dtype bfloat16 the outputs are float32"),
        (IsOfAnotherShape, "shape and dtype", r"IsOfAnotherShape returns \[2, 61, 11\] for x \[2, 61, 12\]"),
        (Raises, "shape and dtype", r"test_contract.py:\d+ raised ValueError: no such thing"),
    ],
)
def test_a_violation_is_reported_with_its_cause(cls: type, name: str, message: str) -> None:
    finding = findings(cls, name)[name]
    assert finding.status == "FAIL"
    assert re.search(message, finding.detail), finding.detail


def test_an_error_is_attributed_to_the_innermost_frame_outside_of_lra() -> None:
    def raises() -> str:
        return str(micro_batch_size(0, 1, accelerator=False, equal_lengths=False))

    assert re.match(r"test_contract.py:\d+ raised ValueError: max\(\)", check.examine("", raises).detail)
    inside = unoptimised()(
        partial(micro_batch_size, 0, 1, accelerator=False, equal_lengths=False)
    )  # contextlib is not blamed either
    assert re.match(r"batching.py:\d+ raised ValueError: max\(\)", check.examine("", inside).detail)


def test_no_check_follows_outputs_of_the_wrong_shape() -> None:
    mixer = mixers.Resolved("wrong", "wrong", IsOfAnotherShape, None, None)
    assert [f.check for f in check.check(mixer, {})] == ["shape and dtype"]


def test_zeroed_keys_pass_for_the_content_but_not_for_the_amount_of_padding() -> None:
    results = findings(ZeroesKeysBeforeTheFeatureMap, "content of padding", "amount of padding")
    assert [f.status for f in results.values()] == ["pass", "FAIL"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("complexity", "status", "message"),
    [
        (("L", "L"), "FAIL", r"claims time O\(L\) and memory O\(L\), has operations L\^1.9"),
        (("L^2", "L^2"), "pass", r"operations L\^(1.9|2.0)\d, memory L\^(1.9|2.0)"),
        (None, "flag", "claims nothing"),
        (("n", "L"), "FAIL", "COMPLEXITY 'n' is not of the form L, L log L"),
    ],
)
def test_scaling_is_compared_with_the_claim(complexity: Any, status: str, message: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(check, "TIME_SLACK", 9)  # independent of the load on the machine
    subject = MixerUnderTest(dataclasses.replace(mixers.resolve("polynomial"), complexity=complexity))
    finding = check.examine("scaling", lambda: check.scaling_with_length(subject, (256, 1024, 2048)))
    assert (finding.status, bool(re.search(message, finding.detail))) == (status, True), finding


def test_slow_measured_time_is_a_flag(monkeypatch: Any) -> None:
    monkeypatch.setattr(check, "TIME_SLACK", -9)
    finding = check.examine(
        "scaling", lambda: check.scaling_with_length(MixerUnderTest(mixers.resolve("linear")), (64, 128, 256))
    )
    assert finding.status == "flag"
    assert "slower than the claimed O(L), unless the machine was busy" in finding.detail


def test_parameters_are_flagged_beyond_ten_per_cent(tmp_path: Any) -> None:
    file = tmp_path / "wide.py"
    file.write_text(
        "import jax.numpy as jnp\nfrom flax import nnx\nfrom models.mixers.softmax import Softmax\n"
        "class Wide(Softmax):\n"
        "    def __init__(self, dims, *, rows: int = 1000, rngs):\n"
        "        super().__init__(dims, rngs=rngs)\n"
        "        self.table = nnx.Param(jnp.ones((rows, dims.d_model)))\n"
    )
    status = {}
    for rows in (10, 1000):
        subject = MixerUnderTest(mixers.resolve(str(file)), {"rows": rows})
        status[rows] = check.examine("parameters", lambda subject=subject: check.parameters(subject))
    assert status[10].status == "pass"
    assert status[1000].status == "flag"
    assert "differs by more than 10 % in listops" in status[1000].detail


def test_save_and_load(tmp_path: Any) -> None:
    text = (
        "import jax\nimport numpy as np\n"
        "from models.core import QKVAttention, Buffer\nfrom models.mixers.linear import linear_attention\n"
        "class Mine(QKVAttention):\n"
        "    def __init__(self, dims, *, rngs):\n"
        "        super().__init__(dims, rngs=rngs)\n"
        "        self.draw = DRAW\n"
        "    def attend(self, q, k, v, mask, rng_keys):\n"
        "        return USE * linear_attention(q, k, v, mask)\n"
    )
    for draw, use, status in (
        ("Buffer(jax.random.uniform(rngs.params()))", "self.draw[...]", "pass"),
        ("float(np.random.default_rng().uniform())", "self.draw", "FAIL"),
    ):
        file = tmp_path / f"{status.lower()}.py"
        file.write_text(text.replace("DRAW", draw).replace("USE", use))
        finding = check.examine("", lambda file=file: check.save_and_load(MixerUnderTest(mixers.resolve(str(file)))))
        assert finding.status == status, finding
