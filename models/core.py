"""Sizes, interface and common base classes of mixers.

Array dimensions in docstrings, comments and einsum equations (lower case there):

    B  batch size         H  heads              M  features or landmarks
    L  sequence length    K  width of a head    C  classes
    D  model width        V  width of a value, K unless stated otherwise
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.ops import zero_padding

Init = Literal["xavier", "lecun", "torch"]
MAX_SIZE = 65_536  # of an option that is a number of positions, features or the like
MIN_EPS = 1e-30  # smaller numbers are zero or imprecise in float32


@dataclasses.dataclass(frozen=True)
class Dims:
    """Sizes and settings that a protocol passes to every mixer.

    max_len:        largest input length, CLS token included
    mlp_dim:        hidden width of the MLP, for a mixer that replaces the whole `Block`
    dropout:        dropout rate of attention weights
    hidden_dropout: dropout rate of activations inside a mixer; the encoder applies dropout to a mixer's output
    bias:           whether projections have biases
    init:           initialisation of linear layers, see `linear_layer`
    norm_eps:       epsilon of LayerNorm, for a mixer that replaces the whole `Block`
    dtype:          dtype of the computation; parameters are float32
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
    """Interface of a token mixer, the layer in place of attention.

    The constructor has the form `(dims, *, <options with defaults>, rngs)`. Outputs at real positions must not
    depend on padding or on other examples in the batch. Inputs at padded positions are arbitrary finite numbers, and
    the mixers of this project ignore NaN and infinity there too; outputs there must be finite.
    """

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        """Mix information between positions.

        Args:
          x:        [B, L, D], L <= dims.max_len
          mask:     [B, L] bool, True = real token
          rng_keys: [B], one PRNG key per example in training; None in evaluation

        Returns:
          [B, L, D]
        """
        ...


class Block(nnx.Module):
    """Base class of a mixer that replaces the whole encoder block instead of the mixer in `x + mixer(norm(x))`.

    It is called like a `Mixer` with the residual stream before any norm and returns the next residual stream. It
    contains its own norms, dropout, MLP and residual connections. The leaderboard marks such rows.
    """

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        raise NotImplementedError(f"{type(self).__name__} has no __call__(x, mask, *, rng_keys=None)")


def check_range(least: float, most: float, **options: float | None) -> None:
    """Check that options of a mixer lie in a range; None is a default and passes.

    Args:
      least, most: bounds; if they are ints, so must be the options

    Raises:
      ValueError: `option window=0: must be a whole number from 1 to 65,536`.
    """
    whole = isinstance(least, int)
    for name, value in options.items():
        if value is None or (isinstance(value, int if whole else int | float) and least <= value <= most):
            continue
        bounds = f"{least:,} to {most:,}" if whole else f"{least:g} to {most:g}"
        raise ValueError(f"option {name}={value}: must be a {'whole ' if whole else ''}number from {bounds}")


class Buffer(nnx.Variable):
    """An array that is drawn once and not trained, such as random features. Checkpoints contain it."""


def linear_layer(
    d_in: int, d_out: int, *, init: Init, bias: bool = True, dtype: Any = jnp.float32, rngs: nnx.Rngs
) -> nnx.Linear:
    """Return a linear layer with float32 parameters that computes in `dtype`.

    Args:
      init: xavier = Xavier-uniform weights; lecun = normal weights of variance 1 / d_in, truncated at two standard
        deviations (the default of flax); both with zero biases. torch = weights and biases uniform in
        +-1 / sqrt(d_in), the default of torch.nn.Linear
    """

    def uniform(key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
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
    """Return a linear layer with the initialisation and the dtype of `dims`."""
    return linear_layer(d_in, d_out, init=dims.init, bias=bias, dtype=dims.dtype, rngs=rngs)


def project(x: Array, *layers: nnx.Linear) -> list[Array]:
    """Apply several linear layers to the same x [B, L, D] in one matrix product, so that x is read once."""
    dtype = layers[0].dtype
    y = x.astype(dtype) @ jnp.concatenate([layer.kernel[...] for layer in layers], 1).astype(dtype)
    biases = [layer.bias[...] for layer in layers if layer.bias is not None]
    if biases:
        y = y + jnp.concatenate(biases).astype(dtype)[None, None]
    return jnp.split(y, list(itertools.accumulate(layer.out_features for layer in layers))[:-1], -1)


class QKVAttention(nnx.Module):
    """Base class of most mixers: query, key, value and output projections around the method `attend`."""

    def __init__(self, dims: Dims, *, rngs: nnx.Rngs) -> None:
        self.dims = dims
        self.query, self.key, self.value = (
            projection(dims, dims.d_model, dims.qkv_dim, bias=dims.bias, rngs=rngs) for _ in range(3)
        )
        self.output = projection(dims, dims.qkv_dim, dims.d_model, bias=dims.bias, rngs=rngs)

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        heads = (*x.shape[:2], self.dims.num_heads, self.dims.head_dim)
        x = zero_padding(x, mask)
        q, k, v = (y.reshape(heads) for y in project(x, self.query, self.key, self.value))  # [B, L, H, K]
        return self.output(self.attend(q, k, v, mask, rng_keys).reshape(*x.shape[:2], self.dims.qkv_dim))

    def attend(self, q: Array, k: Array, v: Array, mask: Array, rng_keys: Array | None) -> Array:
        """Compute attention; a subclass implements this and masks padded keys itself.

        Args:
          q, k, v:  [B, L, H, K]
          mask:     [B, L] bool, True = real token
          rng_keys: [B], one PRNG key per example in training; None in evaluation

        Returns:
          [B, L, H, K]
        """
        raise NotImplementedError(f"{type(self).__name__} has no attend(q, k, v, mask, rng_keys)")
