"""Mixers that the trainer cannot train are refused before anything is written, with a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from lra.api import configure
from lra.contract import report as check
from lra.errors import ConfigError
from models import mixers
from models.core import Buffer, Dims
from models.mixer_checks import UnsuitableMixerError, verify

DIMS = Dims(d_model=12, num_heads=2, qkv_dim=16, max_len=40, mlp_dim=24, dropout=0.3)


class Part(nnx.Module):
    """The identity, with a part that a subclass makes."""

    def __init__(self, dims: Dims, *, rngs: nnx.Rngs) -> None:
        self.dims, self.linear = dims, nnx.Linear(dims.d_model, dims.d_model, dtype=dims.dtype, rngs=rngs)
        self.make(rngs)

    def make(self, rngs: nnx.Rngs) -> None: ...

    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: Any = None) -> jax.Array:
        return self.linear(x)


class Attention(Part):
    rate = 0.0

    def make(self, rngs: nnx.Rngs) -> None:
        d = self.dims
        self.part = nnx.MultiHeadAttention(
            d.num_heads, d.d_model, d.qkv_dim, dropout_rate=self.rate, decode=False, dtype=d.dtype, rngs=rngs
        )

    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: Any = None) -> jax.Array:
        return self.linear(self.part(x, mask=mask[:, None, None, :]))


class AttentionWithDropout(Attention):
    rate = 0.1


class WithDropout(Part):
    def make(self, rngs: nnx.Rngs) -> None:
        self.part = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: Any = None) -> jax.Array:
        return self.part(self.linear(x), deterministic=rng_keys is None)


class WithGenerator(Part):
    def make(self, rngs: nnx.Rngs) -> None:
        self.rngs = rngs


class WithBatchNorm(Part):
    fixed = False

    def make(self, rngs: nnx.Rngs) -> None:
        self.part = nnx.BatchNorm(self.dims.d_model, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: Any = None) -> jax.Array:
        return self.part(self.linear(x), use_running_average=self.fixed or rng_keys is None).astype(x.dtype)


class WithFixedBatchNorm(WithBatchNorm):
    fixed = True


class WithCounter(Part):
    def make(self, rngs: nnx.Rngs) -> None:
        self.count = Buffer(jnp.zeros(()))

    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: Any = None) -> jax.Array:
        self.count[...] = self.count[...] + 1
        return self.linear(x)


class WithList(Part):
    def make(self, rngs: nnx.Rngs) -> None:
        self.parts = [nnx.Linear(2, 2, rngs=rngs)]


class Wider(Part):
    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: Any = None) -> jax.Array:
        return jnp.concatenate([x, x], -1)


REFUSED = {
    AttentionWithDropout: r"keeps a random generator of flax \(part.rngs.count, .*no dropout_rate in nnx",
    WithDropout: r"keeps a random generator of flax \(part.rngs.count, .*models.dropout.dropout\(x, rate",
    WithGenerator: r"keeps a random generator of flax \(rngs.default.count, rngs.default.key\), .*no self.rngs",
    WithBatchNorm: r"changes its state in a call \(part.mean, part.var\), which the trainer .* use nnx.LayerNorm",
    WithCounter: r"changes its state in a call \(count\), which the trainer does not keep: remove it",
    WithList: r"Found data on value of type .*'parts' of .*; use nnx.List\(\[...\]\) or nnx.Dict\(...\) instead",
    Wider: r"returns \[2, 40, 24\] for x \[2, 40, 12\]; the shape must be that of x",
}


@pytest.mark.parametrize("cls", REFUSED)
def test_what_the_trainer_cannot_train_is_refused_by_train_and_by_check(cls: type, tmp_path: Path) -> None:
    with pytest.raises(UnsuitableMixerError, match=f"^{cls.__name__}:? {REFUSED[cls]}") as refused:
        verify(cls, DIMS, {})
    message = str(refused.value)
    assert "\n" not in message
    spec = f"{__file__}:{cls.__name__}"
    with pytest.raises(ConfigError) as in_train:
        configure("listops", spec, protocol="quick")
    (finding,) = check.check(mixers.resolve(spec), {})
    assert finding.status == "FAIL"
    if cls not in (Wider, WithList):  # whose messages contain sizes and the name of the module
        assert str(in_train.value) == message == finding.detail


@pytest.mark.parametrize("cls", [Part, Attention, WithFixedBatchNorm])
def test_parts_without_changing_state_are_accepted(cls: type) -> None:
    verify(cls, DIMS, {})


@pytest.mark.slow
def test_attention_of_flax_satisfies_the_contract() -> None:
    """Its softmax is float32 in a float64 computation, so 1e-9 cannot be reached there."""
    findings = list(check.check(mixers.resolve(f"{__file__}:Attention"), {}, quick=True))
    assert [f for f in findings if f.status != "pass"] == []
    assert any("in float64" in f.detail for f in findings)


CODE = """
class Mine:
    def __init__(self, dims, *, window=8, rngs):
        {}

    def __call__(self, x, mask, *, rng_keys=None):
        {}
"""


@pytest.mark.parametrize(
    ("constructor", "call", "message"),
    [
        ("dims.width", "return x", r"mine.py:4 raised AttributeError: 'Dims' object has no attribute 'width'"),
        ("pass", "return x @ x", r"mine.py:7 raised TypeError: dot_general"),
        ("pass", "raise ValueError('no')", r"mine.py:7 raised ValueError: no$"),
        ("raise ValueError(f'option {window=}: too small')", "return x", r"^Mine: option window=8: too small$"),
        ("raise ValueError('two\\nlines')", "return x", r"^Mine: two lines$"),
    ],
)
def test_an_error_in_the_code_of_a_mixer_is_one_line(tmp_path: Path, constructor: str, call: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(CODE.format(constructor, call))
    with pytest.raises(ConfigError, match=message):
        configure("listops", str(tmp_path / "mine.py"), protocol="quick")
