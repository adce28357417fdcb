"""The one encoder of every protocol: embedding, pre-norm blocks around a mixer, pooling, a head.

    x = dropout(token + position)
    x = x + dropout(mixer(norm(x)));    x = x + dropout(mlp(norm(x)))        num_layers times
    logits = head(pool(norm(x)))

It follows the encoders of google-research/long-range-arena and pkuzengqi/Skyformer, which agree in this. They differ
in how parameters start, in LayerNorm's epsilon and in the form of GELU: these are fields of the protocol.
Dropout takes one key per example (`models.dropout`), so neither buckets nor remat change it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from models.core import Block, Dims, Init, Mixer, linear_layer, projection
from models.dropout import dropout, fold_in_keys
from models.ops import gelu

MakeMixer = Callable[[Dims, int, nnx.Rngs], Mixer]  # (dims, layer, rngs)


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the encoder. They belong to the protocol and are the same for every mixer.

    max_len:   tokens of an input, CLS not counted
    pooling:   cls = a vector of its own before the tokens; mean = over the real tokens; first = the first token
    head:      hidden widths of the head, each followed by a ReLU
    pair:      how two documents meet: concat = [a, b], nli = [a, b, a * b, a - b]; None = one document
    bias:      of the attention's projections
    embed_std: standard deviation of token embeddings at the start
    position_std: standard deviation of learned positions at the start
    init:      of linear layers: xavier = xavier-uniform; lra = the same, and flax's default (lecun-normal) in the head;
               torch = torch's default, weights and biases
    norm_eps:  epsilon of LayerNorm
    gelu:      erf = exact, tanh = its approximation
    dtype:     of the computation; parameters, norms' statistics, pooling and head are float32
    remat:     recompute each block in the backward pass: memory of one block, a third more time
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
    pair: Literal["concat", "nli"] | None = None
    bias: bool = False
    embed_std: float = 0.02
    position_std: float = 0.02
    init: Literal["xavier", "lra", "torch"] = "xavier"
    norm_eps: float = 1e-6
    gelu: Literal["erf", "tanh"] = "erf"
    dtype: Any = jnp.float32
    remat: bool = False

    def __post_init__(self) -> None:
        for name, valid in _CHOICES.items():
            if getattr(self, name) not in valid:
                raise ValueError(f"{name} {getattr(self, name)!r} is not one of {', '.join(map(str, valid))}")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) <= 0.99:
                raise ValueError(f"{name} {getattr(self, name)} is not between 0 and 0.99")

    @property
    def accum_dtype(self) -> Any:
        """The dtype of pooling and head: float32, or float64 where that is asked for."""
        return jnp.promote_types(self.dtype, jnp.float32)

    @property
    def dims(self) -> Dims:
        """What a mixer is told. Its max_len counts the CLS vector."""
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
_CHOICES = {
    "positions": ("learned", "sinusoidal"),
    "pooling": ("cls", "mean", "first"),
    "pair": (None, "concat", "nli"),
    "init": tuple(_BLOCK_INIT),
    "gelu": ("erf", "tanh"),
}


class MixerBlock(Block):
    """x + mixer(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: EncoderConfig, mixer: Mixer, *, rngs: nnx.Rngs) -> None:
        self.rate = config.dropout
        self.activation = partial(jax.nn.gelu, approximate=True) if config.gelu == "tanh" else gelu
        self.mixer_norm = _norm(config, rngs)
        self.mixer = mixer
        self.mlp_norm = _norm(config, rngs)
        self.expand = projection(config.dims, config.d_model, config.mlp_dim, bias=True, rngs=rngs)
        self.contract = projection(config.dims, config.mlp_dim, config.d_model, bias=True, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array, *, rng_keys: jax.Array | None = None) -> jax.Array:
        """x [B, L, D], mask [B, L], rng_keys [B] or None -> [B, L, D]."""
        y = self.mixer(self.mixer_norm(x), mask, rng_keys=fold_in_keys(rng_keys, 0))
        x = x + dropout(y, self.rate, fold_in_keys(rng_keys, 1))
        y = dropout(self.activation(self.expand(self.mlp_norm(x))), self.rate, fold_in_keys(rng_keys, 2))
        return x + dropout(self.contract(y), self.rate, fold_in_keys(rng_keys, 3))


class Classifier(nnx.Module):
    """From token ids to logits. `make_mixer(dims, layer, rngs)` makes the mixer of each block."""

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

    def __call__(
        self, ids: jax.Array, mask: jax.Array | None = None, *, rng_keys: jax.Array | None = None
    ) -> jax.Array:
        """Logits of a batch.

        Args:
          ids:  int [B, L], or [B, 2, L] for pairs; L <= max_len, 0 is padding, real tokens are a prefix
          mask: bool like ids, True = real token; None: ids != 0
          rng_keys: [B], one PRNG key per example while training; None in evaluation

        Returns:
          float32 [B, C]

        Raises:
          ValueError: ids have another shape, or are longer than max_len.
        """
        pair = self.config.pair is not None
        if ids.ndim != 2 + pair or (pair and ids.shape[1] != 2) or ids.shape[-1] > self.config.max_len:
            form = "[B, 2, L]" if pair else "[B, L]"
            raise ValueError(f"ids {ids.shape} are not {form} with L <= max_len = {self.config.max_len}")
        mask = ids != 0 if mask is None else mask
        if not pair:
            return self._logits(self.encode(ids, mask, rng_keys=rng_keys))
        b, _, length = ids.shape
        if rng_keys is not None:
            rng_keys = jax.vmap(jax.random.split)(rng_keys).reshape(2 * b)  # the two documents are dropped apart
        both = self.encode(ids.reshape(2 * b, length), mask.reshape(2 * b, length), rng_keys=rng_keys)
        first, second = both.reshape(b, 2, -1).swapaxes(0, 1)
        parts = [first, second] + ([first * second, first - second] if self.config.pair == "nli" else [])
        return self._logits(jnp.concatenate(parts, -1))

    def encode(self, ids: jax.Array, mask: jax.Array, *, rng_keys: jax.Array | None = None) -> jax.Array:
        """ids [B, L], mask [B, L], rng_keys [B] or None -> the pooled state of each document, float32 [B, D]."""
        config = self.config
        x, mask = self.embed(ids, mask)
        x = dropout(x, config.dropout, fold_in_keys(rng_keys, 0))
        for layer, block in enumerate(self.blocks):
            step = jax.checkpoint(_apply(block)) if config.remat else _apply(block)
            x = step(x, mask, fold_in_keys(rng_keys, 1 + layer))
        return self._pool(self.norm(x).astype(config.accum_dtype), mask)

    def embed(self, ids: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What the first block is given, [B, L, D], and its mask; with `cls` pooling both are one longer."""
        config, dims = self.config, self.config.dims
        x = self.tokens[...][ids]
        if self.cls is not None:
            x = jnp.concatenate([jnp.broadcast_to(self.cls[...], (len(x), 1, x.shape[-1])), x], 1)
            mask = jnp.concatenate([jnp.ones((len(x), 1), bool), mask], 1)
        table = sinusoids(dims.max_len, config.d_model) if self.positions is None else self.positions[...]
        return (x + table[None, : x.shape[1]]).astype(config.dtype), mask

    def _pool(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """[B, L, D] -> [B, D]; zeros for an example without tokens."""
        if self.config.pooling == "mean":
            total = jnp.where(mask[..., None], x, 0).sum(1)
            return total / jnp.maximum(mask.sum(1, keepdims=True), 1)
        return jnp.where(mask[:, :1], x[:, 0], 0)

    def _logits(self, x: jax.Array) -> jax.Array:
        for hidden in self.head[:-1]:
            x = jax.nn.relu(hidden(x))
        return self.head[-1](x)


def sinusoids(length: int, width: int) -> jax.Array:
    """Position table [L, D] of Vaswani et al. (2017): sine on even places, cosine on odd ones."""
    rate = jnp.exp(jnp.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle = jnp.arange(length)[:, None] * rate[None, :]
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1).reshape(length, -1)[:, :width]


def _apply(block: Block) -> Callable[[jax.Array, jax.Array, jax.Array | None], jax.Array]:
    return lambda x, mask, rng_keys: block(x, mask, rng_keys=rng_keys)


def _norm(config: EncoderConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(config.d_model, epsilon=config.norm_eps, dtype=config.dtype, rngs=rngs)
