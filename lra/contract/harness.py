"""A mixer under examination: small inputs, compiled functions of one dtype, and what compares their results."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from models import mixers
from models.core import Dims
from models.encoder import Classifier, EncoderConfig

DIMS = Dims(d_model=12, num_heads=2, qkv_dim=16, max_len=150, mlp_dim=24, dropout=0.3, hidden_dropout=0.2)
TOLERANCES = {"float32": 1e-5, "float64": 1e-9}

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
    length: int = 111

    def graph(self, dtype: Any = jnp.float32) -> nnx.GraphDef:
        """The mixer without its arrays."""
        return split(nnx.eval_shape(lambda: self.made(dtype)))[0]

    def made(self, dtype: Any, seed: int = 0) -> Any:
        dims = dataclasses.replace(self.dims, dtype=jnp.dtype(dtype))
        return mixers.build(self.mixer.cls, dims, self.options, _rngs(seed))

    def inputs(self, length: int | None = None, dtype: Any = jnp.float32) -> tuple[np.ndarray, np.ndarray]:
        """x [B, L, D] and mask [B, L]. The same numbers at the same places for every L."""
        shape = (len(self.lengths), self.dims.max_len, self.dims.d_model)
        x = np.random.default_rng(3).standard_normal(shape, np.float32)[:, : length or self.length].astype(dtype)
        return x, np.arange(x.shape[1])[None, :] < np.array(self.lengths)[:, None]

    @property
    def rng_keys(self) -> jax.Array:
        return jax.random.split(jax.random.key(11), len(self.lengths))


def split(made: Any) -> tuple[nnx.GraphDef, PyTree, PyTree]:
    """A module as graph, parameters, and what is not trained."""
    graph, *states = nnx.split(made, nnx.Param, ...)
    return graph, states[0], states[1]


@functools.lru_cache(maxsize=2)
def _arrays(subject: Subject, seed: int) -> tuple[PyTree, PyTree]:
    """Parameters, and what is not trained: float32 whatever is computed in."""
    return jax.jit(lambda: split(subject.made(jnp.float32, seed))[1:])()


def _rngs(seed: int = 0) -> nnx.Rngs:
    """A generator that compiles quickly: most of a check is compilation."""
    return nnx.Rngs(params=jax.random.key(seed, impl="unsafe_rbg"))


def _widened(params: PyTree, dtype: jnp.dtype) -> PyTree:
    """In float64 parameters are too, or their gradients would be rounded to float32."""
    return jax.tree.map(lambda p: p.astype(dtype), params) if dtype == jnp.float64 else params


class Probe:
    """One mixer in one dtype, with its compiled functions."""

    def __init__(self, subject: Subject, dtype: str, seed: int = 0) -> None:
        self.subject, self.dtype = subject, jnp.dtype(dtype)
        self.graph = subject.graph(self.dtype)
        params, self.rest = _arrays(subject, seed)
        self.params = _widened(params, self.dtype)
        self.results = jax.jit(self.raw)
        self.gradients = jax.jit(partial(self._gradients, self.apply))

    def inputs(self, length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        return self.subject.inputs(length, self.dtype)

    def apply(self, params: PyTree, x: jax.Array, mask: jax.Array, rng_keys: jax.Array | None = None) -> jax.Array:
        return nnx.merge(self.graph, params, self.rest)(x, mask, rng_keys=rng_keys)

    def raw(self, x: jax.Array, mask: jax.Array, rng_keys: jax.Array | None = None) -> jax.Array:
        return self.apply(self.params, x, mask, rng_keys)

    def outputs(self, x: np.ndarray, mask: np.ndarray, rng_keys: jax.Array | None = None) -> np.ndarray:
        """Results at real positions, zero elsewhere."""
        return real(np.asarray(self.results(x, mask, rng_keys)), mask)

    @functools.cached_property
    def aside(self) -> tuple[Future[np.ndarray], Future[Callable[..., tuple[jax.Array, PyTree, jax.Array]]]]:
        """What another core does beside the checks until they want it, for most of a check is compilation:

        results in training without jit, zero elsewhere, of which each operation is compiled alone; and `gradients` with
        the forward pass made again, compiled for one example [1, longest].
        """

        def eager() -> np.ndarray:
            with _precision(self.dtype):
                x, mask = self.inputs()
                return real(np.asarray(self.raw(jnp.asarray(x), jnp.asarray(mask), self.subject.rng_keys)), mask)

        def rematerialised() -> Callable[..., tuple[jax.Array, PyTree, jax.Array]]:
            with _precision(self.dtype):  # a thread has its own
                x, mask = self.inputs(max(self.subject.lengths))
                gradients = jax.jit(partial(self._gradients, jax.checkpoint(self.apply)))
                return gradients.lower(x[:1], mask[:1], self.subject.rng_keys[:1]).compile()

        pool = ThreadPoolExecutor(1)
        under_way = pool.submit(eager), pool.submit(rematerialised)
        pool.shutdown(wait=False)
        return under_way

    def _gradients(
        self, apply: Callable[..., jax.Array], x: jax.Array, mask: jax.Array, rng_keys: jax.Array
    ) -> tuple[jax.Array, PyTree, jax.Array]:
        """Results, and the gradients of a weighted sum of their squares over the real positions: parameters, x."""
        weights = jnp.linspace(0.5, 1.5, x.shape[-1], dtype=x.dtype)[None, None]

        def loss(params: PyTree, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            y = jnp.where(mask[..., None], apply(params, x, mask, rng_keys), 0)
            return (y**2 * weights).sum(), y

        (_, y), (of_params, of_x) = jax.value_and_grad(loss, (0, 1), has_aux=True)(self.params, x)
        return y, of_params, of_x

    @functools.cached_property
    def base(self) -> dict[str, Any]:
        return self.everything(*self.inputs(), self.subject.rng_keys)

    def everything(self, x: np.ndarray, mask: np.ndarray, rng_keys: jax.Array) -> dict[str, Any]:
        """Arrays of numpy: an operation of JAX outside of jit would be compiled for itself."""
        y, of_params, of_x = jax.device_get(self.gradients(x, mask, rng_keys))
        return {
            "results in evaluation": self.outputs(x, mask),
            "results in training": y,
            "gradients of x": of_x,
            "gradients of parameters": of_params,
        }

    def encoder_inputs(self, first: int = 0, last: int | None = None, length: int | None = None) -> tuple[Any, ...]:
        """Parameters, ids and rng_keys for `encoder`: all examples padded to max_len, or a part of them."""
        lengths, longest = np.array(self.subject.lengths), self.subject.dims.max_len
        ids = np.random.default_rng(5).integers(1, 17, (len(lengths), longest), np.int32)
        ids = np.where(np.arange(longest)[None, :] < lengths[:, None], ids, 0)
        return self._encoder_state[0], ids[first:last, :length], self.subject.rng_keys[first:last]

    def _classifier(self, *, remat: bool) -> Classifier:
        """One block around the mixer."""
        d = self.subject.dims
        config = EncoderConfig(
            vocab_size=17, num_classes=3, max_len=d.max_len, num_layers=1, d_model=d.d_model, num_heads=d.num_heads,
            qkv_dim=d.qkv_dim, mlp_dim=d.mlp_dim, dropout=d.hidden_dropout, attention_dropout=d.dropout,
            embed_std=1.0, dtype=self.dtype, remat=remat,
        )  # fmt: skip

        def make_mixer(dims: Dims, layer: int, rngs: nnx.Rngs) -> Any:
            return mixers.build(self.subject.mixer.cls, dims, self.subject.options, rngs)

        return Classifier(config, make_mixer, rngs=_rngs())

    @functools.cached_property
    def _encoder_state(self) -> tuple[PyTree, PyTree]:
        params, rest = jax.jit(lambda: split(self._classifier(remat=False))[1:])()
        return _widened(params, self.dtype), rest

    def encoder(self, *, remat: bool) -> Callable[..., PyTree]:
        """The gradients of an encoder, a function of `encoder_inputs`."""
        graph = split(nnx.eval_shape(lambda: self._classifier(remat=remat)))[0]

        def loss(params: PyTree, ids: jax.Array, rng_keys: jax.Array) -> jax.Array:
            return (nnx.merge(graph, params, self._encoder_state[1])(ids, rng_keys=rng_keys) ** 2).sum()

        return jax.jit(jax.grad(loss))


def real(y: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """y [B, L, ...] at real positions, zero elsewhere."""
    return np.where(mask[..., None], y, np.zeros((), y.dtype))


def distance(got: PyTree, want: PyTree) -> float:
    """Largest difference in units of its array's largest value; for small arrays, of 1/1000 of all arrays' largest."""
    pairs = list(zip(jax.tree.leaves(jax.device_get(got)), jax.tree.leaves(jax.device_get(want)), strict=True))
    wanted = [np.abs(b).max(initial=0) for _, b in pairs]
    least = max(1e-3 * max(wanted, default=0), 1e-30)
    errors = [
        np.abs(a.astype(b.dtype) - b).max(initial=0) / max(by, least) for (a, b), by in zip(pairs, wanted, strict=True)
    ]
    return float("inf") if np.isnan(errors).any() else float(max(errors, default=0.0))


Comparison = Callable[[Probe], Iterator[tuple[str, PyTree, PyTree]]]


def unmoved(subject: Subject, comparison: Comparison, advice: str) -> str:
    """The largest difference among what should be equal: in float32 or, failing that, in float64."""
    seen: dict[str, float] = {}
    for dtype, tolerance in TOLERANCES.items():
        with _precision(dtype):
            moved = {what: distance(got, want) for what, got, want in comparison(probe_of(subject, dtype))}
        worst = max(moved.values())
        if worst <= tolerance:
            told = f"equal to {worst:.0e}" if worst else "exactly equal"
            return told + "".join(f" in {dtype}; to {e:.0e} in {d}: ties or rounding" for d, e in seen.items())
        seen[dtype] = worst
    what, by = next((what, by) for what, by in moved.items() if not by <= tolerance)
    raise Broken(f"{what} move by {by:.3g} times their largest value, in float64 too. {advice}")


@functools.lru_cache(maxsize=2)
def probe_of(subject: Subject, dtype: str) -> Probe:
    return Probe(subject, dtype)


@contextlib.contextmanager
def unoptimised() -> Iterator[None]:
    """Most of a check is compilation, and a program of a few milliseconds gains nothing by being optimised."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def _precision(dtype: Any) -> contextlib.AbstractContextManager[Any]:
    """JAX keeps float64 where that is what is computed in."""
    if jnp.dtype(dtype) != np.float64:
        return contextlib.nullcontext()
    home: Any = jax if hasattr(jax, "enable_x64") else jax.experimental
    return home.enable_x64(True)
