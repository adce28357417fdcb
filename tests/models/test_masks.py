"""Every public function with a mask accepts booleans or integers 0 and 1, and refuses other masks."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from models import ops
from models.block_attention import block_attention, block_weights, strided_attention
from models.fused_attention import fused_attention
from models.mixers import (
    bigbird,
    cosformer,
    linear,
    linformer,
    lion,
    local,
    longformer,
    mega,
    mlstm,
    nystromformer,
    performer,
    polynomial,
    reformer,
    sinkhorn,
    skyformer,
    softmax,
    sparse,
)

LENGTH = 12
MODULES = [importlib.import_module(m.name) for m in pkgutil.walk_packages(models.__path__, "models.") if not m.ispkg]
PUBLIC = {
    f"{module.__name__}.{name}": function
    for module in MODULES
    for name, function in vars(module).items()
    if inspect.isfunction(function)
    and function.__module__ == module.__name__
    and not name.startswith("_")
    and "mask" in inspect.signature(function).parameters
}


def normal(*shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(len(shape)), shape)


X = normal(2, LENGTH, 2, 4)  # [B, L, H, K]
HEADS_FIRST = X.swapaxes(1, 2)
BLOCKS = X.reshape(2, 3, 4, 2, 4)  # [B, N, S, H, K]
CALLS: dict[str, Callable[[jax.Array], Any]] = {
    "models.block_attention.strided_attention": lambda m: strided_attention(X, X, X, m, 3),
    "models.ops.boolean_mask": ops.boolean_mask,
    "models.ops.masked_softmax": lambda m: ops.masked_softmax(normal(2, LENGTH), m),
    "models.ops.zero_padding": lambda m: ops.zero_padding(X, m),
    "models.fused_attention.fused_attention": lambda m: fused_attention("xla", X, X, X, m),
    "models.mixers.bigbird.bigbird_attention": lambda m: bigbird.bigbird_attention(
        X, X, X, m, jnp.zeros((3, 2, 0), int), 4
    ),
    "models.mixers.cosformer.cosformer_attention": lambda m: cosformer.cosformer_attention(X, X, X, mask=m),
    "models.mixers.linear.linear_attention": lambda m: linear.linear_attention(X, X, X, m),
    "models.mixers.linformer.linformer_attention": lambda m: linformer.linformer_attention(
        X, X, X, m, normal(LENGTH, 3), normal(LENGTH, 3)
    ),
    "models.mixers.linformer.shorten": lambda m: linformer.shorten(X, m, normal(LENGTH, 3)),
    "models.mixers.lion.lion_attention": lambda m: lion.lion_attention(
        X, X, X, m, -jnp.abs(X[..., :1]), -jnp.abs(X[..., 1:2])
    ),
    "models.mixers.local.local_attention": lambda m: local.local_attention(X, X, X, m, 4),
    "models.mixers.longformer.sliding_window_attention": lambda m: longformer.sliding_window_attention(
        X, X, X, m, 2, 2, 1
    ),
    "models.mixers.mega.attention_weights": lambda m: mega.attention_weights(
        BLOCKS[..., 0, :], BLOCKS[..., 0, :], jnp.zeros((4, 4)), m.reshape(2, 3, 4), "laplace"
    ),
    "models.mixers.mlstm.matrix_memory": lambda m: mlstm.matrix_memory(
        X, X, X, m, X[:, :, :, :2], -jnp.abs(X[:, :, :, 2:])
    ),
    "models.mixers.nystromformer.nystrom_factors": lambda m: nystromformer.nystrom_factors(
        HEADS_FIRST, HEADS_FIRST, m, 3
    ),
    "models.mixers.nystromformer.segments_of": lambda m: nystromformer.segments_of(m, 3),
    "models.mixers.performer.performer_attention": lambda m: performer.performer_attention(X, X, X, m, kernel="relu"),
    "models.mixers.polynomial.polynomial_weights": lambda m: polynomial.polynomial_weights(X, X, m, 3),
    "models.mixers.reformer.lsh_attention": lambda m: reformer.lsh_attention(
        HEADS_FIRST, HEADS_FIRST, jnp.arange(48).reshape(2, 1, 2, LENGTH) % 2, m, chunk=4, count=2
    ),
    "models.mixers.sinkhorn.sorted_attention": lambda m: sinkhorn.sorted_attention(
        BLOCKS, BLOCKS, BLOCKS, m.reshape(2, 3, 4), jnp.full((2, 2, 3, 3), 1 / 3), 0.0, None
    ),
    "models.mixers.sinkhorn.summed_attention": lambda m: sinkhorn.summed_attention(X, X, X, m, 3, 0.0, None),
    "models.mixers.skyformer.nystrom": lambda m: skyformer.nystrom(
        HEADS_FIRST, HEADS_FIRST, HEADS_FIRST, m, HEADS_FIRST[:, :, :5]
    ),
    "models.mixers.skyformer.sample": lambda m: skyformer.sample(HEADS_FIRST, jnp.array([[0.2, 0.9]] * 2), m),
    "models.mixers.softmax.softmax_attention": lambda m: softmax.softmax_attention(X, X, X, m),
    "models.mixers.sparse.sparse_attention": lambda m: sparse.sparse_attention(
        X, X, X, m, kind="fixed", stride=4, columns=1
    ),
}
MASK = jnp.asarray(np.arange(LENGTH) < np.array([[LENGTH], [5]]))


def test_every_public_function_with_a_mask_is_tested() -> None:
    assert set(CALLS) == set(PUBLIC)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_integer_masks_equal_boolean_masks_and_other_masks_are_refused(name: str) -> None:
    call = CALLS[name]
    want = jax.tree.leaves(jax.jit(call)(MASK))
    assert want
    for dtype in (jnp.int32, jnp.uint8):
        for got in (jax.jit(call)(MASK.astype(dtype)), call(MASK.astype(dtype))):
            for a, b in zip(jax.tree.leaves(got), want, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    additive = jnp.where(MASK, 0.0, -1e9)
    for invalid in (additive, MASK.astype(jnp.float32), additive.astype(jnp.bfloat16), np.asarray(additive)):
        with pytest.raises(
            ValueError, match=f"must be bool .True = real token. or integers 0 and 1, not {invalid.dtype}"
        ):
            call(invalid)
    with pytest.raises(ValueError, match=r"must be bool .True = real token. or integers 0 and 1, not float32"):
        jax.jit(call)(additive)
    with pytest.raises(
        ValueError, match="a mask of integers must contain only 0 and 1; this int32 mask has other values"
    ):
        call(jnp.where(MASK, 0, -1))


VALUES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {  # with values v [B, L, H, V]
    "bigbird": lambda v, m: bigbird.bigbird_attention(X, X, v, m, jnp.zeros((3, 2, 0), int), 4),
    "cosformer": lambda v, m: cosformer.cosformer_attention(X, X, v, mask=m),
    "cosformer, causal": lambda v, m: cosformer.cosformer_attention(X, X, v, mask=m, causal=True),
    "linear": lambda v, m: linear.linear_attention(X, X, v, m),
    "linformer": lambda v, m: linformer.linformer_attention(X, X, v, m, normal(LENGTH, 3), normal(LENGTH, 3)),
    "local": lambda v, m: local.local_attention(X, X, v, m, 4),
    "longformer": lambda v, m: longformer.sliding_window_attention(X, X, v, m, 2, 2, 1),
    "performer": lambda v, m: performer.performer_attention(X, X, v, m, kernel="relu"),
    "softmax": lambda v, m: softmax.softmax_attention(X, X, v, m),
    "softmax, fused": lambda v, m: fused_attention("xla", X, X, v, m),
    "sparse": lambda v, m: sparse.sparse_attention(X, X, v, m, kind="fixed", stride=4, columns=1),
    "strided": lambda v, m: strided_attention(X, X, v, m, 3),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_that_are_no_numbers_at_padded_positions_are_ignored(name: str) -> None:
    def real(v: jax.Array) -> jax.Array:
        return jnp.where(MASK[..., None, None], VALUES[name](v, MASK), 0)

    for value in (jnp.nan, jnp.inf):
        odd = jnp.where(MASK[..., None, None], X, value)
        np.testing.assert_array_equal(real(odd), real(X))
        gradient = jax.grad(lambda v: real(v).sum())(odd)
        np.testing.assert_array_equal(gradient, jax.grad(lambda v: real(v).sum())(X))


def test_block_attention_refuses_float_masks() -> None:
    visible = jnp.where(MASK, 0.0, -1e9)[:, None, None, None]
    with pytest.raises(ValueError, match="not float32"):
        block_attention(X[:, None], X[:, None], X[:, None], visible)
    with pytest.raises(ValueError, match="not float32"):
        block_weights(normal(2, 1, 2, LENGTH, LENGTH), visible)


def test_a_boolean_mask_is_returned_unchanged() -> None:
    assert ops.boolean_mask(MASK) is MASK
    assert not jax.make_jaxpr(ops.boolean_mask)(MASK).jaxpr.eqns
