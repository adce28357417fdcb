"""What the other parts run on: versions, devices, memory, code; and one small computation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.gpu.lines import Settings
from benchmarks.gpu.worker import Case
from lra.provenance.environment import code_state, environment
from lra.runtime.memory import available_bytes


def cases(settings: Settings) -> dict[str, Case]:
    """Return the two cases."""
    return {"environment": _environment, "first computation": _first_computation}


def _environment() -> dict[str, Any]:
    capabilities = {getattr(device, "compute_capability", None) for device in jax.devices()} - {None}
    return {
        "environment": environment(),
        "compute_capability": ", ".join(sorted(map(str, capabilities))) or None,
        "memory_bytes": available_bytes(),
        "code": code_state(),
    }


def _first_computation() -> dict[str, Any]:
    total = jax.jit(lambda x: (x @ x).sum())(jnp.ones((256, 256)))
    if float(total) != 256**3:
        raise ArithmeticError(f"the sum of a product of two matrices of ones is {float(total)}, not {256**3}")
    return {}
