"""The vocabulary of the folder: sizes, the contract of a mixer, attention's common part, dropout.

Dimensions, here and in every einsum (lower-case there):

    B  batch            H  heads           M  features, landmarks
    L  length           K  width of a head C  classes
    D  model width      V  width of a value (K, unless said otherwise)
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Init = Literal["xavier", "lecun", "torch"]


@dataclasses.dataclass(frozen=True)
class Dims:
    """Sizes that the protocol gives to a mixer. A mixer never chooses them.

    max_len:        length of the encoder, CLS included: no input is longer
    mlp_dim:        hidden width of a block's MLP, for what stands in the place of a whole `Block`
    dropout:        rate of the attention weights, where a mixer has any
    hidden_dropout: rate of activations, for a mixer that has layers within itself; what a mixer returns is
                    dropped by the encoder
    bias:           of the projections
    init:           how linear layers start, see `linear_layer`
    norm_eps:       epsilon of LayerNorm, for what stands in the place of a whole `Block`
    dtype:          of the computation; parameters are float32
    """

    d_model: int
    num_heads: int
    qkv_dim: int
    max_len: int
    mlp_dim: int
    dropout: float = 0.0
    hidden_dropout: float = 0.0
    bias: bool = False
    init: Init = "xavier"
    norm_eps: float = 1e-6
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        if self.qkv_dim % self.num_heads:
            raise ValueError(f"qkv_dim {self.qkv_dim} is not divisible by num_heads {self.num_heads}")

    @property
    def head_dim(self) -> int:
        return self.qkv_dim // self.num_heads


class Mixer(Protocol):
    """What stands in the place of attention. The constructor is `(dims, *, <options with defaults>, rngs)`.

    x [B, L, D]; mask [B, L] bool, True = real token; rng_keys [B], one PRNG key per example while
    training, None in evaluation; returns [B, L, D]. L is at most `dims.max_len`.

    A result at a real position depends neither on the content nor on the amount of padding, nor on
    the other examples. x at padded positions is arbitrary but finite, and so may be the result there.
    """

    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: jax.Array | None = None) -> jax.Array: ...


class Block(nnx.Module):
    """Base of a mixer that cannot live in `x + mixer(norm(x))`: it stands in the place of the whole block.

    Called like a `Mixer`, with x before any norm, it returns the next x: norms, dropout, MLP and residuals
    are its own. The board marks such rows, for more than the mixer differs.
    """

    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: jax.Array | None = None) -> jax.Array:
        raise NotImplementedError(f"{type(self).__name__} has no __call__(x, mask, *, rng_keys=None)")


class Buffer(nnx.Variable):
    """Drawn once and not trained (random features, hash rotations): saved with the parameters, apart from them."""


def boolean_mask(mask: jax.Array) -> jax.Array:
    """Return a mask, of any shape, as booleans.

    The values of an integer mask can be checked only where they are known, which is not the case under `jax.jit`.

    Args:
      mask: bool, True = real, or integers 1 and 0

    Raises:
      ValueError: the mask has another type, or an integer in it is neither 0 nor 1. Floats are refused because an
        additive mask, of 0 and -1e9, would be read as its opposite.
    """
    if mask.dtype == bool:
        return mask
    if not jnp.issubdtype(mask.dtype, jnp.integer):
        raise ValueError(f"a mask is bool, True = real, or integers 0 and 1; this one is {mask.dtype}")
    if not isinstance(mask, jax.core.Tracer) and not np.isin(np.asarray(mask), (0, 1)).all():
        raise ValueError(f"a mask of integers has only 0 and 1; this one is {mask.dtype} with other values")
    return mask.astype(bool)


def scores(equation: str, q: jax.Array, k: jax.Array) -> jax.Array:
    """q . k / sqrt(K), K being the last axis of q, accumulated in float32."""
    wide = jnp.promote_types(q.dtype, jnp.float32)
    return jnp.einsum(equation, q, k, preferred_element_type=wide) / math.sqrt(q.shape[-1])


def masked_softmax(logits: jax.Array, mask: jax.Array, axis: int = -1) -> jax.Array:
    """Softmax in float32 over the entries where `mask` (broadcastable) holds; where none does: zeros, gradient zero."""
    mask = boolean_mask(mask)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    weights = jax.nn.softmax(jnp.where(mask, logits, jnp.finfo(logits.dtype).min), axis)
    return jnp.where(mask, weights, 0)


def matmul_precision() -> Any:
    """Return the precision of matrix products that `jax.default_matmul_precision` has set, for a custom gradient.

    JAX traces the backward function of a `jax.custom_vjp` only when it transposes the program. By then the caller's
    context may be over, so the function has to keep the precision and to enter the context again.
    """
    return jax.config.jax_default_matmul_precision  # type: ignore[attr-defined, unused-ignore]


def state_of(k: jax.Array, v: jax.Array) -> jax.Array:
    """Compute sum_j k_j v_j^T, the state that linear attention keeps of its keys and values.

    The gradient is written by hand: JAX's own comes out as [B, H, K, L], and on a CPU the transposition of that costs
    more than the product. It has the matmul precision of the forward pass.

    Args:
      k: [B, H, L, K]
      v: [B, H, L, V]

    Returns:
      [B, H, K, V]
    """
    return _state_of(matmul_precision(), k, v)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _state_of(precision: Any, k: jax.Array, v: jax.Array) -> jax.Array:
    return jnp.einsum("bhjk,bhjv->bhkv", k, v, precision=precision)


def _state_forward(precision: Any, k: jax.Array, v: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _state_of(precision, k, v), (k, v)


def _state_backward(
    precision: Any, kept: tuple[jax.Array, jax.Array], d_state: jax.Array
) -> tuple[jax.Array, jax.Array]:
    k, v = kept
    return (
        jnp.einsum("bhjv,bhkv->bhjk", v, d_state, precision=precision),
        jnp.einsum("bhjk,bhkv->bhjv", k, d_state, precision=precision),
    )


_state_of.defvjp(_state_forward, _state_backward)


def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU, by erf in float32: `jax.nn.gelu` takes erfc, which costs a CPU twice as much.

    Where it tends to zero erfc would keep relative precision; this is within 1e-6.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (0.5 * wide * (1 + jax.lax.erf(wide * math.sqrt(0.5)))).astype(x.dtype)


def fold(rng_keys: jax.Array | None, site: int) -> jax.Array | None:
    """The PRNG keys [B] of one dropout site, or of one layer; None stays None."""
    return None if rng_keys is None else jax.vmap(jax.random.fold_in, (0, None))(rng_keys, site)


def dropout(x: jax.Array, rate: float, rng_keys: jax.Array | None) -> jax.Array:
    """Dropout of x [B, L, ...] with one key per example; the identity where rng_keys is None.

    Whether (l, ...) is dropped is a function of the example's key and of that place alone, so an example
    is dropped alike in every bucket, micro-batch and device.
    """
    if rng_keys is None or not rate:
        return x
    seeds = [seed[:, 0, :, None] for seed in row_seeds(rng_keys, 1, x.shape[1])]
    return drop(x.reshape(*x.shape[:2], -1), rate, seeds, axis=2).reshape(x.shape)


def attention_dropout(weights: jax.Array, rate: float, rng_keys: jax.Array | None) -> jax.Array:
    """Dropout of attention weights [B, H, Lq, Lk], independent of the padding of either length."""
    if rng_keys is None or not rate:
        return weights
    seeds = [seed[..., None] for seed in row_seeds(rng_keys, *weights.shape[1:3])]
    return drop(weights, rate, seeds, axis=3)


@partial(jax.jit, static_argnums=(1, 2))  # traced once for all its uses of one size: most of a program's tracing
def row_seeds(rng_keys: jax.Array, heads: int, rows: int) -> tuple[jax.Array, jax.Array]:
    """Two uint32 [B, H, L], the seeds of `drop`: functions of an example's key, the head and the row."""
    words = jax.random.key_data(rng_keys).reshape(len(rng_keys), 1, 1, -1)
    row = jnp.arange(rows, dtype=jnp.uint32)[None, None, :]
    head = jnp.arange(heads, dtype=jnp.uint32)[None, :, None]
    return threefry(words[..., 0], words[..., -1], row, head)


PLACE = 0x9E3779B9  # a step along the axis, in `drop`


@partial(jax.jit, static_argnums=(1, 3))
def drop(x: jax.Array, rate: float, seeds: Sequence[jax.Array], axis: int) -> jax.Array:
    """Zero with probability `rate`, else x / (1 - rate): a function of two seeds and of the place along `axis`.

    The two seeds have the rank of x, and size 1 along `axis`.

    jax.random draws by the number of a place, which moves with the length unless that leads, and its hash makes
    dropout dearer than attention on a CPU. So threefry seeds each row, and a hash of two multiplications goes
    along it, which XLA fuses with what it drops: shifts and factors are those of the least biased two-round
    function of github.com/skeeto/hash-prospector.
    """
    seed0, seed1 = seeds
    bits = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * jnp.uint32(PLACE) + seed0
    bits = (bits ^ bits >> 16) * jnp.uint32(0x21F0AAAD)
    bits = ((bits ^ bits >> 15) + seed1) * jnp.uint32(0x735A2D97)
    keep = bits ^ bits >> 15 >= jnp.uint32(round(rate * 2**32))
    return jnp.where(keep, x * (1 / (1 - rate)), 0)


def threefry(key0: jax.Array, key1: jax.Array, x0: jax.Array, x1: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Threefry-2x32, 20 rounds (Salmon et al., 2011): two uint32 words for a key and a counter of two words.

    The hash behind jax.random, without its order of counters.
    """
    schedule = (key0, key1, key0 ^ key1 ^ jnp.uint32(0x1BD11BDA))
    x0, x1 = x0 + schedule[0], x1 + schedule[1]
    for i in range(1, 6):
        for turn in (13, 15, 26, 6) if i % 2 else (17, 29, 16, 24):
            x0 = x0 + x1
            x1 = x0 ^ (x1 << turn | x1 >> (32 - turn))
        x0, x1 = x0 + schedule[i % 3], x1 + schedule[(i + 1) % 3] + jnp.uint32(i)
    return x0, x1


def linear_layer(
    d_in: int, d_out: int, *, init: Init, bias: bool = True, dtype: Any = jnp.float32, rngs: nnx.Rngs
) -> nnx.Linear:
    """Return a linear layer that computes in `dtype`.

    Args:
      init: xavier = xavier-uniform weights; lecun = normal weights of variance 1 / d_in, truncated at two deviations
        (flax's default); both with zero biases. torch = weights and biases uniform in +-1 / sqrt(d_in), as
        torch.nn.Linear starts them
    """

    def uniform(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        limit = 1 / math.sqrt(d_in)
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    zeros = nnx.initializers.zeros_init()
    kernel_init, bias_init = {
        "xavier": (nnx.initializers.xavier_uniform(), zeros),
        "lecun": (nnx.initializers.lecun_normal(), zeros),
        "torch": (uniform, uniform),
    }[init]
    return nnx.Linear(d_in, d_out, use_bias=bias, dtype=dtype, kernel_init=kernel_init, bias_init=bias_init, rngs=rngs)


def projection(dims: Dims, d_in: int, d_out: int, *, bias: bool, rngs: nnx.Rngs) -> nnx.Linear:
    """Return a linear layer as the protocol starts them, computing in `dims.dtype`."""
    return linear_layer(d_in, d_out, init=dims.init, bias=bias, dtype=dims.dtype, rngs=rngs)


def project(x: jax.Array, *layers: nnx.Linear) -> list[jax.Array]:
    """What each layer makes of x, by one matrix product over all their outputs: x is read once."""
    dtype = layers[0].dtype
    y = x.astype(dtype) @ jnp.concatenate([layer.kernel[...] for layer in layers], 1).astype(dtype)
    biases = [layer.bias[...] for layer in layers if layer.bias is not None]
    if biases:
        y = y + jnp.concatenate(biases).astype(dtype)[None, None]
    return jnp.split(y, list(itertools.accumulate(layer.out_features for layer in layers))[:-1], -1)


class QKVAttention(nnx.Module):
    """Projections, heads and output around `attend`; most mixers are that one function.

    A subclass writes `attend(q, k, v, mask, rng_keys)` with q, k, v [B, L, H, K], mask [B, L], rng_keys [B] or
    None, and returns [B, L, H, K]. It masks what it sums over; nothing is zeroed here.
    """

    def __init__(self, dims: Dims, *, rngs: nnx.Rngs) -> None:
        self.dims = dims
        self.query, self.key, self.value = (
            projection(dims, dims.d_model, dims.qkv_dim, bias=dims.bias, rngs=rngs) for _ in range(3)
        )
        self.output = projection(dims, dims.qkv_dim, dims.d_model, bias=dims.bias, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: jax.Array | None = None) -> jax.Array:
        heads = (*x.shape[:2], self.dims.num_heads, self.dims.head_dim)
        q, k, v = (y.reshape(heads) for y in project(x, self.query, self.key, self.value))  # [B, L, H, K]
        return self.output(self.attend(q, k, v, mask, rng_keys).reshape(*x.shape[:2], self.dims.qkv_dim))

    def attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, rng_keys: jax.Array | None
    ) -> jax.Array:
        raise NotImplementedError(f"{type(self).__name__} has no attend(q, k, v, mask, rng_keys)")
