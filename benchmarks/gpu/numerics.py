"""Part 2: outputs and gradients of every mixer on the accelerator, compared with the CPU backend of the same process.

Both start from the same parameters and PRNG keys. At precision `highest` float32 must agree, else float64 must:
`lra.contract.harness.check_invariance` has the tolerances. At the default precision the difference is only recorded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax

from benchmarks.gpu.lines import Settings
from benchmarks.gpu.worker import Case
from lra.api import find_mixer
from lra.contract.harness import (
    DIMS,
    ContractViolation,
    MixerUnderTest,
    Probe,
    check_invariance,
    distance,
    probe_of,
    unoptimised,
)
from lra.runtime.devices import use_compilation_cache

SIZES = dataclasses.replace(DIMS, d_model=64, qkv_dim=64, mlp_dim=128, max_len=1_024)
LENGTHS, LENGTH = (1_000, 517, 1), 1_000
ADVICE = "The accelerator and the CPU compute different functions."


def cases(settings: Settings) -> dict[str, Case]:
    """Return a case for each mixer."""
    use_compilation_cache()
    return {mixer: partial(_compare, mixer, settings.tiny) for mixer in settings.mixers}


def _compare(mixer: str, tiny: bool) -> dict[str, Any]:
    found, _ = find_mixer(mixer)
    subject = MixerUnderTest(found) if tiny else MixerUnderTest(found, dims=SIZES, lengths=LENGTHS, length=LENGTH)
    fields: dict[str, Any] = {"mixer": mixer, "device": jax.devices()[0].device_kind}
    references: dict[str, dict[str, Any]] = {}

    def reference(dtype: str) -> dict[str, Any]:
        """Return what the CPU computes."""
        if dtype not in references:
            with jax.default_device(jax.devices("cpu")[0]), unoptimised():
                references[dtype] = Probe(subject, dtype).reference
        return references[dtype]

    def comparison(probe: Probe) -> Iterator[tuple[str, Any, Any]]:
        expected = reference(probe.dtype.name)
        for name, arrays in probe.reference.items():
            fields.setdefault(f"highest_{probe.dtype.name}", {})[name] = distance(arrays, expected[name])
            yield name, arrays, expected[name]

    with jax.default_matmul_precision("highest"):
        try:
            fields["verdict"] = check_invariance(subject, comparison, ADVICE)
        except ContractViolation as violation:
            fields |= {"status": "differs", "error": str(violation)}
    probe_of.cache_clear()  # a compiled probe has a precision
    with jax.default_matmul_precision("default"):
        actual = Probe(subject, "float32").reference
    fields["default_float32"] = {name: distance(actual[name], reference("float32")[name]) for name in actual}
    return fields
