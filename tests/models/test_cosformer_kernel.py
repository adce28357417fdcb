"""The kernels of cosFormer attention, interpreted on a CPU, against its form in XLA; and that Triton's form exists."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from models import cosformer_kernel
from models.mixers import cosformer
from tests.models.mixers.reference import largest_array, values_and_gradients

B, H, K, V = 3, 2, 16, 32
LENGTHS = {"full": None, "one": 400, "own": (200, 77, 0)}  # max_len


@pytest.fixture(autouse=True)
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use blocks of two steps, so that several programs sum over the positions of an example."""
    monkeypatch.setattr(cosformer_kernel, "BLOCK", 2 * cosformer_kernel.ROWS)


def arrays(lq: int, lk: int, dtype: Any = jnp.float32) -> tuple[jax.Array, ...]:
    """Return q, k, v, a cotangent of y, and a mask: of all keys, of single keys, of none."""
    rng = np.random.default_rng(lq)
    shapes = ((B, lq, H, K), (B, lk, H, K), (B, lk, H, V), (B, lq, H, V))
    q, k, v, dy = (jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)
    mask = np.stack([np.ones(lk), rng.random(lk) < 0.5, np.zeros(lk)]).astype(bool)
    return q, k, v, dy, jnp.asarray(mask)


def form(name: Any, mask: jax.Array | None, max_len: Any = None) -> Callable[..., jax.Array]:
    max_len = jnp.array(max_len) if isinstance(max_len, tuple) else max_len
    return lambda q, k, v: cosformer.cosformer_attention(q, k, v, mask=mask, max_len=max_len, implementation=name)


def assert_equal(got: list[jax.Array], want: list[jax.Array], tolerance: float) -> None:
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
        np.testing.assert_allclose(a, b, atol=tolerance * max(1.0, float(jnp.abs(b).max())))


@pytest.mark.parametrize("max_len", LENGTHS)
@pytest.mark.parametrize(("lq", "lk", "masked"), [(1, 1, False), (64, 64, True), (201, 333, True), (300, 65, False)])
def test_values_and_gradients_equal_those_of_xla(lq: int, lk: int, masked: bool, max_len: str) -> None:
    q, k, v, dy, mask = arrays(lq, lk)
    forms = (form(name, mask if masked else None, LENGTHS[max_len]) for name in ("pallas", "xla"))
    got, want = (values_and_gradients(attend, q, k, v, dy) for attend in forms)
    assert_equal(got, want, 3e-6)
    if masked:
        assert not any(a[2].any() for a in got)
        assert not any(jnp.where(mask[..., None, None], 0, a).any() for a in got[2:])


@pytest.mark.parametrize("max_len", LENGTHS)
def test_bfloat16_is_summed_in_float32(max_len: str) -> None:
    """The results of both forms are rounded once, so they differ by at most one step of bfloat16."""
    q, k, v, dy, mask = arrays(201, 333, jnp.bfloat16)
    got, want = (values_and_gradients(form(n, mask, LENGTHS[max_len]), q, k, v, dy) for n in ("pallas", "xla"))
    assert_equal(got, want, 2**-8)
    ones = jnp.ones((1, 1024, 1, 16), jnp.bfloat16)  # a sum of these in bfloat16 would not exceed 256
    y, *_, dv = values_and_gradients(form("pallas", None, 10**6), ones, ones, ones, ones)
    np.testing.assert_array_equal(y.astype(jnp.float32), 1)
    np.testing.assert_array_equal(dv.astype(jnp.float32), 1)


def test_padded_keys_may_have_any_content() -> None:
    q, k, v, dy, mask = arrays(70, 90)
    want = values_and_gradients(form("pallas", mask), q, k, v, dy)
    k, v = (jnp.where(mask[..., None, None], x, jnp.nan) for x in (k, v))
    for a, b in zip(values_and_gradients(form("pallas", mask), q, k, v, dy), want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_queries_without_keys_give_zeros_and_the_gradients_of_xla() -> None:
    q, k, v, dy, mask = arrays(40, 40)
    q = -jnp.abs(q)
    got, want = (values_and_gradients(form(name, mask), q, k, v, dy) for name in ("pallas", "xla"))
    assert not got[0].any()
    assert_equal(got, want, 0)


def test_where_eps_replaces_the_denominator_it_has_no_gradient() -> None:
    q, k, v, dy, mask = arrays(40, 40)
    q = 1e-10 * q
    got, want = (values_and_gradients(form(name, mask), q, k, v, dy) for name in ("pallas", "xla"))
    assert jnp.abs(got[0]).max() < 0.1  # the denominators are far below eps
    assert jnp.abs(want[1]).max() > 1e6
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=3e-6 * float(jnp.abs(b).max()))


def test_no_array_has_the_size_of_all_weights() -> None:
    x = jnp.zeros((1, 4096, 1, 16))
    attention = lambda q, k, v: form("pallas", None)(q, k, v).sum()  # noqa: E731
    assert largest_array(jax.make_jaxpr(jax.grad(attention, (0, 1, 2)))(x, x, x).jaxpr) <= 2 * x.size


@pytest.mark.skipif(jax.__version_info__ >= (0, 11), reason="newer JAX lowers to Triton only where it finds a GPU")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_forward_and_backward_pass_are_lowered_to_triton(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """This needs no GPU; whether the compiler of a GPU accepts the four kernels is not tested."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    names = ("__gpu$xla.gpu.triton", "triton_kernel_call")
    allowed = [jax.export.DisabledSafetyCheck.custom_call(name) for name in names]
    for lq, lk in ((64, 64), (201, 333)):
        q, k, v, dy, mask = arrays(lq, lk, dtype)

        def both(q: jax.Array, k: jax.Array, v: jax.Array, dy: jax.Array, mask: jax.Array = mask) -> Any:
            y, pull = jax.vjp(form("pallas", mask), q, k, v)
            return y, pull(dy)

        text = jax.export.export(jax.jit(both), platforms=["cuda"], disabled_checks=allowed)(q, k, v, dy).mlir_module()
        assert sum(text.count(f"custom_call @{name}(") for name in names) == 4


def test_the_backward_pass_uses_the_precision_of_the_forward_pass() -> None:
    q, k, v, dy, mask = arrays(8, 8)

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return form("pallas", mask)(q, k, v)

    text = str(jax.make_jaxpr(lambda q, k, v, dy: jax.vjp(attend, q, k, v)[1](dy))(q, k, v, dy))
    assert text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == text.count("dot_general[") > 0


def test_what_the_kernels_cannot_compute_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, _, mask = arrays(8, 8)
    with pytest.raises(ValueError, match="implementation 'triton' is not one of xla, pallas"):
        form("triton", mask)(q, k, v)
    with pytest.raises(ValueError, match="implementation 'pallas' has no causal form; use 'xla'"):
        cosformer.cosformer_attention(q, k, v, causal=True, implementation="pallas")
    for width, value_width in ((8, 16), (24, 16), (16, 48)):
        x = jnp.zeros((1, 8, 1, width))
        with pytest.raises(
            ValueError, match=rf"needs widths 16, 32, 64, ... of a head, not \({width}, {value_width}\)"
        ):
            form("pallas", None)(x, x, jnp.zeros((1, 8, 1, value_width)))
    monkeypatch.setitem(sys.modules, "models.cosformer_kernel", None)
    with pytest.raises(ValueError, match=r"implementation 'pallas' needs Pallas, which is not available .*; use 'xla'"):
        form("pallas", mask)(q, k, v)


def test_the_mixer_does_not_import_pallas() -> None:
    code = "import sys, models.mixers.cosformer; assert 'jax.experimental.pallas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
