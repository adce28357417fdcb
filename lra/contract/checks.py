"""The contract of a mixer (`models.core.Mixer`) as checks that any mixer can be tested with.

A check takes a `MixerUnderTest` and returns what it measured, or raises `ContractViolation`. `QUICK` runs in the tests
for every mixer; `lra.contract.report` adds slower checks and prints the results.

Outputs that must be invariant are compared in float32, to 1e-5 of the largest value. Rounding can change the order of
a mixer that hashes or sorts; what differs in float32 must then be equal in float64, to 1e-9. If the mixer converts
to float32 there too, as the softmax of flax's attention does, the tolerance stays 1e-5.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lra.contract.harness import (
    TOLERANCES,
    ContractViolation,
    MixerUnderTest,
    Pairs,
    Probe,
    check_invariance,
    distance,
    probe_of,
    zero_padding,
)
from models.mixer_checks import UnsuitableMixerError, verify

# Options under which a mixer runs other code than by default; the tests check each of them as well.
FORMS: dict[str, tuple[Mapping[str, Any], ...]] = {
    "bigbird": ({"num_random": 0}, {"random_span": 1024, "drop_weights": False}),
    "conv": ({"kernel": 5},),
    "cosformer": (
        {"m": "own"},
        {"feature_map": "sigmoid", "decay": "scalar"},
        {"feature_map": "silu", "decay": "vector", "m": "own", "rope": True},
        {"feature_map": "elu", "rope": True},
    ),
    "fnet": ({"length": "padded", "norm": "backward"},),
    "gated_deltanet": ({"decay": False}, {"bidirectional": False, "output_gate": False}),
    "gla": ({"bidirectional": False}, {"output_gate": False, "gate_rank": 3}),
    "hgrn2": ({"lower_bound": 0.9},),
    "linformer": ({"rank": 16, "sharing": "key-value", "init": "xavier"}, {"sharing": "none"}),
    "lion": ({"decay": "none", "features": "elu"}, {"decay": "fixed"}),
    "local": ({"layout": "lra_strided"},),
    "longconv": ({"bidirectional": False},),
    "longformer": ({"num_global": 0, "window_counts_query": True}, {"window": 20}),
    "lru": ({"bidirectional": False},),
    "mamba2": ({"state": 5, "kernel": 3, "head_width": 8},),
    "mega": ({"attention": "laplace", "chunk": 32}, {"norm": "post", "ema": "code", "taps": 20}),
    "nystromformer": ({"taps": None}, {"segments": "padded", "taps": 35, "drop_weights": False}),
    "performer": ({"kernel": "relu", "features": 0}, {"features": 2, "redraw": True}),
    "polynomial": ({"degree": 2, "learned_scale": True},),
    "reformer": ({"official": True}, {"rounds": 3, "chunk": 16}, {"rounds": 2, "chunk": 16, "across_buckets": True}),
    "retnet": ({"expand": 1},),
    "s4d": ({"init": "lin", "bidirectional": False, "systems": 1},),
    "s5": ({"bidirectional": False, "state": 8, "blocks": 1},),
    "sinkhorn": ({"form": "lra", "window": 50},),
    "skyformer": ({"kind": "kernelized"},),
    "softmax": ({"positions": "rope", "decay": "alibi"},),
    "sparse": (
        {"kind": "strided"},
        {"stride": 50, "columns": 10, "causal": True},
        {"stride": 50, "columns": 10, "causal": True, "global_first": True},
    ),
    "synthesizer": (
        {"dot_product": "sum"},
        {"mode": "dense"},
        {"mode": "factorized_random"},
        {"mode": "factorized_dense", "dot_product": "weighted"},
    ),
}
KEY_BIAS = re.compile(r"\['key\w*'\]\['bias'\]")

Check = Callable[[MixerUnderTest], str]


def invariance(advice: str) -> Callable[[Callable[[Probe], Pairs]], Check]:
    """Turn a comparison into a check. advice: the last sentence of its error message."""
    return lambda comparison: lambda subject: check_invariance(subject, comparison, advice)


def shapes(subject: MixerUnderTest) -> str:
    """Check that the mixer has no state, and shape, dtype and finite values of the outputs."""
    try:
        verify(subject.mixer.cls, subject.dims, subject.options)
    except UnsuitableMixerError as error:
        raise ContractViolation(str(error)) from error
    probe = probe_of(subject, "float32")
    _ = probe.background  # starts here
    longest = subject.dims.max_len
    for length in (longest, subject.length, 1):
        x, mask = subject.inputs(length)
        y = probe.forward(x, mask)
        if y.shape != x.shape or y.dtype != x.dtype:
            raise ContractViolation(
                f"x {x.dtype}{list(x.shape)} gives {y.dtype}{list(y.shape)}; shape and dtype must be those of x"
            )
        if not np.isfinite(np.asarray(y)).all():
            raise ContractViolation(f"outputs are not finite at L = {length}")
    return f"L = 1, {subject.length}, {longest} = max_len"


@invariance("Mask x, k, v or the weights before any operation that mixes positions.")
def padding_content(probe: Probe) -> Pairs:
    """Compare with large values at padded positions, whose gradient must be zero."""
    x, mask = probe.inputs()
    wild = 1e3 * np.cos(np.arange(x.size, dtype=x.dtype)).reshape(x.shape)
    actual = probe.outputs_and_grads(np.where(mask[..., None], x, wild), mask, probe.subject.rng_keys)
    for name, expected in probe.reference.items():
        yield name, actual[name], expected
    x_gradient = probe.reference["gradients of x"]
    yield "gradients at padding", np.where(mask[..., None], 0, x_gradient) + x_gradient, x_gradient


@invariance(
    "Mask k, v or the weights; take sizes from dims.max_len or from mask.sum(1), never from x.shape[1]; draw random "
    "numbers by position."
)
def padding_amount(probe: Probe) -> Pairs:
    """Compare with padding to `max_len`."""
    subject = probe.subject
    padded = probe.outputs_and_grads(*probe.inputs(subject.dims.max_len), subject.rng_keys)
    for name, expected in probe.reference.items():
        actual = padded[name]
        yield name, actual[:, : subject.length] if isinstance(actual, np.ndarray) else actual, expected


@invariance("Reduce over positions, heads or features, never over the batch axis.")
def batch_independence(probe: Probe) -> Pairs:
    """Compare each example with itself among longer, shorter and a thousand times larger ones."""
    x, mask = probe.inputs()
    rng_keys, count = probe.subject.rng_keys, len(probe.subject.lengths)
    for i in range(count):
        same = np.arange(count) == i
        actual = probe.outputs_and_grads(
            np.where(same[:, None, None], x, 1e3 * x[::-1, ::-1]),
            np.where(same[:, None], mask, np.roll(mask, 1, 0)),
            jnp.where(same, rng_keys, rng_keys[::-1]),
        )
        for name, expected in probe.reference.items():
            if isinstance(expected, np.ndarray):
                yield f"example {i} among others: {name}", actual[name][i], expected[i]


def all_padding_example(subject: MixerUnderTest) -> str:
    """Check that everything is finite if an example has no tokens."""
    probe = probe_of(subject, "float32")
    x, mask = probe.inputs()
    mask[1] = False
    arrays = {"outputs at padding": probe.forward(x, mask), **probe.outputs_and_grads(x, mask, subject.rng_keys)}
    for name, values in arrays.items():
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(values)):
            raise ContractViolation(
                f"{name} are not finite if an example is all padding: guard divisions by its length"
            )
    return "finite"


def gradients(subject: MixerUnderTest) -> str:
    """Check that every parameter has a gradient. The bias of keys has none: it shifts all logits of a query equally."""
    params_gradient = probe_of(subject, "float32").reference["gradients of parameters"]
    arrays = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params_gradient)}
    largest = max((float(np.abs(leaf).max()) for leaf in arrays.values()), default=0.0)
    zero = []
    for name, leaf in arrays.items():
        if leaf.dtype != jnp.float32 or not np.isfinite(leaf).all():
            problem = "finite" if leaf.dtype == jnp.float32 else "float32"
            raise ContractViolation(f"the gradient of {name} is not {problem}")
        if float(np.abs(leaf).max()) <= 1e-7 * largest:
            zero.append(name)
    if unused := [name for name in zero if not KEY_BIAS.search(name)]:
        raise ContractViolation(f"no gradient reaches {', '.join(unused)}: use it, or make it a Buffer")
    return f"{len(arrays)} arrays, finite and not zero" + (", except the key's bias, as in any softmax" if zero else "")


@invariance("Does a value outside of jax, or a global state, affect the computation?")
def jit_equals_eager(probe: Probe) -> Pairs:
    """Compare with outputs without jit."""
    yield "outputs without jit", probe.background[0].result(), probe.reference["outputs in training"]


def rng_determinism(subject: MixerUnderTest) -> str:
    """Check that the outputs are a function of the inputs and the PRNG keys."""
    probe = probe_of(subject, "float32")
    again = probe.outputs_and_grads(*probe.inputs(), subject.rng_keys)
    for name, call in (("in evaluation", "evaluation (rng_keys=None)"), ("in training", "training with the same keys")):
        if (again[f"outputs {name}"] != probe.reference[f"outputs {name}"]).any():
            raise ContractViolation(f"two calls in {call} differ: draw random numbers from `rng_keys` only")
    difference = distance(probe.reference["outputs in training"], probe.reference["outputs in evaluation"])
    return f"same keys, same outputs; training is {'' if difference > TOLERANCES['float32'] else 'not '}random"


@invariance("If padding passes: draw random numbers by the example's key and the position only.")
def micro_batches(probe: Probe) -> Pairs:
    """Compare with each example alone, padded to the longest, with a rematerialised forward pass."""
    rng_keys = probe.subject.rng_keys
    x, mask = probe.inputs(max(probe.subject.lengths))
    rematerialised = probe.background[1].result()
    alone = [rematerialised(x[i : i + 1], mask[i : i + 1], rng_keys[i : i + 1]) for i in range(len(x))]
    for i, (y, _, x_gradient) in enumerate(alone):
        for name, actual in (("outputs in training", y), ("gradients of x", x_gradient)):
            yield f"example {i} alone: {name}", actual[0], probe.reference[name][i, : x.shape[1]]
    summed = jax.tree.map(lambda *parts: sum(parts), *(params_gradient for _, params_gradient, _ in alone))
    yield "gradients of parameters, in micro-batches of one,", summed, probe.reference["gradients of parameters"]


@invariance("If all checks above pass: does the mixer use a global value, or state outside of its arguments?")
def encoder(probe: Probe) -> Pairs:
    """Compare micro-batches of an encoder with dropout with one rematerialised batch."""
    plain, remat, lengths = probe.encoder(remat=False), probe.encoder(remat=True), probe.subject.lengths
    parts = [plain(*probe.encoder_inputs(i, i + 1, max(lengths))) for i in range(len(lengths))]
    summed = jax.tree.map(lambda *gradients: sum(gradients), *jax.device_get(parts))
    yield "gradients of micro-batches, against one rematerialised batch,", summed, remat(*probe.encoder_inputs())


def bfloat16(subject: MixerUnderTest) -> str:
    """Check that outputs in bfloat16 are bfloat16 and close to those in float32, for the same rounded inputs."""
    probe, half = probe_of(subject, "float32"), Probe(subject, "bfloat16")
    x, mask = half.inputs()
    actual, expected = half.outputs(x, mask), probe.outputs(x.astype(np.float32), mask)
    if actual.dtype != jnp.bfloat16:
        raise ContractViolation(f"with dims.dtype bfloat16 the outputs are {actual.dtype}")
    error = np.sqrt(((actual.astype(np.float32) - expected) ** 2).sum() / (expected**2).sum())
    if not error <= 0.05:
        raise ContractViolation(
            f"bfloat16 differs by {error:.1%} from float32 (rms): compute softmax, sums and norms in float32"
        )
    return f"{error:.1%} from float32 (rms)"


def nnx_modes(subject: MixerUnderTest) -> str:
    """Check that the module can be split and merged by flax's tree mode, which will be the default."""
    if not hasattr(nnx, "set_graph_mode"):
        return "this version of flax has one mode"
    probe = probe_of(subject, "float32")
    x, mask = probe.inputs()
    with nnx.set_graph_mode(False):
        graph, buffers = subject.graph(), probe.buffers
        y = jax.jit(lambda params, x, mask: nnx.merge(graph, params, buffers)(x, mask))(probe.params, x, mask)
    difference = distance(zero_padding(np.asarray(y), mask), probe.reference["outputs in evaluation"])
    if difference > TOLERANCES["float32"]:
        raise ContractViolation(f"in flax's tree mode outputs differ by {difference:.1e} of their largest value")
    return "graph and tree"


QUICK: dict[str, Check] = {
    "shape and dtype": shapes,
    "content of padding": padding_content,
    "amount of padding": padding_amount,
    "batch independence": batch_independence,
    "all-padding example": all_padding_example,
    "gradients": gradients,
    "rng determinism": rng_determinism,
    "bfloat16": bfloat16,
    "NNX modes": nnx_modes,
    "jit": jit_equals_eager,
    "micro-batches, remat": micro_batches,
}
