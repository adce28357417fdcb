"""The contract of a mixer (`models.core.Mixer`) as checks that anyone's file can be put to.

A check takes a `Subject` and returns what it measured, or raises `Broken`, whose message says what is wrong and
where to look. `QUICK` runs in the tests for every mixer; `lra.contract.report` adds what takes longer, and prints.

Inputs that must not matter are compared in float32, to 1e-5 of the largest value. A mixer that hashes or
sorts may there decide a tie otherwise: what float32 does not show must hold in float64 to 1e-9.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lra.contract.harness import TOLERANCES, Broken, Probe, PyTree, Subject, distance, probe_of, real, unmoved

# Options under which a mixer runs other code than by default. The tests put each of them to the contract as well.
FORMS: dict[str, tuple[Mapping[str, Any], ...]] = {
    "bigbird": ({"num_random": 0}, {"random_span": 1024, "drop_weights": False}),
    "cosformer": ({"m": "own"},),
    "fnet": ({"length": "padded", "norm": "backward"},),
    "linformer": ({"rank": 16, "sharing": "key-value", "init": "xavier"}, {"sharing": "none"}),
    "local": ({"layout": "lra_strided"},),
    "longformer": ({"num_global": 0, "window_counts_query": True}, {"window": 20}),
    "lru": ({"bidirectional": False},),
    "mega": ({"attention": "laplace", "chunk": 32}, {"norm": "post", "ema": "code", "taps": 20}),
    "nystromformer": ({"taps": None}, {"segments": "padded", "taps": 35, "drop_weights": False}),
    "performer": ({"kernel": "relu", "features": 0}, {"features": 2, "redraw": True}),
    "polynomial": ({"degree": 2, "learned_scale": True},),
    "reformer": ({"official": True}, {"rounds": 3, "chunk": 16}, {"rounds": 2, "chunk": 16, "across_buckets": True}),
    "s4d": ({"init": "lin", "bidirectional": False, "systems": 1},),
    "sinkhorn": ({"form": "lra", "window": 50},),
    "skyformer": ({"kind": "kernelized"},),
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


def shapes(subject: Subject) -> str:
    probe = probe_of(subject, "float32")
    _ = probe.aside  # begins now
    longest = subject.dims.max_len
    for length in (longest, subject.length, 1):
        x, mask = subject.inputs(length)
        y = probe.results(x, mask)
        if y.shape != x.shape or y.dtype != x.dtype:
            raise Broken(f"x {x.dtype}{list(x.shape)} gives {y.dtype}{list(y.shape)}; the result must be like x")
        if not np.isfinite(np.asarray(y)).all():
            raise Broken(f"not finite at L = {length}")
    return f"L = 1, {subject.length}, {longest} = max_len"


def padding_content(subject: Subject) -> str:
    def comparison(probe: Probe) -> Iterator[tuple[str, PyTree, PyTree]]:
        x, mask = probe.inputs()
        wild = 1e3 * np.cos(np.arange(x.size, dtype=x.dtype)).reshape(x.shape)
        other = probe.everything(np.where(mask[..., None], x, wild), mask, subject.rng_keys)
        for what, want in probe.base.items():
            yield what, other[what], want
        x_gradient = probe.base["gradients of x"]
        yield "gradients at padding", np.where(mask[..., None], 0, x_gradient) + x_gradient, x_gradient

    return unmoved(subject, comparison, "Mask x, k, v or the weights before whatever mixes over L.")


def padding_amount(subject: Subject) -> str:
    def comparison(probe: Probe) -> Iterator[tuple[str, PyTree, PyTree]]:
        wide = probe.everything(*probe.inputs(subject.dims.max_len), subject.rng_keys)
        for what, want in probe.base.items():
            got = wide[what]
            yield what, got[:, : subject.length] if isinstance(got, np.ndarray) else got, want

    return unmoved(
        subject, comparison, "Take sizes from dims.max_len or from mask.sum(1), never from x.shape[1]; draw by place."
    )


def rest_of_the_batch(subject: Subject) -> str:
    """Each example among others, longer and shorter ones, a thousand times larger; `micro_batches` has it alone."""

    def comparison(probe: Probe) -> Iterator[tuple[str, PyTree, PyTree]]:
        x, mask = probe.inputs()
        for i in range(len(subject.lengths)):
            here = np.arange(len(subject.lengths)) == i
            others = probe.everything(
                np.where(here[:, None, None], x, 1e3 * x[::-1, ::-1]),
                np.where(here[:, None], mask, np.roll(mask, 1, 0)),
                jnp.where(here, subject.rng_keys, subject.rng_keys[::-1]),
            )
            for what, want in probe.base.items():
                if isinstance(want, np.ndarray):
                    yield f"example {i} among others: {what}", others[what][i], want[i]

    return unmoved(subject, comparison, "Reduce over L, heads or features, never over the batch axis.")


def empty_example(subject: Subject) -> str:
    probe = probe_of(subject, "float32")
    x, mask = probe.inputs()
    mask[1] = False
    everything = {
        "results at padding": np.asarray(probe.results(x, mask)),
        **probe.everything(x, mask, subject.rng_keys),
    }
    for what, values in everything.items():
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(values)):
            raise Broken(f"{what} are not finite where an example is all padding: guard what divides by its length")
    return "finite"


def gradients(subject: Subject) -> str:
    """Every parameter learns. The bias of keys adds one number to all logits of a query."""
    of_params = probe_of(subject, "float32").base["gradients of parameters"]
    sizes = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(of_params)}
    largest = max((float(np.abs(leaf).max()) for leaf in sizes.values()), default=0.0)
    idle = []
    for place, leaf in sizes.items():
        if leaf.dtype != jnp.float32 or not np.isfinite(leaf).all():
            raise Broken(f"the gradient of {place} is not " + ("finite" if leaf.dtype == jnp.float32 else "float32"))
        if float(np.abs(leaf).max()) <= 1e-7 * largest:
            idle.append(place)
    if others := [place for place in idle if not KEY_BIAS.search(place)]:
        raise Broken(f"no gradient reaches {', '.join(others)}: use it, or make it a Buffer")
    return f"{len(sizes)} arrays, all finite and not zero" + (" but the key's bias, as in any softmax" if idle else "")


def jit_equals_eager(subject: Subject) -> str:
    def comparison(probe: Probe) -> Iterator[tuple[str, PyTree, PyTree]]:
        yield "results without jit", probe.aside[0].result(), probe.base["results in training"]

    return unmoved(subject, comparison, "Is anything decided by a value outside of jax, or by a global state?")


def keys(subject: Subject) -> str:
    probe = probe_of(subject, "float32")
    x, mask = probe.inputs()
    again = probe.everything(x, mask, subject.rng_keys)
    for what, call in (("in evaluation", "evaluation (rng_keys=None)"), ("in training", "training with the same keys")):
        if (again[f"results {what}"] != probe.base[f"results {what}"]).any():
            raise Broken(f"two calls in {call} differ: draw from `rng_keys` and from nothing else")
    moved = distance(probe.base["results in training"], probe.base["results in evaluation"])
    random = moved > TOLERANCES["float32"]
    return f"the same keys, the same result; training is {'random' if random else 'not random'}"


def micro_batches(subject: Subject) -> str:
    """Each example alone, padded to no more than the longest, its forward pass made again for the gradient."""

    def comparison(probe: Probe) -> Iterator[tuple[str, PyTree, PyTree]]:
        x, mask = probe.inputs(max(subject.lengths))
        gradients = probe.aside[1].result()
        alone = [gradients(x[i : i + 1], mask[i : i + 1], subject.rng_keys[i : i + 1]) for i in range(len(x))]
        for i, (y, _, of_x) in enumerate(alone):
            for what, got in (("results in training", y), ("gradients of x", of_x)):
                yield f"example {i} alone: {what}", got[0], probe.base[what][i, : x.shape[1]]
        summed = jax.tree.map(lambda *parts: sum(parts), *(of_params for _, of_params, _ in alone))
        yield "gradients of parameters, in micro-batches of one,", summed, probe.base["gradients of parameters"]

    return unmoved(subject, comparison, "If padding changes nothing: draw by the example's key and the place alone.")


def encoder(subject: Subject) -> str:
    """The same of a whole encoder with dropout, as the trainer has it."""

    def comparison(probe: Probe) -> Iterator[tuple[str, PyTree, PyTree]]:
        plain, remat = probe.encoder(remat=False), probe.encoder(remat=True)
        parts = [plain(*probe.encoder_inputs(i, i + 1, max(subject.lengths))) for i in range(len(subject.lengths))]
        summed = jax.tree.map(lambda *gradients: sum(gradients), *jax.device_get(parts))
        yield "gradients of micro-batches, against one rematerialised batch,", summed, remat(*probe.encoder_inputs())

    return unmoved(subject, comparison, "The mixer alone passes: does it keep anything from one call for the next?")


def bfloat16(subject: Subject) -> str:
    probe, half = probe_of(subject, "float32"), Probe(subject, "bfloat16")
    x, mask = half.inputs()  # the same numbers for both: rounding them may move a position to another bucket
    got, want = half.outputs(x, mask), probe.outputs(x.astype(np.float32), mask)
    if got.dtype != jnp.bfloat16:
        raise Broken(f"with dims.dtype bfloat16 the result is {got.dtype}")
    error = np.sqrt(((got.astype(np.float32) - want) ** 2).sum() / (want**2).sum())
    if not error <= 0.05:
        raise Broken(f"bfloat16 is {error:.1%} away from float32 (rms): compute softmax, sums and norms in float32")
    return f"{error:.1%} from float32 (rms)"


def nnx_modes(subject: Subject) -> str:
    """Split and merged by flax's graph mode and by its tree mode, which is to become the default."""
    if not hasattr(nnx, "set_graph_mode"):
        return "this flax has only one"
    probe = probe_of(subject, "float32")
    x, mask = probe.inputs()
    with nnx.set_graph_mode(False):
        graph, rest = subject.graph(), probe.rest
        y = jax.jit(lambda params, x, mask: nnx.merge(graph, params, rest)(x, mask))(probe.params, x, mask)
    moved = distance(real(np.asarray(y), mask), probe.base["results in evaluation"])
    if moved > TOLERANCES["float32"]:
        raise Broken(f"in flax's tree mode results move by {moved:.1e} of their largest value")
    return "graph and tree"


QUICK: dict[str, Callable[[Subject], str]] = {
    "shape and dtype": shapes,
    "content of padding": padding_content,
    "amount of padding": padding_amount,
    "rest of the batch": rest_of_the_batch,
    "an example of padding": empty_example,
    "gradients": gradients,
    "keys": keys,
    "bfloat16": bfloat16,
    "NNX modes": nnx_modes,
    "jit": jit_equals_eager,
    "micro-batches, remat": micro_batches,
}
