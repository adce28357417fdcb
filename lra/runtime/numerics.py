"""The settings of JAX on which the numbers of a run depend, the same in every process that trains or evaluates.

JAX also takes each of them from an environment variable, such as JAX_ENABLE_X64 for
`jax_enable_x64`. A run must not depend on the user's shell, and its checkpoint must be readable from
another shell. Variables that choose the hardware or instruct the compiler, such as JAX_PLATFORMS and
XLA_FLAGS, are left to the user and recorded (`lra.provenance.environment`).
"""

from __future__ import annotations

import enum
import sys
from typing import Any

import jax

from lra.errors import RunError

PINNED: dict[str, Any] = {
    "jax_allow_f16_reductions": True,
    "jax_debug_infs": False,
    "jax_debug_key_reuse": False,
    "jax_debug_nans": False,
    "jax_default_dtype_bits": "64",  # with jax_enable_x64 False, 64 means 32
    "jax_default_matmul_precision": None,  # the protocol's own is set where the model is called
    "jax_default_prng_impl": "threefry2x32",
    "jax_disable_jit": False,
    "jax_enable_custom_prng": False,
    "jax_enable_x64": False,
    "jax_explicit_x64_dtypes": "warn",
    "jax_high_dynamic_range_gumbel": False,
    "jax_legacy_prng_key": "allow",
    "jax_no_execution": False,
    "jax_no_tracing": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_random_seed_offset": 0,
    "jax_softmax_custom_jvp": False,
    "jax_threefry_partitionable": True,
}


def pin() -> None:
    """Set all of `PINNED` that this version of JAX has, and print a line if that overrides a setting of the user's.

    Raises:
      RunError: the caller is inside a context manager, such as `jax.enable_x64(True)`, that overrides one of them.
    """
    wanted = {name: value for name, value in PINNED.items() if hasattr(jax.config, name)}
    overridden = _differing(wanted)
    for name in overridden:
        jax.config.update(name, wanted[name])
    if kept := _differing(wanted):
        raise RunError(f"a context manager of JAX sets {', '.join(kept)}: runs must be started outside of it")
    if overridden:
        settings = ", ".join(f"{name}={wanted[name]}" for name in overridden)
        print(f"runs are computed with {settings}, whatever the environment says", file=sys.stderr, flush=True)


def _differing(wanted: dict[str, Any]) -> list[str]:
    return [name for name, value in wanted.items() if _plain(getattr(jax.config, name)) != value]


def _plain(value: Any) -> Any:
    """Return a setting as `jax.config.update` takes it; some are members of an Enum."""
    return value.name.lower() if isinstance(value, enum.Enum) else value
