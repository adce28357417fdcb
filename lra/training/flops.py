"""Floating-point operations of a jax function, counted on its jaxpr: independent of compiler and machine.

The compiler's own analysis counts the body of a loop once; here a scan counts as often as it runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

# What moves or makes values and computes none.
FREE = {
    "argmax", "argmin", "bitcast_convert_type", "broadcast_in_dim", "concatenate", "convert_element_type", "copy",
    "copy_p", "dynamic_slice", "dynamic_update_slice", "gather", "iota", "pad", "random_bits", "random_fold_in",
    "random_seed", "random_split", "random_unwrap", "random_wrap", "reshape", "rev", "select_n", "slice", "split",
    "squeeze", "stop_gradient", "transpose",
}  # fmt: skip


def flops(function: Callable[..., Any], *args: Any) -> float:
    """Operations of `function(*args)`; args may be `jax.ShapeDtypeStruct`.

    A multiply-add is two. An FFT of n points is 5 n log2(n), a sort n log2(n); any other operation is one for
    each number that it makes (reductions: that they read), exp and sine like plus. A `while` whose trips
    cannot be known counts once, a `cond` as its dearest branch.
    """
    return flops_of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def flops_of_jaxpr(jaxpr: Jaxpr) -> float:
    """The same of what was traced already."""
    return sum(_of(equation) for equation in jaxpr.eqns)


def _of(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    shapes: list[tuple[int, ...]] = [getattr(v.aval, "shape", ()) for v in equation.invars]
    made = sum(math.prod(getattr(v.aval, "shape", ())) for v in equation.outvars)
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return 2.0 * made * math.prod(shapes[0][i] for i in contracted)
    if name.startswith("dot_product_attention"):  # of cuDNN: two products with all weights, five in the backward pass
        (b, queries, heads, width), keys = shapes[0], shapes[1][1]
        return (10.0 if "bwd" in name else 4.0) * b * heads * queries * keys * width
    if name == "conv_general_dilated":
        out_channels = shapes[1][params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * made * math.prod(shapes[1]) / out_channels
    if name == "fft":
        points = math.prod(params["fft_lengths"])
        return 5.0 * max(made, math.prod(shapes[0])) * math.log2(max(points, 2))
    if name == "sort":
        return math.prod(shapes[0]) * math.log2(max(shapes[0][params["dimension"]], 2))
    if name == "cond":
        return max(flops_of_jaxpr(branch.jaxpr) for branch in params["branches"])
    inner = sum(map(flops_of_jaxpr, _inner(params)))
    if inner:
        return inner * params.get("length", 1) if name == "scan" else inner
    if name in FREE:
        return 0.0
    if name.startswith(("reduce_", "cum", "scatter")):
        return float(math.prod(shapes[-1] if name.startswith("scatter") else shapes[0]))
    return float(made)


def all_equations(jaxpr: Jaxpr) -> Iterator[Any]:
    """Yield the equations of a program and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in _inner(equation.params):
            yield from all_equations(inner)


def _inner(params: dict[str, Any]) -> Iterator[Jaxpr]:
    """The jaxprs among the parameters of an equation: bodies of loops, jitted and rematerialised functions."""
    for value in params.values():
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
