"""Bidirectional cosFormer attention as GPU kernels (Pallas, Triton backend), which read each array once per pass.

With x = relu of queries or keys, and w = cosines and sines of the angles in `models/mixers/cosformer.py`,

    first pass:   S_w = sum_j w_j k_j v_j^T,  z_w = sum_j w_j k_j
    second pass:  y_i = n_i / max(t_i, eps),  n_i = sum_w w_i S_w^T q_i,  t_i = sum_w w_i z_w . q_i

The backward pass goes over the queries for dq, dS and dz, then over the keys for dk and dv. The grid is (example, head,
block of positions); the sums of the blocks are added by XLA. These kernels have not been measured on a GPU. Without one
they are interpreted, which is slow and for tests only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, ShapeDtypeStruct
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from models.ops import matmul_precision

ROWS = 64  # positions of one step of a program's loop
BLOCK = 1024  # positions of a program, a multiple of ROWS; the sums of smaller blocks would be as large as their inputs


class _Options(NamedTuple):
    eps: float
    precision: Any

    def dot(self, a: Array, b: Array, axes: tuple[int, int]) -> Array:
        """Compute a matrix product that sums over these axes of a and b."""
        return jax.lax.dot_general(a, b, ((axes[:1], axes[1:]), ((), ())), precision=self.precision)


def kernel_attention(q: Array, k: Array, v: Array, query_weights: Array, key_weights: Array, eps: float) -> Array:
    """Compute attention over the keys whose sine is not zero, in the dtype of the weights.

    Args:
      q, k, v:       [B, Lq, H, K], [B, Lk, H, K], [B, Lk, H, V]
      query_weights: cosines and sines, [B, 2, Lq] or [1, 2, Lq]
      key_weights:   [B, 2, Lk] or [1, 2, Lk]; the sine of a padded key is 0
      eps:           lower bound of the denominator

    Returns:
      [B, Lq, H, V], dtype of v

    Raises:
      ValueError: a width is not a power of two of at least 16, which Triton's products need
    """
    widths = q.shape[3], v.shape[3]
    if any(width < 16 or width & (width - 1) for width in widths):
        raise ValueError(f"implementation 'pallas' needs widths 16, 32, 64, ... of a head, not {widths}; use 'xla'")

    def whole_steps(x: Array, axis: int) -> Array:
        return jnp.pad(x, [(0, -n % ROWS if i == axis else 0) for i, n in enumerate(x.shape)])

    padded = (*(whole_steps(x, 1) for x in (q, k, v)), whole_steps(query_weights, 2), whole_steps(key_weights, 2))
    return _attend(_Options(eps, matmul_precision()), *padded)[:, : q.shape[1]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(options: _Options, *arrays: Array) -> Array:
    return _forward(options, *arrays)[0]


def _forward(
    options: _Options, q: Array, k: Array, v: Array, query_weights: Array, key_weights: Array
) -> tuple[Array, tuple[Array, ...]]:
    states = _run(_key_sums, options, [k, v], key_weights, sums=[(2, k.shape[3], v.shape[3]), (2, k.shape[3])])
    (y,) = _run(_outputs, options, [q], query_weights, states, [ShapeDtypeStruct((*q.shape[:3], v.shape[3]), v.dtype)])
    return y, (q, k, v, query_weights, key_weights, *states)


def _backward(options: _Options, residuals: tuple[Array, ...], dy: Array) -> tuple[Array | None, ...]:
    q, k, v, query_weights, key_weights, *states = residuals
    dq, *d_states = _run(_query_gradients, options, [q, dy], query_weights, states, [q], [x.shape[3:] for x in states])
    dk, dv = _run(_key_gradients, options, [k, v], key_weights, d_states, [k, v])
    return dq, dk, dv, None, None  # the weights depend on positions and mask only


_attend.defvjp(_forward, _backward)


def _run(
    kernel: Callable[..., None], options: _Options, rows: Sequence[Array], weights: Array, states: Sequence[Array] = (),
    outputs: Sequence[Array | ShapeDtypeStruct] = (), sums: Sequence[tuple[int, ...]] = (),
) -> list[Array]:  # fmt: skip
    """Run a kernel on rows [B, L, H, *], weights [1 or B, 2, L] and states [B, H, 1, *].

    Return arrays with the shapes and dtypes of `outputs`, [B, L, H, *], and for each shape in `sums` one [B, H, 1, *].
    """
    b, length, h, _ = rows[0].shape
    grid = b, h, pl.cdiv(length, BLOCK)

    def row_spec(x: Array | ShapeDtypeStruct) -> pl.BlockSpec:
        return pl.BlockSpec((None, length, None, x.shape[3]), lambda b, h, n: (b, 0, h, 0))

    def state_spec(shape: tuple[int, ...], each_block: bool) -> pl.BlockSpec:
        return pl.BlockSpec((None,) * 3 + shape, lambda b, h, n: (b, h, n if each_block else 0, *[0] * len(shape)))

    weight_spec = pl.BlockSpec((None, 2, length), lambda b, h, n: (b if len(weights) > 1 else 0, 0, 0))
    results = pl.pallas_call(
        functools.partial(kernel, options),
        grid=grid,
        in_specs=[*map(row_spec, rows), weight_spec, *(state_spec(x.shape[3:], False) for x in states)],
        out_specs=[*map(row_spec, outputs), *(state_spec(shape, True) for shape in sums)],
        out_shape=[ShapeDtypeStruct(x.shape, x.dtype) for x in outputs]
        + [ShapeDtypeStruct((*grid, *shape), weights.dtype) for shape in sums],
        compiler_params=triton.CompilerParams(),  # selects the backend
        interpret=jax.default_backend() != "gpu",
    )(*rows, weights, *states)
    return [*results[: len(outputs)], *(x.sum(2, keepdims=True) for x in results[len(outputs) :])]


def _loop(weights: Any, step: Callable[..., Any], carry: Any = ()) -> Any:
    """Call step(rows, (cosines, sines), carry) for the positions of this program, `ROWS` at a time."""
    first, end = pl.program_id(2) * (BLOCK // ROWS), weights.shape[1] // ROWS

    def body(i: Array, carry: Any) -> Any:
        rows = pl.ds(i * ROWS, ROWS)
        return step(rows, [weights[n, rows][:, None] for n in range(2)], carry)

    return jax.lax.fori_loop(first, jnp.minimum(first + BLOCK // ROWS, end), body, carry)


def _sum(options: _Options, weights: Any, terms: Callable[..., Any], state: Any, total: Any) -> None:
    """Write sum_i w_i x_i u_i^T to `state` and sum_i w_i x_i r_i to `total`, where terms(rows, pair) = x, u, r."""

    def step(rows: Any, pair: Any, sums: Any) -> Any:
        x, u, r = terms(rows, pair)
        pairs = zip(pair, sums, strict=True)
        return [(s + options.dot(x * w, u, (0, 0)), z + (x * w * r).sum(0)) for w, (s, z) in pairs]

    zeros = [tuple(jnp.zeros(x.shape[1:], x.dtype) for x in (state, total))] * 2
    for n, (s, z) in enumerate(_loop(weights, step, zeros)):
        state[n], total[n] = s, z


def _key_sums(options: _Options, k_ref: Any, v_ref: Any, weights: Any, state: Any, total: Any) -> None:
    _sum(options, weights, lambda rows, pair: (*_real_keys(k_ref, v_ref, rows, pair)[:2], 1), state, total)


def _real_keys(k_ref: Any, v_ref: Any, rows: Any, pair: Any) -> tuple[Array, Array, Array]:
    """Return relu(k), v and where relu has a gradient; zeros at padded keys, whatever these contain."""
    k, v = (x[rows, :].astype(pair[1].dtype) for x in (k_ref, v_ref))
    real = pair[1] > 0
    positive = real & (k > 0)
    return jnp.where(positive, k, 0), jnp.where(real, v, 0), positive


def _quotient(options: _Options, q: Array, pair: Any, state: Any, total: Any) -> tuple[Array, Array]:
    """Return y and t of the queries."""
    t: Any = sum((q * total[n][None]).sum(1, keepdims=True) * w for n, w in enumerate(pair))
    return sum(options.dot(q, state[n], (1, 0)) * w for n, w in enumerate(pair)) / jnp.maximum(t, options.eps), t


def _outputs(options: _Options, q_ref: Any, weights: Any, state: Any, total: Any, y_ref: Any) -> None:
    def step(rows: Any, pair: Any, _: Any) -> Any:
        q = jnp.maximum(q_ref[rows, :].astype(weights.dtype), 0)
        y_ref[rows, :] = _quotient(options, q, pair, state, total)[0].astype(y_ref.dtype)
        return ()

    _loop(weights, step)


def _query_gradients(
    options: _Options, q_ref: Any, dy_ref: Any, weights: Any, state: Any, total: Any, dq_ref: Any, *d_states: Any
) -> None:
    """With n and t as above, dn = dy / t and dt = -(y . dy) / t, which is 0 where eps replaces t."""

    def terms(rows: Any, pair: Any) -> tuple[Array, Array, Array]:
        q, dy = (x[rows, :].astype(weights.dtype) for x in (q_ref, dy_ref))
        q, positive = jnp.maximum(q, 0), q > 0
        y, t = _quotient(options, q, pair, state, total)
        dn = dy / jnp.maximum(t, options.eps)
        dt = jnp.where(t > options.eps, -(y * dn).sum(1, keepdims=True), 0)
        dq = sum((options.dot(dn, state[n], (1, 1)) + dt * total[n][None]) * w for n, w in enumerate(pair))
        dq_ref[rows, :] = jnp.where(positive, dq, 0).astype(dq_ref.dtype)
        return q, dn, dt

    _sum(options, weights, terms, *d_states)


def _key_gradients(
    options: _Options, k_ref: Any, v_ref: Any, weights: Any, d_state: Any, d_total: Any, dk_ref: Any, dv_ref: Any
) -> None:
    def step(rows: Any, pair: Any, _: Any) -> Any:
        k, v, positive = _real_keys(k_ref, v_ref, rows, pair)
        dk = sum((options.dot(v, d_state[n], (1, 1)) + d_total[n][None]) * w for n, w in enumerate(pair))
        dk_ref[rows, :] = jnp.where(positive, dk, 0).astype(dk_ref.dtype)
        dv_ref[rows, :] = sum(options.dot(k, d_state[n], (1, 0)) * w for n, w in enumerate(pair)).astype(dv_ref.dtype)
        return ()

    _loop(weights, step)
