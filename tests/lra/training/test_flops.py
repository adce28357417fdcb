"""Operations counted by hand."""

from __future__ import annotations

from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import pytest
from flax import nnx

from lra.api import configure
from lra.contract.scaling import ScalingPoint, claimed_exponent, exponent
from lra.training import evaluation
from lra.training.evaluation import forward_flops
from lra.training.flops import flops
from lra.training.step_functions import StepFunctions
from tasks.listops import CARD
from tests.lra.conftest import tiny_split


def floats(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def power(x: jax.Array, times: int) -> jax.Array:
    return jax.lax.fori_loop(0, times, lambda _, y: y @ y, x)


@pytest.mark.parametrize(
    ("function", "arguments", "count"),
    [
        (lambda a, b: a @ b, (floats(3, 4), floats(4, 5)), 2 * 3 * 4 * 5),
        (lambda a, b: jnp.einsum("bik,bjk->bij", a, b), (floats(2, 3, 4), floats(2, 5, 4)), 2 * 2 * 3 * 5 * 4),
        (lambda a: jnp.exp(a.T.reshape(12)), (floats(3, 4),), 12),
        (lambda a: a.sum(0), (floats(3, 4),), 12),
        (lambda a: power(a, 7), (floats(4, 4),), 7 * (2 * 4**3 + 2)),  # and the loop's own counter
        (jax.jit(jax.checkpoint(jnp.sin)), (floats(5),), 5),
        (jnp.fft.rfft, (floats(8),), 5 * 8 * 3),
        (lambda a: jnp.sort(a, 1), (floats(2, 8),), 2 * 8 * 3),
        (lambda a: jax.lax.cond(a[0] > 0, jnp.sin, lambda x: x @ x * x, a), (floats(6),), 1 + 1 + 2 * 6 + 6),
    ],
)
def test_counted_by_hand(function: Any, arguments: tuple[Any, ...], count: int) -> None:
    assert flops(function, *arguments) == pytest.approx(count, abs=2 * 7)


@pytest.mark.parametrize(("name", "products"), [("fwd_wrapper", 2), ("bwd_wrapper", 5)])
def test_the_attention_of_cudnn_is_counted_by_its_products(name: str, products: int) -> None:
    primitive = jax.extend.core.Primitive(f"dot_product_attention_{name}")
    primitive.def_abstract_eval(lambda q, k: q)
    count = flops(primitive.bind, floats(2, 30, 4, 8), floats(2, 50, 4, 8))
    assert count == products * 2 * (2 * 4) * 30 * 50 * 8


def test_the_backward_pass_of_a_product_is_two_products() -> None:
    forward = flops(lambda a, b: a @ b, floats(30, 40), floats(40, 50))
    both = flops(jax.grad(lambda a, b: (a @ b).sum(), (0, 1)), floats(30, 40), floats(40, 50))
    assert both == pytest.approx(3 * forward, rel=0.03)


def test_a_depthwise_convolution() -> None:
    def conv(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, w, (1,), "SAME", feature_group_count=2)

    assert flops(conv, floats(1, 2, 10), floats(6, 1, 3)) == 2 * 6 * 10 * 3


def test_exponents() -> None:
    points = [ScalingPoint(n, 3.0 * n**2, 5 * n, 1e-6 * n**1.5) for n in (1024, 4096)]
    assert exponent(*points, "flops") == pytest.approx(2)
    assert exponent(*points, "bytes") == pytest.approx(1)
    assert exponent(*points, "seconds") == pytest.approx(1.5)
    assert claimed_exponent("L", *points) == 1
    assert claimed_exponent("L^1.5", *points) == 1.5
    assert 1.1 < claimed_exponent("L log L", *points) < 1.2
    with pytest.raises(ValueError, match="COMPLEXITY 'quadratic' is not of the form"):
        claimed_exponent("quadratic", *points)


def test_forward_flops_of_a_run_are_those_of_the_model_on_one_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of devices and the micro-batch."""
    config = configure("listops", "cosformer", protocol="quick", overrides={"max_len": 32, "model.layers": 1})
    functions = StepFunctions(config, CARD)
    state = functions.init()
    dataset = functions.dataset(tiny_split(8, 0))
    counted = []
    for micro_batch in (1, 4):
        monkeypatch.setattr(evaluation, "evaluation_micro_batch", lambda f, n=micro_batch: n * f.devices)
        counted.append(forward_flops(functions, state, dataset))
    graph = nnx.split(functions.classifier(state))[0]

    def forward(params: Any, rest: Any, ids: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return nnx.merge(graph, params, rest)(ids)

    want = flops(forward, state.params, state.buffers, jax.ShapeDtypeStruct((1, 32), jnp.int32))
    assert want > 1e5
    assert counted == pytest.approx([want] * 2, rel=0.02)  # the rest is argmax, loss and the gathering of ids
