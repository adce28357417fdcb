"""Feature maps of linear attention: functions with values that are not negative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

FeatureMap = Literal["relu", "sigmoid", "silu", "elu"]


def normalised_silu(x: Array) -> Array:
    """Return (silu(x) + 1/2) / |silu(x) + 1/2| over the last axis, in at least float32."""
    y = jax.nn.silu(x.astype(jnp.promote_types(x.dtype, jnp.float32))) + 0.5
    return y / jnp.sqrt((y * y).sum(-1, keepdims=True) + 1e-12)


def elu_plus_one(x: Array) -> Array:
    """Return elu(x) + 1."""
    return jax.nn.elu(x) + 1


FEATURE_MAPS: dict[FeatureMap, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "silu": normalised_silu,
    "elu": elu_plus_one,
}
