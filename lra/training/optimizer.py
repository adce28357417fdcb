"""Schedules and the optimiser of a protocol, on optax."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from lra.config import RunConfig, Train
from lra.errors import ConfigError
from lra.protocols import SelfPretraining


def learning_rate(train: Train) -> optax.Schedule:
    """Rate at step 0, 1, ...

    `onecycle`: linear from 1/25 of the peak, and down to 1/250,000 of it (torch's OneCycleLR, anneal "linear").
    `rsqrt`: learning_rate * min(1, step / warmup) / sqrt(max(step, warmup)), as in the original suite; its
    Retrieval never leaves the warm-up.
    `cosine`: linear warm-up, then half a cosine of the length of the whole run, as in the original suite.
    """
    peak, warmup, steps = train.learning_rate, train.warmup, train.steps
    if train.schedule == "onecycle":
        knots, rates = _cycle(train), jnp.array([peak / 25, peak, peak / 250_000])
        return lambda step: jnp.interp(step, knots, rates)
    if train.schedule == "rsqrt":
        return lambda step: peak * jnp.minimum(1.0, step / warmup) / jnp.sqrt(jnp.maximum(step, warmup))
    return optax.join_schedules(
        [optax.linear_schedule(0.0, peak, warmup), optax.cosine_decay_schedule(peak, steps)], [warmup]
    )


def compressed(train: Train, steps: int) -> Train:
    """Return the optimiser and schedule for a part of a run, in which it passes through the whole schedule.

    The warm-up is shortened like the steps. The peak of `rsqrt` does not change.
    """
    warmup = max(min(train.warmup, 1), round(train.warmup * steps / train.steps))
    rate = train.learning_rate
    if train.schedule == "rsqrt":
        rate *= (warmup / train.warmup) ** 0.5
    return dataclasses.replace(train, steps=steps, warmup=warmup, learning_rate=rate)


def train_of_phase(config: RunConfig, *, pretraining: bool) -> Train:
    """Return optimiser and schedule of a run, or with the recipe `spt` of one of its two phases.

    Raises:
      ConfigError: there are too few steps for two phases
    """
    if not isinstance(config.recipe, SelfPretraining):
        return config.train
    first = config.recipe.first_steps(config.train.steps)
    if first == config.train.steps:
        raise ConfigError("train.steps is 1, but the recipe spt has two phases; it must be at least 2")
    return compressed(config.train, first if pretraining else config.train.steps - first)


def peak_rate(train: Train) -> float:
    """Return the highest learning rate of a run.

    `rsqrt` has its peak at the end of the warm-up, which a short run never reaches.
    """
    if train.schedule != "rsqrt":
        return train.learning_rate
    return train.learning_rate / train.warmup**0.5 * min(1, train.steps / train.warmup)


def optimizer(train: Train, params: Any) -> optax.GradientTransformation:
    """Build AdamW: decoupled weight decay times the rate, after clipping by value if the protocol asks for it.

    A mixer can give a parameter a learning rate of its own, by metadata of its `nnx.Param`. The schedule is the
    protocol's for all parameters; their rates differ by a constant factor.

        nnx.Param(value, lr=1e-3)        an absolute peak rate, or the protocol's peak if that is lower
        nnx.Param(value, lr_scale=0.1)   a fraction of the protocol's rate
        nnx.Param(value, decay=False)    no weight decay

    Args:
      train: the protocol's optimiser and schedule
      params: parameters as `nnx.Variable`s with their metadata
    """
    b1: float | optax.Schedule = train.b1
    if train.schedule == "onecycle":  # torch's OneCycleLR cycles beta_1 against the rate
        knots, momenta = _cycle(train), jnp.array([train.b1, train.b1 - 0.1, train.b1])
        b1 = lambda step: jnp.interp(step, knots, momenta)  # noqa: E731
    adamw = optax.inject_hyperparams(optax.adamw, static_args="mask")(
        learning_rate=learning_rate(train), b1=b1, b2=train.b2, eps=train.eps, weight_decay=train.weight_decay,
        mask=_by_metadata(params, lambda metadata: metadata.get("decay", True), True),
    )  # fmt: skip
    parts = [adamw] if train.clip_value is None else [optax.clip(train.clip_value), adamw]
    scales = _by_metadata(params, partial(_rate_scale, peak_rate(train)), 1.0)
    if scales is not None:
        parts.append(optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, scales)))
    return parts[0] if len(parts) == 1 else optax.chain(*parts)


def _rate_scale(peak: float, metadata: Mapping[str, Any]) -> float:
    """Return the rate of a parameter in units of the protocol's, whose highest is `peak`."""
    own = metadata.get("lr", math.inf)
    return metadata.get("lr_scale", 1.0) * (own / peak if own < peak else 1.0)


def _by_metadata(params: Any, value_of: Callable[[Mapping[str, Any]], Any], default: Any) -> Any:
    """Return `value_of(metadata)` of each parameter, as a tree like `params`; None if all have the default."""
    values = jax.tree.map(
        lambda p: p.replace(value_of(p.get_metadata())), params, is_leaf=lambda p: isinstance(p, nnx.Variable)
    )
    return None if all(value == default for value in jax.tree.leaves(values)) else values


def _cycle(train: Train) -> jnp.ndarray:
    """First step, peak and last step. A run shorter than twice its warm-up peaks in the middle and still comes down."""
    top = max(min(train.warmup, train.steps // 2) - 1, 1)
    return jnp.array([0, top, max(train.steps - 1, top + 1)], jnp.float32)
