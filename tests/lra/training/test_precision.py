"""The protocol's matmul precision holds for every product of training: forward, backward, rematerialised, looped."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params

from lra.contract.checks import FORMS
from lra.training.batching import stack_micro_batches
from lra.training.step_functions import StepFunctions, TrainState
from lra.training.train_step import micro_batches, step_inputs
from models import mixers
from models.core import QKVAttention
from models.mixers.cosformer import cosformer_attention
from models.mixers.linear import linear_attention
from models.mixers.performer import performer_attention
from models.mixers.softmax import softmax_attention
from models.ops import kv_state
from tasks.core import Prepared
from tasks.listops import CARD
from tests.lra.conftest import tiny_config

pytestmark = pytest.mark.slow

HIGHEST = jax.lax.Precision.HIGHEST
PRECISIONS = {"default": jax.lax.Precision.DEFAULT, "high": jax.lax.Precision.HIGH, "highest": HIGHEST}
# Products that ask for full precision themselves, whatever the protocol says: inverses, distances, sums of exponentials
PINNED = {"mega", "nystromformer", "s4d", "skyformer"}
SUBJECTS = [(name, form) for name in mixers.available() for form in ({}, *FORMS.get(name, ()))]
every_form = pytest.mark.parametrize(("name", "form"), SUBJECTS, ids=[mixers.label(*subject) for subject in SUBJECTS])


def equations(jaxpr: Jaxpr) -> list[JaxprEqn]:
    """All equations of a program, those of loops and calls included."""
    found = list(jaxpr.eqns)
    for equation in jaxpr.eqns:
        found += [e for inner in jaxprs_in_params(equation.params) for e in equations(inner)]
    return found


def precisions(jaxpr: Jaxpr) -> Counter[Any]:
    """How many products of matrices and convolutions of a program have which precision."""
    products = [e for e in equations(jaxpr) if e.primitive.name in ("dot_general", "conv_general_dilated")]
    counted: Counter[Any] = Counter()
    for equation in products:
        precision = equation.params["precision"]
        left, right = precision if isinstance(precision, tuple) else (precision, precision)
        assert left == right
        counted[left] += 1
    return counted


def of_training(tiny: Prepared, name: str, options: Mapping[str, Any], precision: str) -> tuple[Jaxpr, Jaxpr]:
    """The programs of a gradient, with dropout and rematerialisation, and of a prediction."""
    changes = {"train.micro_batch": 8, "train.matmul_precision": precision, "train.remat": True}
    mixer = {"mixer_options": options, "mixer_sha256": mixers.resolve(name).sha256}
    program = StepFunctions(dataclasses.replace(tiny_config(name, **changes), **mixer), CARD)
    examples = program.dataset(tiny.splits["train"])
    state = TrainState(0, *jax.eval_shape(program.init)[1:])
    accumulator = jax.eval_shape(program.zero_gradients, state.params)
    (batch,) = micro_batches(program, 0, examples)
    stack = stack_micro_batches([batch], 1)
    inputs = step_inputs(program, state, examples)
    gradient = program.add_gradients.trace(accumulator, inputs, stack, bucket=batch.bucket)
    prediction = program.predict.trace(state.params, state.buffers, examples.arrays, batch.indices, bucket=batch.bucket)
    return gradient.jaxpr.jaxpr, prediction.jaxpr.jaxpr


@every_form
def test_every_product_of_training_has_the_protocols_precision(
    tiny: Prepared, name: str, form: Mapping[str, Any]
) -> None:
    wanted = ["high"] if form else list(PRECISIONS)
    found = [of_training(tiny, name, form, precision) for precision in wanted]
    for programs in zip(*found, strict=True):  # the gradient, the prediction
        counted = dict(zip(wanted, map(precisions, programs), strict=True))
        pinned = counted["high"][HIGHEST]
        assert pinned == 0 or name in PINNED
        products = counted["high"].total()
        assert products >= 3  # the MLP and the head
        for precision, count in counted.items():
            assert count == Counter({HIGHEST: pinned}) + Counter({PRECISIONS[precision]: products - pinned})
    jax.clear_caches()


class WithItsOwnGradient(QKVAttention):
    """Its backward function asks for no precision, as most that are written by hand."""

    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: jax.Array | None
    ) -> jax.Array:
        @jax.custom_vjp
        def mean(v: jax.Array) -> jax.Array:
            return jnp.einsum("bj,bjhk->bhk", mask.astype(v.dtype), v)

        mean.defvjp(lambda v: (mean(v), None), lambda _, d: (jnp.einsum("bj,bhk->bjhk", mask.astype(d.dtype), d),))
        return linear_attention(q, k, v, mask) + mean(v)[:, None]


def test_a_users_own_gradient_has_the_protocols_precision(tiny: Prepared) -> None:
    gradient, prediction = of_training(tiny, f"{__name__}:{WithItsOwnGradient.__name__}", {}, "highest")
    for program in (gradient, prediction):
        assert set(precisions(program)) == {HIGHEST}


MASK = jnp.arange(300)[None] < jnp.array([[300], [170]])
PUBLIC: dict[str, Callable[..., jax.Array]] = {
    "cosformer": functools.partial(cosformer_attention, mask=MASK),
    "cosformer, causal": functools.partial(cosformer_attention, mask=MASK, causal=True),
    "linear": functools.partial(linear_attention, mask=MASK),
    "performer": functools.partial(performer_attention, mask=MASK, kernel="relu"),
    "softmax": functools.partial(softmax_attention, mask=MASK),
    "kv_state": lambda q, k, v: kv_state(k, v) + q.sum(),
}


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize("remat", [False, True])
def test_a_gradient_keeps_the_precision_when_the_callers_context_is_over(name: str, remat: bool) -> None:
    attention = jax.checkpoint(PUBLIC[name]) if remat else PUBLIC[name]

    def attend(*arrays: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return attention(*arrays)

    x = jnp.zeros((2, 300, 3, 4))
    counted = precisions(jax.make_jaxpr(jax.grad(lambda *xs: attend(*xs).sum(), (0, 1, 2)))(x, x, x).jaxpr)
    assert counted == {HIGHEST: counted.total()}
    assert counted.total() >= 3
