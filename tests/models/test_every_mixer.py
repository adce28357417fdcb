"""What holds for every mixer: impossible options are refused, odd padding is ignored, large activations stay finite."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra.contract.checks import FORMS
from models.core import Dims, check_range
from models.mixers import available, build, options, resolve

DIMS = Dims(d_model=12, num_heads=2, qkv_dim=16, max_len=40, mlp_dim=24)
SUBJECTS = [(name, form) for name in available() for form in ({}, *FORMS.get(name, ()))]
every_form = pytest.mark.parametrize(("name", "form"), SUBJECTS, ids=str)
MASK = np.arange(29) < np.array([[29], [17], [1]])
X = np.random.default_rng(0).standard_normal((*MASK.shape, DIMS.d_model), np.float32)

INTEGERS = (0, 1, -1, -(10**6), 10**9, 10**30, 10**400, 1.5, math.nan, True, "1", None)
FLOATS = (0.0, -0.0, 1e-300, 1e-30, -1e-6, -1.0, 1.0, 1e6, 1e50, 1e99, 1e300, math.nan, math.inf, -math.inf, "1", None)
OPTIONS = [(name, option) for name in available() for option in options(resolve(name).cls)]


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=str)
def test_a_value_is_refused_in_one_line_or_gives_finite_outputs(name: str, option: str) -> None:
    cls = resolve(name).cls
    annotation = str(options(cls)[option].annotation)
    values: tuple[Any, ...] = (
        FLOATS if "float" in annotation else INTEGERS if "int" in annotation else (0, None, "", 1.0)
    )
    accepted, refusals = [], []
    for value in values:
        try:
            mixer: Any = build(cls, DIMS, {option: value}, nnx.Rngs(0))
        except ValueError as error:
            refusals.append((str(error), f"{option}={value}"))
            continue
        accepted.append(value)
        assert np.isfinite(jax.jit(lambda x, mixer=mixer: mixer(x, MASK))(X)).all(), value
    for message, given in refusals:
        assert message.startswith(f"{name}: option ")
        assert given in message
        assert "\n" not in message
    assert not {10**9, 1e50, -1.0, -1} & {value for value in accepted if not isinstance(value, bool)}


def test_the_range_of_an_option() -> None:
    check_range(1, 3, a=1, b=3, c=None)
    check_range(0.0, 1.0, a=0, b=0.5)
    for bounds, value, message in (
        ((1, 70_000), 0, "option a=0: must be a whole number from 1 to 70,000"),
        ((1, 3), 2.0, "option a=2.0: must be a whole number from 1 to 3"),
        ((1e-6, 1.0), math.nan, "option a=nan: must be a number from 1e-06 to 1"),
        ((0.0, 1.0), "x", "option a=x: must be a number from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            check_range(*bounds, a=value)  # type: ignore[arg-type]


@every_form
def test_nan_and_infinity_at_padding_are_ignored(name: str, form: dict[str, Any]) -> None:
    mixer: Any = build(resolve(name).cls, DIMS, form, nnx.Rngs(0))
    graph, state = nnx.split(mixer)

    @jax.jit
    def outputs_and_gradients(x: jax.Array) -> Any:
        def loss(state: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            y = nnx.merge(graph, state)(x, jnp.asarray(MASK))
            return (jnp.where(MASK[..., None], y, 0) ** 2).sum(), y

        (_, y), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True, allow_int=True)(state, x)
        return y, [g for g in jax.tree.leaves(gradients) if jnp.issubdtype(g.dtype, jnp.inexact)]

    want_y, want = outputs_and_gradients(jnp.where(MASK[..., None], X, 0))
    for value in (np.nan, np.inf, -np.inf):
        y, gradients = outputs_and_gradients(jnp.where(MASK[..., None], X, value))
        assert np.isfinite(y).all()
        np.testing.assert_array_equal(np.asarray(y)[MASK], np.asarray(want_y)[MASK])
        for got, expected in zip(gradients, want, strict=True):
            assert np.isfinite(got).all()
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@every_form
def test_large_activations_are_finite_in_half_precision_or_refused(name: str, form: dict[str, Any], dtype: str) -> None:
    dims = Dims(d_model=12, num_heads=2, qkv_dim=16, max_len=40, mlp_dim=24, dtype=jnp.dtype(dtype))
    if (name, dtype) == ("polynomial", "float16"):
        with pytest.raises(
            ValueError, match=r"^polynomial: float16 is too small for the powers of this mixer: use float32"
        ):
            build(resolve(name).cls, dims, form, nnx.Rngs(0))
        return
    mixer: Any = build(resolve(name).cls, dims, form, nnx.Rngs(0))
    y = jax.jit(lambda x: mixer(x, MASK))(30 * X.astype(dtype))
    assert y.dtype == dtype
    assert np.isfinite(np.asarray(y, np.float32)).all()
