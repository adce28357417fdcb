"""Encoder of all protocols: embedding, pre-norm blocks around a mixer, pooling, classifier head.

    x = dropout(token + position)
    x = x + dropout(mixer(norm(x)));    x = x + dropout(mlp(norm(x)))        num_layers times
    logits = head(pool(norm(x)))

This is the structure of the encoders of google-research/long-range-arena and pkuzengqi/Skyformer. The details in which
they differ are protocol fields: initialisation, LayerNorm epsilon and the form of GELU. Dropout uses one key per
example (`models.dropout`), so bucketing and rematerialisation do not change it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import typing
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from models.core import Block, Dims, Init, Mixer, linear_layer, projection
from models.dropout import dropout, fold_in_keys
from models.ops import gelu

MakeMixer = Callable[[Dims, int, nnx.Rngs], Mixer]  # (dims, layer, rngs)


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Sizes and settings of the encoder. The protocol sets them; they are the same for every mixer.

    max_len:      largest number of input tokens, CLS not included
    dropout:      dropout rate of activations
    positions:    learned = a trained table; sinusoidal = the fixed table of `sinusoids`
    pooling:      cls = a learned vector before the tokens; mean = over the real tokens; first = the first token
    head:         hidden widths of the classifier head, each followed by a ReLU
    pair:         how two documents are combined: concat = [a, b], nli = [a, b, a * b, a - b]; None = one document
    bias:         whether attention projections have biases
    embed_std:    initial standard deviation of token embeddings
    position_std: initial standard deviation of learned positions
    init:         initialisation of linear layers: xavier = Xavier-uniform; lra = the same, but LeCun-normal (the
                  default of flax) in the head; torch = the default of torch, weights and biases
    norm_eps:     epsilon of LayerNorm
    gelu:         erf = exact; tanh = approximation
    dtype:        dtype of the computation; parameters, LayerNorm statistics, pooling and head are float32
    symbols:      outputs of a linear layer on every position (`Classifier.symbols`), for auxiliary losses; 0 = none
    remat:        recompute each block in the backward pass: stores the activations of one block, takes a third longer
    """

    vocab_size: int
    num_classes: int
    max_len: int
    num_layers: int
    d_model: int
    num_heads: int
    qkv_dim: int
    mlp_dim: int
    dropout: float = 0.1
    attention_dropout: float = 0.1
    positions: Literal["learned", "sinusoidal"] = "learned"
    pooling: Literal["cls", "mean", "first"] = "mean"
    head: tuple[int, ...] = ()
    pair: Literal["concat", "nli", None] = None
    bias: bool = False
    embed_std: float = 0.02
    position_std: float = 0.02
    init: Literal["xavier", "lra", "torch"] = "xavier"
    norm_eps: float = 1e-6
    gelu: Literal["erf", "tanh"] = "erf"
    dtype: Any = jnp.float32
    symbols: int = 0
    remat: bool = False

    def __post_init__(self) -> None:
        for name, annotation in typing.get_type_hints(EncoderConfig).items():
            choices = typing.get_args(annotation)
            if typing.get_origin(annotation) is Literal and getattr(self, name) not in choices:
                raise ValueError(f"{name} {getattr(self, name)!r} is not one of {', '.join(map(str, choices))}")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) <= 0.99:
                raise ValueError(f"{name} {getattr(self, name)} is not between 0 and 0.99")

    @property
    def accum_dtype(self) -> Any:
        """Dtype of pooling and head: float32, or float64 if `dtype` is float64."""
        return jnp.promote_types(self.dtype, jnp.float32)

    @property
    def dims(self) -> Dims:
        """Sizes for the mixer; their max_len includes the CLS vector."""
        return Dims(
            d_model=self.d_model,
            num_heads=self.num_heads,
            qkv_dim=self.qkv_dim,
            max_len=self.max_len + (self.pooling == "cls"),
            mlp_dim=self.mlp_dim,
            dropout=self.attention_dropout,
            hidden_dropout=self.dropout,
            bias=self.bias,
            init=_BLOCK_INIT[self.init],
            norm_eps=self.norm_eps,
            dtype=self.dtype,
        )


_BLOCK_INIT: dict[str, Init] = {"xavier": "xavier", "lra": "xavier", "torch": "torch"}
_HEAD_INIT: dict[str, Init] = {"xavier": "xavier", "lra": "lecun", "torch": "torch"}


class MixerBlock(Block):
    """A pre-norm block: x + mixer(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: EncoderConfig, mixer: Mixer, *, rngs: nnx.Rngs) -> None:
        self.rate = config.dropout
        self.activation = partial(jax.nn.gelu, approximate=True) if config.gelu == "tanh" else gelu
        self.mixer_norm = _norm(config, rngs)
        self.mixer = mixer
        self.mlp_norm = _norm(config, rngs)
        self.expand = projection(config.dims, config.d_model, config.mlp_dim, bias=True, rngs=rngs)
        self.contract = projection(config.dims, config.mlp_dim, config.d_model, bias=True, rngs=rngs)

    def __call__(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        """Apply the block to x [B, L, D]."""
        y = self.mixer(self.mixer_norm(x), mask, rng_keys=fold_in_keys(rng_keys, 0))
        x = x + dropout(y, self.rate, fold_in_keys(rng_keys, 1))
        y = dropout(self.activation(self.expand(self.mlp_norm(x))), self.rate, fold_in_keys(rng_keys, 2))
        return x + dropout(self.contract(y), self.rate, fold_in_keys(rng_keys, 3))


class Classifier(nnx.Module):
    """The encoder with its head. `make_mixer(dims, layer, rngs)` constructs the mixer of each block."""

    def __init__(self, config: EncoderConfig, make_mixer: MakeMixer, *, rngs: nnx.Rngs) -> None:
        dims, width = config.dims, config.d_model
        normal = nnx.initializers.normal
        self.config = config
        self.tokens = nnx.Param(normal(config.embed_std)(rngs.params(), (config.vocab_size, width)))
        self.positions = (
            nnx.Param(normal(config.position_std)(rngs.params(), (dims.max_len, width)))
            if config.positions == "learned"
            else None
        )
        self.cls = nnx.Param(jnp.zeros((width,))) if config.pooling == "cls" else None
        mixers = (make_mixer(dims, layer, rngs) for layer in range(config.num_layers))
        self.blocks = nnx.List(
            mixer if isinstance(mixer, Block) else MixerBlock(config, mixer, rngs=rngs) for mixer in mixers
        )
        self.norm = _norm(config, rngs)
        widths = (width * {None: 1, "concat": 2, "nli": 4}[config.pair], *config.head, config.num_classes)
        init = _HEAD_INIT[config.init]
        self.head = nnx.List(
            linear_layer(a, b, init=init, dtype=config.accum_dtype, rngs=rngs) for a, b in itertools.pairwise(widths)
        )
        self.symbol_head = (
            linear_layer(width, config.symbols, init=init, dtype=config.accum_dtype, rngs=rngs)
            if config.symbols
            else None
        )

    def __call__(self, ids: Array, mask: Array | None = None, *, rng_keys: Array | None = None) -> Array:
        """Compute the logits of a batch.

        Args:
          ids:      int [B, L], or [B, 2, L] for pairs; L <= max_len, 0 is padding, which follows all real tokens
          mask:     bool, same shape as ids, True = real token; None: ids != 0
          rng_keys: [B], one PRNG key per example in training; None in evaluation

        Returns:
          float32 [B, C]; float64 if the dtype is

        Raises:
          ValueError: ids have another shape or are longer than max_len.
        """
        return self.classify(*self.states(ids, mask, rng_keys=rng_keys))

    def states(self, ids: Array, mask: Array | None = None, *, rng_keys: Array | None = None) -> tuple[Array, Array]:
        """Return what is pooled, float32 [N, L', D], and its mask, bool [N, L'], for the arguments of a call.

        N is B, or 2 B for pairs, whose two documents follow each other; L' is L, or L + 1 with pooling `cls`.
        """
        pair = self.config.pair is not None
        if ids.ndim != 2 + pair or (pair and ids.shape[1] != 2) or ids.shape[-1] > self.config.max_len:
            expected = "[B, 2, L]" if pair else "[B, L]"
            raise ValueError(f"ids {ids.shape} are not {expected} with L <= max_len = {self.config.max_len}")
        mask = ids != 0 if mask is None else mask
        if not pair:
            return self.encode(ids, mask, rng_keys=rng_keys)
        b, _, length = ids.shape
        if rng_keys is not None:
            rng_keys = jax.vmap(jax.random.split)(rng_keys).reshape(2 * b)  # independent dropout for the two documents
        return self.encode(ids.reshape(2 * b, length), mask.reshape(2 * b, length), rng_keys=rng_keys)

    def classify(self, states: Array, mask: Array) -> Array:
        """Compute the logits [B, C] from the results of `states`."""
        documents = self._pool(states, mask)
        if self.config.pair is None:
            return self._logits(documents)
        first, second = documents.reshape(-1, 2, documents.shape[-1]).swapaxes(0, 1)
        features = [first, second] + ([first * second, first - second] if self.config.pair == "nli" else [])
        return self._logits(jnp.concatenate(features, -1))

    def symbols(self, states: Array) -> Array:
        """Return a logit for each symbol at each position, [N, L, symbols], from the first result of `states`."""
        assert self.symbol_head is not None
        return self.symbol_head(states if self.cls is None else states[:, 1:])

    def encode(self, ids: Array, mask: Array, *, rng_keys: Array | None = None) -> tuple[Array, Array]:
        """Encode documents [N, L] with mask [N, L] and rng_keys [N] or None; return the results of `states`."""
        x, mask = self.embed(ids, mask)
        return self.transform(x, mask, rng_keys=rng_keys), mask

    def transform(self, x: Array, mask: Array, *, rng_keys: Array | None = None) -> Array:
        """Apply the blocks and the last norm to the result of `embed`; return float32 [N, L', D]."""
        config = self.config
        x = dropout(x, config.dropout, fold_in_keys(rng_keys, 0))
        for layer, block in enumerate(self.blocks):
            apply_block = jax.checkpoint(_apply(block)) if config.remat else _apply(block)
            x = apply_block(x, mask, fold_in_keys(rng_keys, 1 + layer))
        return self.norm(x).astype(config.accum_dtype)

    def embed(self, ids: Array, mask: Array) -> tuple[Array, Array]:
        """Return the input of the first block, [B, L, D], and its mask; `cls` pooling prepends one vector."""
        config, dims = self.config, self.config.dims
        x = self.tokens[...][ids]
        if self.cls is not None:
            x = jnp.concatenate([jnp.broadcast_to(self.cls[...], (len(x), 1, x.shape[-1])), x], 1)
            mask = jnp.concatenate([jnp.ones((len(x), 1), bool), mask], 1)
        table = sinusoids(dims.max_len, config.d_model) if self.positions is None else self.positions[...]
        return (x + table[None, : x.shape[1]]).astype(config.dtype), mask

    def _pool(self, x: Array, mask: Array) -> Array:
        """Pool x [B, L, D] to [B, D]; an example without real tokens gives zeros."""
        if self.config.pooling == "mean":
            total = jnp.where(mask[..., None], x, 0).sum(1)
            return total / jnp.maximum(mask.sum(1, keepdims=True), 1)
        return jnp.where(mask[:, :1], x[:, 0], 0)

    def _logits(self, x: Array) -> Array:
        for hidden in self.head[:-1]:
            x = jax.nn.relu(hidden(x))
        return self.head[-1](x)


def sinusoids(length: int, width: int) -> Array:
    """Return the position table [L, D] of Vaswani et al. (2017): sine in even columns, cosine in odd ones."""
    rate = jnp.exp(jnp.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle = jnp.arange(length)[:, None] * rate[None, :]
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1).reshape(length, -1)[:, :width]


def _apply(block: Block) -> Callable[[Array, Array, Array | None], Array]:
    return lambda x, mask, rng_keys: block(x, mask, rng_keys=rng_keys)


def _norm(config: EncoderConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(config.d_model, epsilon=config.norm_eps, dtype=config.dtype, rngs=rngs)
