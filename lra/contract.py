"""The contract of a mixer (`models.core.Mixer`) as checks that anyone's file can be put to.

A check takes a `Subject` and returns what it measured, or raises `Broken`, whose message says what is wrong and
where to look. `QUICK` runs in the tests for every mixer; `lra.check` adds what takes longer, and prints.

Inputs that must not matter are compared in float32, to 1e-5 of the largest value. A mixer that hashes or
sorts may there decide a tie otherwise: what float32 does not show must hold in float64 to 1e-9.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models import mixers
from models.core import Dims
from models.encoder import Classifier, EncoderConfig

DIMS = Dims(d_model=12, num_heads=2, qkv_dim=16, max_len=150, mlp_dim=24, dropout=0.3, hidden_dropout=0.2, bias=False)
KEY_BIAS = re.compile(r"\['key\w*'\]\['bias'\]")
TOLERANCES = {"float32": 1e-5, "float64": 1e-9}

# Most of a check is compilation, and a program of a few milliseconds gains nothing by being optimised.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

PyTree = Any


class Broken(Exception):
    """The contract does not hold; the message says what, by how much, and where to look."""


@dataclasses.dataclass(frozen=True, eq=False)  # the same only as itself
class Subject:
    """A mixer with its options, at some sizes.

    lengths: of the examples of a batch; they are padded to `length`, or to `dims.max_len`
    """

    mixer: mixers.Resolved
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dims: Dims = DIMS
    lengths: tuple[int, ...] = (97, 41, 1)
    length: int = 110

    def make(self, seed: int = 0, **dims: Any) -> tuple[nnx.GraphDef, PyTree, PyTree]:
        """The mixer as graph, parameters and what is not trained."""
        sizes = dataclasses.replace(self.dims, **dims)
        made = mixers.build(self.mixer.cls, sizes, self.options, _rngs(seed))
        return split(made)

    def inputs(self, length: int | None = None, dtype: Any = jnp.float32) -> tuple[jax.Array, jax.Array]:
        """x [B, L, D] and mask [B, L]. The same numbers at the same places for every L."""
        shape = (len(self.lengths), self.dims.max_len, self.dims.d_model)
        x = jax.random.normal(jax.random.key(3), shape, jnp.float32)[:, : length or self.length].astype(dtype)
        return x, jnp.arange(x.shape[1])[None, :] < jnp.array(self.lengths)[:, None]

    @property
    def keys(self) -> jax.Array:
        return jax.random.split(jax.random.key(11), len(self.lengths))


def split(made: Any) -> tuple[nnx.GraphDef, PyTree, PyTree]:
    """A module as graph, parameters, and what is not trained."""
    graph, *states = nnx.split(made, nnx.Param, ...)
    return graph, states[0], states[1]


def _rngs(seed: int = 0) -> nnx.Rngs:
    """A generator that compiles quickly: most of a check is compilation."""
    return nnx.Rngs(params=jax.random.key(seed, impl="unsafe_rbg"))


def _widened(params: PyTree, dtype: jnp.dtype) -> PyTree:
    """In float64 parameters are too, or their gradients would be rounded to float32."""
    return jax.tree.map(lambda p: p.astype(dtype), params) if dtype == jnp.float64 else params


class Probe:
    """One mixer in one dtype, with its compiled functions."""

    def __init__(self, subject: Subject, dtype: str, seed: int = 0, **dims: Any) -> None:
        self.subject, self.dtype = subject, jnp.dtype(dtype)
        self.graph, params, self.rest = subject.make(seed, dtype=self.dtype, **dims)
        self.params = _widened(params, self.dtype)
        self.results = compiled(self.raw)
        self.gradients = compiled(self._gradients)

    def inputs(self, length: int | None = None) -> tuple[jax.Array, jax.Array]:
        return self.subject.inputs(length, self.dtype)

    def apply(self, params: PyTree, x: jax.Array, mask: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        return nnx.merge(self.graph, params, self.rest)(x, mask, keys=keys)

    def raw(self, x: jax.Array, mask: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        return self.apply(self.params, x, mask, keys)

    def outputs(self, x: jax.Array, mask: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """Results at real positions, zero elsewhere."""
        return jnp.where(mask[..., None], self.results(x, mask, keys), 0)

    def _gradients(self, x: jax.Array, mask: jax.Array, keys: jax.Array) -> tuple[jax.Array, PyTree, jax.Array]:
        """Results, and the gradients of a weighted sum of their squares over the real positions: parameters, x."""
        weights = jnp.linspace(0.5, 1.5, x.shape[-1], dtype=x.dtype)[None, None]

        def loss(params: PyTree, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            y = jnp.where(mask[..., None], self.apply(params, x, mask, keys), 0)
            return (y**2 * weights).sum(), y

        (_, y), (of_params, of_x) = jax.value_and_grad(loss, (0, 1), has_aux=True)(self.params, x)
        return y, of_params, of_x

    @functools.cached_property
    def base(self) -> dict[str, Any]:
        return self.everything(*self.inputs(), self.subject.keys)

    def everything(self, x: jax.Array, mask: jax.Array, keys: jax.Array) -> dict[str, Any]:
        y, of_params, of_x = self.gradients(x, mask, keys)
        return {
            "results in evaluation": self.outputs(x, mask),
            "results in training": y,
            "gradients of x": of_x,
            "gradients of parameters": of_params,
        }


def distance(got: PyTree, want: PyTree) -> float:
    """Largest difference in units of its array's largest value; for small arrays, of 1/1000 of all arrays' largest."""
    wanted = [jnp.abs(leaf).max() for leaf in jax.tree.leaves(want)]
    least = 1e-3 * max(map(float, wanted), default=0.0)
    worst = 0.0
    for a, b, scale in zip(jax.tree.leaves(got), jax.tree.leaves(want), wanted, strict=True):
        if a.size:
            error = float(jnp.abs(a.astype(scale.dtype) - b).max())
            worst = max(worst, 0.0 if error == 0 else error / max(float(scale), least, 1e-30))
            worst = float("inf") if error != error else worst  # NaN
    return worst


Comparison = Callable[[Probe], Iterator[tuple[str, PyTree, PyTree]]]


def unmoved(subject: Subject, comparison: Comparison, advice: str) -> str:
    """The largest difference among what should be equal: in float32 or, failing that, in float64."""
    seen: dict[str, float] = {}
    for dtype, tolerance in TOLERANCES.items():
        with _wide() if dtype == "float64" else contextlib.nullcontext():
            moved = {what: distance(got, want) for what, got, want in comparison(_probe(subject, dtype))}
        worst = max(moved.values())
        if worst <= tolerance:
            told = f"equal to {worst:.0e}" if worst else "exactly equal"
            return told + "".join(f" in {dtype}; to {e:.0e} in {d}: ties or rounding" for d, e in seen.items())
        seen[dtype] = worst
    what, by = next((what, by) for what, by in moved.items() if not by <= tolerance)
    raise Broken(f"{what} move by {by:.3g} times their largest value, in float64 too. {advice}")


@functools.lru_cache(maxsize=2)
def _probe(subject: Subject, dtype: str) -> Probe:
    return Probe(subject, dtype)


def _wide() -> contextlib.AbstractContextManager[Any]:
    home: Any = jax if hasattr(jax, "enable_x64") else jax.experimental
    return home.enable_x64(True)


# ---- the checks


def shapes(subject: Subject) -> str:
    probe = _probe(subject, "float32")
    longest = subject.dims.max_len
    for length in (longest, subject.length, 37, 1):
        x, mask = subject.inputs(length)
        y = probe.results(x, mask)
        if y.shape != x.shape or y.dtype != x.dtype:
            raise Broken(f"x {x.dtype}{list(x.shape)} gives {y.dtype}{list(y.shape)}; the result must be like x")
        if not jnp.isfinite(y).all():
            raise Broken(f"not finite at L = {length}")
    return f"L = 1, 37, {subject.length}, {longest} = max_len"


def padding_content(subject: Subject) -> str:
    def comparison(probe: Probe) -> Iterator[tuple[str, PyTree, PyTree]]:
        x, mask = probe.inputs()
        wild = 1e3 * jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
        other = probe.everything(jnp.where(mask[..., None], x, wild), mask, subject.keys)
        for what, want in probe.base.items():
            yield what, other[what], want
        x_gradient = probe.base["gradients of x"]
        yield "gradients at padding", jnp.where(mask[..., None], 0, x_gradient) + x_gradient, x_gradient

    return unmoved(subject, comparison, "Mask x, k, v or the weights before whatever mixes over L.")


def padding_amount(subject: Subject) -> str:
    def comparison(probe: Probe) -> Iterator[tuple[str, PyTree, PyTree]]:
        wide = probe.everything(*probe.inputs(subject.dims.max_len), subject.keys)
        for what, want in probe.base.items():
            got = wide[what]
            yield what, got[:, : subject.length] if isinstance(got, jax.Array) else got, want

    return unmoved(
        subject, comparison, "Take sizes from dims.max_len or from mask.sum(1), never from x.shape[1]; draw by place."
    )


def rest_of_the_batch(subject: Subject) -> str:
    def comparison(probe: Probe) -> Iterator[tuple[str, PyTree, PyTree]]:
        x, mask = probe.inputs()
        for i in range(len(subject.lengths)):
            alone = probe.everything(x[i : i + 1], mask[i : i + 1], subject.keys[i : i + 1])
            for what, want in probe.base.items():
                if isinstance(want, jax.Array):
                    yield f"example {i} alone: {what}", alone[what][0], want[i]

    return unmoved(subject, comparison, "Reduce over L, heads or features, never over the batch axis.")


def empty_example(subject: Subject) -> str:
    probe = _probe(subject, "float32")
    x, mask = probe.inputs()
    mask = mask.at[1].set(False)
    everything = {"results at padding": probe.results(x, mask), **probe.everything(x, mask, subject.keys)}
    for what, values in everything.items():
        if not all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(values)):
            raise Broken(f"{what} are not finite where an example is all padding: guard what divides by its length")
    return "finite"


def gradients(subject: Subject) -> str:
    """Every parameter learns, with biases too. The bias of keys adds one number to all logits of a query."""
    probe = Probe(subject, "float32", bias=True)
    _, of_params, _ = probe.gradients(*probe.inputs(), subject.keys)
    sizes = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(of_params)}
    largest = max((float(jnp.abs(leaf).max()) for leaf in sizes.values()), default=0.0)
    idle = []
    for place, leaf in sizes.items():
        if leaf.dtype != jnp.float32 or not jnp.isfinite(leaf).all():
            raise Broken(f"the gradient of {place} is not " + ("finite" if leaf.dtype == jnp.float32 else "float32"))
        if float(jnp.abs(leaf).max()) <= 1e-7 * largest:
            idle.append(place)
    if others := [place for place in idle if not KEY_BIAS.search(place)]:
        raise Broken(f"no gradient reaches {', '.join(others)}: use it, or make it a Buffer")
    return f"{len(sizes)} arrays, all finite and not zero" + (" but the key's bias, as in any softmax" if idle else "")


def jit_equals_eager(subject: Subject) -> str:
    def comparison(probe: Probe) -> Iterator[tuple[str, PyTree, PyTree]]:
        x, mask = probe.inputs()
        y = jnp.where(mask[..., None], probe.raw(x, mask, subject.keys), 0)
        yield "results without jit", y, probe.outputs(x, mask, subject.keys)

    return unmoved(subject, comparison, "Is anything decided by a value outside of jax, or by a global state?")


def keys(subject: Subject) -> str:
    probe = _probe(subject, "float32")
    x, mask = probe.inputs()
    for what, given in (("evaluation (keys=None)", None), ("training with the same keys", subject.keys)):
        if (probe.outputs(x, mask, given) != probe.outputs(x, mask, given)).any():
            raise Broken(f"two calls in {what} differ: draw from `keys` and from nothing else")
    moved = distance(probe.base["results in training"], probe.base["results in evaluation"])
    random = moved > TOLERANCES["float32"]
    return f"the same keys, the same result; training is {'random' if random else 'not random'}"


def micro_batches(subject: Subject) -> str:
    """The gradient of a whole encoder with dropout: in micro-batches, and as one padded batch with remat."""

    def comparison(probe: Probe) -> Iterator[tuple[str, PyTree, PyTree]]:
        lengths = jnp.array(subject.lengths)
        real = jnp.arange(subject.dims.max_len)[None, :] < lengths[:, None]
        ids = jnp.where(real, jax.random.randint(jax.random.key(5), real.shape, 1, 17), 0)
        params, plain, remat = _encoder(subject, probe.dtype)
        parts = [
            plain(params, ids[part][:, : int(lengths[part].max())], subject.keys[part])
            for part in jnp.split(jnp.argsort(-lengths), [1])
        ]
        want = remat(params, ids, subject.keys)
        yield "gradients of micro-batches, against one rematerialised batch,", jax.tree.map(jnp.add, *parts), want

    return unmoved(subject, comparison, "If padding changes nothing: draw by the example's key and the place alone.")


def _encoder(subject: Subject, dtype: Any) -> tuple[PyTree, Callable[..., PyTree], Callable[..., PyTree]]:
    """Parameters of one block around the mixer, and its compiled gradients (params, ids, keys): plain, with remat."""
    d = subject.dims
    config = EncoderConfig(
        vocab_size=17, num_classes=3, max_len=d.max_len, num_layers=1, d_model=d.d_model, num_heads=d.num_heads,
        qkv_dim=d.qkv_dim, mlp_dim=d.mlp_dim, dropout=d.hidden_dropout, attention_dropout=d.dropout, embed_std=1.0,
        dtype=dtype,
    )  # fmt: skip

    def make_mixer(dims: Dims, layer: int, rngs: nnx.Rngs) -> Any:
        return mixers.build(subject.mixer.cls, dims, subject.options, rngs)

    def model(config: EncoderConfig = config) -> Classifier:
        return Classifier(config, make_mixer, rngs=_rngs())

    params, rest = compiled(lambda: nnx.split(model(), nnx.Param, ...)[1:])()

    def gradient(config: EncoderConfig) -> Callable[..., PyTree]:
        graph = nnx.split(nnx.eval_shape(lambda: model(config)), nnx.Param, ...)[0]

        def loss(params: PyTree, ids: jax.Array, keys: jax.Array) -> jax.Array:
            return (nnx.merge(graph, params, rest)(ids, keys=keys) ** 2).sum()

        return compiled(jax.grad(loss))

    return _widened(params, config.dtype), gradient(config), gradient(dataclasses.replace(config, remat=True))


def bfloat16(subject: Subject) -> str:
    probe, half = _probe(subject, "float32"), Probe(subject, "bfloat16")
    x, mask = half.inputs()  # the same numbers for both: rounding them may move a position to another bucket
    got, want = half.outputs(x, mask), probe.outputs(x.astype(jnp.float32), mask)
    if got.dtype != jnp.bfloat16:
        raise Broken(f"with dims.dtype bfloat16 the result is {got.dtype}")
    error = jnp.sqrt(((got.astype(jnp.float32) - want) ** 2).sum() / (want**2).sum())
    if not error <= 0.05:
        raise Broken(f"bfloat16 is {error:.1%} away from float32 (rms): compute softmax, sums and norms in float32")
    return f"{error:.1%} from float32 (rms)"


def nnx_modes(subject: Subject) -> str:
    """Split and merged by flax's graph mode and by its tree mode, which is to become the default."""
    if not hasattr(nnx, "set_graph_mode"):
        return "this flax has only one"
    probe = _probe(subject, "float32")
    x, mask = probe.inputs()
    with nnx.set_graph_mode(False):
        graph, params, rest = subject.make()
        y = compiled(lambda params, x, mask: nnx.merge(graph, params, rest)(x, mask))(params, x, mask)
    moved = distance(jnp.where(mask[..., None], y, 0), probe.base["results in evaluation"])
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
    "jit": jit_equals_eager,
    "keys": keys,
    "micro-batches, remat": micro_batches,
    "bfloat16": bfloat16,
    "NNX modes": nnx_modes,
}
