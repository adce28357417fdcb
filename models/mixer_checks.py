"""What can be known about a mixer without computing anything: whether it can be constructed, called and trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from models import mixers
from models.core import Dims
from models.mixer_options import title_of


class UnsuitableMixerError(ValueError):
    """A mixer that cannot be constructed or trained. The message begins with its name and says what to change."""


LENGTH = 61  # of the input of the traced call, at most: no width is equal to it
_verified: set[tuple[type, Dims, str]] = set()  # class, sizes, options


def verify(cls: type, dims: Dims, given: Mapping[str, Any]) -> None:
    """Construct a mixer abstractly, and trace a call in training and one in evaluation.

    Raises:
      UnsuitableMixerError: an option is refused; the mixer has a random generator, or other state that a call
        changes, which the trainer does not keep; or the shape of its output is not that of its input.
      Exception: any other that the mixer's code raises
    """
    known = (cls, dims, repr(sorted(given.items())))
    if known not in _verified:
        x = jax.ShapeDtypeStruct((2, min(dims.max_len, LENGTH), dims.d_model), dims.dtype)
        mask = jax.ShapeDtypeStruct(x.shape[:2], bool)
        rng_keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))

        def both(x: jax.Array, mask: jax.Array, rng_keys: jax.Array) -> None:
            _construct_and_call(cls, dims, given, x, mask, rng_keys)

        jax.eval_shape(both, x, mask, rng_keys)
        _verified.add(known)


def _construct_and_call(cls: type, dims: Dims, given: Mapping[str, Any], x: Any, mask: Any, rng_keys: Any) -> None:
    title = title_of(cls)
    # A generator with a default stream: parts of flax that draw random numbers can be constructed and are named below.
    try:
        mixer: Any = mixers.build(cls, dims, given, nnx.Rngs(0))
    except ValueError as error:
        raise UnsuitableMixerError(str(error)) from error
    variables = _variables(mixer)
    if generators := _listed([name for name, (kind, _) in variables.items() if issubclass(kind, nnx.RngState)]):
        raise UnsuitableMixerError(
            f"{title} keeps a random generator of flax ({generators}), by which its outputs would depend on padding "
            "and on other examples: use models.dropout.dropout(x, rate, rng_keys) instead of nnx.Dropout, "
            "no dropout_rate in nnx.MultiHeadAttention, and no self.rngs"
        )
    for keys in (rng_keys, None):
        y = mixer(x, mask, rng_keys=keys)
        if getattr(y, "shape", None) != x.shape:
            got = list(y.shape) if hasattr(y, "shape") else type(y).__name__
            raise UnsuitableMixerError(f"{title} returns {got} for x {list(x.shape)}; the shape must be that of x")
    after = _variables(mixer)
    if changed := _listed([n for n, (_, value) in variables.items() if n not in after or after[n][1] is not value]):
        raise UnsuitableMixerError(
            f"{title} changes its state in a call ({changed}), which the trainer does not keep: remove it; instead of "
            "nnx.BatchNorm, by which examples depend on each other, use nnx.LayerNorm or nnx.RMSNorm"
        )


def _variables(mixer: Any) -> dict[str, tuple[type, Any]]:
    """Return type and array of each variable of a module by its path; none if it is not a module of flax."""
    if not isinstance(mixer, nnx.Module):
        return {}
    return {
        ".".join(map(str, path)): (
            type(variable),
            variable.get_value() if hasattr(variable, "get_value") else variable.value,
        )
        for path, variable in nnx.to_flat_state(nnx.state(mixer))
    }


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
