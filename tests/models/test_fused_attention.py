"""The softmax attention of `jax.nn` against blocks, the arguments for cuDNN, and the choice of an implementation.

cuDNN needs a GPU. Its call differs from that of the form "xla" in the name of the implementation alone.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from models.fused_attention import choose_implementation
from models.mixers import softmax
from models.mixers.softmax import softmax_attention
from tests.models.mixers.reference import largest_array, values_and_gradients

ROOT = Path(__file__).resolve().parents[2]
B, H, K = 4, 2, 8
LIBRARY = jax.nn.dot_product_attention  # the tests replace it


def arrays(lq: int, lk: int, dtype: Any = jnp.float32, width: int = K) -> tuple[jax.Array, ...]:
    """Return q, k, v, a cotangent of y, and a mask: of all keys, of a prefix, of single keys, of none."""
    rng = np.random.default_rng(lq)
    q, k, v, dy = (jnp.asarray(rng.standard_normal((B, n, H, width)), dtype) for n in (lq, lk, lk, lq))
    mask = np.arange(lk)[None] < np.array([lk, lk // 3 + 1, lk, 0])[:, None]
    mask[2] = rng.random(lk) < 0.5
    mask[2, lk - 1] = True
    return 2 * q, 2 * k, v, dy, jnp.asarray(mask)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize(("lq", "lk"), [(1, 1), (37, 37), (29, 53), (150, 17)])
def test_the_form_of_the_library_equals_blocks(lq: int, lk: int, dtype: Any, tolerance: float) -> None:
    q, k, v, dy, mask = arrays(lq, lk, dtype)
    got, want = (
        values_and_gradients(functools.partial(softmax_attention, mask=mask, implementation=name), q, k, v, dy)
        for name in ("xla", "blocks")
    )
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype == dtype
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
        np.testing.assert_allclose(a, b, atol=tolerance * float(jnp.abs(b).max()))
        assert not a[3].any()
    for gradient in got[2:]:
        assert not jnp.where(mask[..., None, None], 0, gradient).any()


def test_padded_keys_may_have_any_content() -> None:
    q, k, v, dy, mask = arrays(20, 24)
    attend = functools.partial(softmax_attention, mask=mask, implementation="xla")
    want = values_and_gradients(attend, q, k, v, dy)
    k, v = (jnp.where(mask[..., None, None], x, jnp.nan) for x in (k, v))
    for a, b in zip(values_and_gradients(attend, q, k, v, dy), want, strict=True):
        np.testing.assert_array_equal(a, b)


class Library:
    """Stands in for `jax.nn.dot_product_attention`: notes its arguments, computes by its form "xla"."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[jax.Array, ...], dict[str, Any]]] = []

    def __call__(self, *args: jax.Array, **keywords: Any) -> jax.Array:
        self.calls.append((args, keywords))
        return LIBRARY(*args, **(keywords | {"implementation": "xla"}))


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    stand_in = Library()
    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    return stand_in


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that makes this machine look like one with a GPU of a compute capability."""

    jax.devices()  # starts JAX

    def pretend(capability: str) -> None:
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(compute_capability=capability)])

    return pretend


def test_cudnn_is_called_with_the_number_of_keys_and_no_mask(library: Library, gpu: Callable[[str], None]) -> None:
    q, k, v, dy, mask = arrays(37, 53, jnp.bfloat16)
    xla, chosen = (functools.partial(softmax_attention, mask=mask, implementation=name) for name in ("xla", None))
    want = [xla(q, k, v), *values_and_gradients(xla, q, k, v, dy)]
    gpu("9.0")
    y = softmax_attention(q, k, v, mask)  # the first call is that of the choice
    (query, key, value), keywords = library.calls[-1]
    assert keywords.pop("implementation") == "cudnn"
    lengths = keywords.pop("key_value_seq_lengths")
    assert not keywords
    assert lengths.dtype == jnp.int32
    np.testing.assert_array_equal(lengths, jnp.maximum(mask.sum(1), 1))
    assert not any(x.shape[1] % 2 for x in (query, key, value))  # JAX has no gradient of other lengths for cuDNN
    np.testing.assert_array_equal(query[:, :37], q)
    for moved, x in ((key, k), (value, v)):
        for i, example in enumerate(mask):
            np.testing.assert_array_equal(moved[i, : example.sum()], x[i, example])
            assert not moved[i, example.sum() :].any()
    for a, b in zip([y, *values_and_gradients(chosen, q, k, v, dy)], want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_array_of_all_weights_is_passed_to_cudnn(
    monkeypatch: pytest.MonkeyPatch, gpu: Callable[[str], None]
) -> None:
    gpu("8.0")
    linear = lambda q, k, v, key_value_seq_lengths, implementation: q + k + v  # noqa: E731
    monkeypatch.setattr(jax.nn, "dot_product_attention", linear)
    x, mask = jnp.zeros((1, 4096, 1, 8), jnp.bfloat16), jnp.ones((1, 4096), bool)
    attention = lambda q, k, v: softmax_attention(q, k, v, mask).astype(jnp.float32).sum()  # noqa: E731
    assert largest_array(jax.make_jaxpr(jax.grad(attention, (0, 1, 2)))(x, x, x).jaxpr) == x.size


def shapes(dtype: Any = jnp.bfloat16, width: int = 64, *, value: Any = None) -> tuple[Any, ...]:
    x = jax.ShapeDtypeStruct((2, 128, 4, width), dtype)
    return x, x, x if value is None else jax.ShapeDtypeStruct((2, 128, 4, value), dtype)


@pytest.mark.usefixtures("library")
def test_cudnn_is_chosen_where_it_can_compute(gpu: Callable[[str], None]) -> None:
    assert choose_implementation(*shapes(), dropout=False) == "blocks"  # of a CPU
    for capability in ("8.0", "8.9", "9.0", "10.0", "12.0"):
        gpu(capability)
        assert choose_implementation(*shapes(), dropout=False) == "cudnn"
    for capability in ("7.5", "6.1", "gfx942", ""):
        gpu(capability)
        assert choose_implementation(*shapes(), dropout=False) == "blocks"
    gpu("8.0")
    for dtype, width in ((jnp.float16, 8), (jnp.bfloat16, 128)):
        assert choose_implementation(*shapes(dtype, width), dropout=False) == "cudnn"
    for dtype, width in ((jnp.float32, 64), (jnp.bfloat16, 12), (jnp.bfloat16, 136)):
        assert choose_implementation(*shapes(dtype, width), dropout=False) == "blocks"
    assert choose_implementation(*shapes(), dropout=True) == "blocks"
    assert choose_implementation(*shapes(), dropout=False, slopes=True) == "blocks"
    assert choose_implementation(*shapes(value=32), dropout=False) == "blocks"
    q, k, _ = shapes()
    assert choose_implementation(q, k, shapes(jnp.float16)[0], dropout=False) == "blocks"


def test_blocks_are_chosen_where_jax_refuses_cudnn(monkeypatch: pytest.MonkeyPatch, gpu: Callable[[str], None]) -> None:
    gpu("10.3")
    for error in (RuntimeError("cuDNN is not detected."), NotImplementedError("10.3 requires cuDNN 9.11")):

        def refuse(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(jax.nn, "dot_product_attention", refuse)
        assert choose_implementation(*shapes(), dropout=False) == "blocks"


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("sizes", "mapped", "chosen"),
    [
        ((2, 1), {"data", "length"}, "cudnn"),
        ((1, 1), {"data"}, "cudnn"),
        ((2, 1), {"data"}, "blocks"),
        ((1, 2), {"data"}, "blocks"),
    ],
)
def test_cudnn_needs_every_axis_of_several_devices_to_be_mapped(
    sizes: tuple[int, int], mapped: set[str], chosen: str, gpu: Callable[[str], None]
) -> None:
    """The trainer maps both axes, or leaves "length" to the partitioner if several devices share the positions."""
    gpu("9.0")
    found = []

    def attend(x: jax.Array) -> jax.Array:
        found.append(choose_implementation(x, x, x, dropout=False))
        return x

    mesh, spec = AbstractMesh(sizes, ("data", "length"), axis_types=(AxisType.Auto,) * 2), PartitionSpec("data")
    options: dict[str, Any] = {"mesh": mesh, "in_specs": (spec,), "out_specs": spec, "check_vma": False}
    jax.eval_shape(jax.jit(jax.shard_map(attend, axis_names=mapped, **options)), shapes()[0])
    assert found == [chosen]


def test_jax_accepts_the_call_of_cudnn(monkeypatch: pytest.MonkeyPatch, gpu: Callable[[str], None]) -> None:
    """Without a GPU, forward and backward pass are lowered for one, for even and odd lengths."""
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91_000)
    gpu("9.0")
    allowed = [jax.export.DisabledSafetyCheck.custom_call(f"__cudnn$fmhaSoftmax{part}") for part in ("", "Backward")]
    for lq, lk in ((64, 64), (37, 53)):
        q, k, v, dy, mask = arrays(lq, lk, jnp.bfloat16, width=64)
        attend = functools.partial(softmax_attention, mask=mask)
        both = jax.jit(lambda q, k, v, dy, attend=attend: jax.vjp(attend, q, k, v)[1](dy))
        text = jax.export.export(both, platforms=["cuda"], disabled_checks=allowed)(q, k, v, dy).mlir_module()
        assert text.count("custom_call @__cudnn$fmhaSoftmax(") == 1
        assert text.count("custom_call @__cudnn$fmhaSoftmaxBackward(") == 1


def test_weights_are_dropped_in_blocks_on_a_gpu(gpu: Callable[[str], None], library: Library) -> None:
    q, k, v, _, mask = arrays(37, 53, jnp.bfloat16)
    dropped = functools.partial(
        softmax_attention, q, k, v, mask, dropout_rate=0.3, rng_keys=jax.random.split(jax.random.key(0), B)
    )
    want = dropped(block=64)
    gpu("9.0")
    np.testing.assert_allclose(dropped().astype(jnp.float32), want.astype(jnp.float32), atol=2e-2)
    assert not library.calls


def test_invalid_implementations_are_refused() -> None:
    q, k, v, _, mask = arrays(8, 8)
    with pytest.raises(ValueError, match="implementation 'flash' is not one of blocks, cudnn, xla"):
        softmax_attention(q, k, v, mask, implementation="flash")  # type: ignore[arg-type]
    keys = jax.random.split(jax.random.key(0), B)
    for name in ("cudnn", "xla"):
        with pytest.raises(ValueError, match=f'"{name}" cannot drop weights; use "blocks"'):
            softmax_attention(q, k, v, mask, dropout_rate=0.1, rng_keys=keys, implementation=name)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f'"{name}" cannot subtract slopes; use "blocks"'):
            softmax_attention(q, k, v, mask, slopes=(1.0,) * q.shape[2], implementation=name)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [2**10, 2**16, 2**30])
@pytest.mark.parametrize("dropout_rate", [0.0, 0.3])
@pytest.mark.usefixtures("x64")
def test_blocks_of_a_gpu_equal_those_of_a_cpu(
    limit: int, dropout_rate: float, monkeypatch: pytest.MonkeyPatch, gpu: Callable[[str], None]
) -> None:
    q, k, v, dy, mask = arrays(101, 1100, jnp.float64)
    attend = functools.partial(
        softmax_attention, mask=mask, dropout_rate=dropout_rate, rng_keys=jax.random.split(jax.random.key(0), B)
    )
    want = values_and_gradients(attend, q, k, v, dy)
    gpu("8.0")
    monkeypatch.setattr(softmax, "GPU_BYTES", limit)
    for a, b in zip(values_and_gradients(attend, q, k, v, dy), want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("batch", [1, 8, 32, 100])
@pytest.mark.parametrize("length", [1000, 1025, 4096, 16_384])
def test_weights_of_a_block_have_a_largest_size_on_a_gpu(length: int, batch: int, gpu: Callable[[str], None]) -> None:
    """All keys are in one chunk, and the weights of a block are as large as allowed."""
    gpu("8.0")
    x = jax.ShapeDtypeStruct((batch, length, 8, 16), jnp.float32)
    mask = jnp.ones((batch, length), bool)
    jaxpr = jax.make_jaxpr(lambda q, k, v: softmax_attention(q, k, v, mask))(x, x, x).jaxpr
    whole = 4 * batch * 8 * length**2
    assert min(whole, softmax.GPU_BYTES // 2) <= 4 * largest_array(jaxpr) <= softmax.GPU_BYTES
    assert str(jaxpr).count("scan[") == (whole > softmax.GPU_BYTES)


def test_a_version_of_jax_without_the_private_name_still_works() -> None:
    code = """
from jax._src import xla_bridge
del xla_bridge.backends_are_initialized
import jax
from models.fused_attention import choose_implementation
q = jax.ShapeDtypeStruct((2, 8, 2, 4), "float32")
print(choose_implementation(q, q, q, dropout=False))
"""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "blocks", done.stderr
