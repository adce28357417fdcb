"""A mixer under test: small inputs, its compiled functions in one dtype, and comparisons of their outputs."""

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

from lra.training.flops import all_equations
from models import mixers
from models.core import Dims
from models.encoder import Classifier, EncoderConfig

DIMS = Dims(d_model=12, num_heads=2, qkv_dim=16, max_len=150, mlp_dim=24, dropout=0.3, hidden_dropout=0.2)
TOLERANCES = {"float32": 1e-5, "float64": 1e-9}

PyTree = Any
Gradients = tuple[jax.Array, PyTree, jax.Array]  # outputs; gradients of the parameters; gradients of x


class ContractViolation(Exception):
    """The contract is violated; the message says how, by how much, and where to look."""


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity, for the caches below
class MixerUnderTest:
    """A mixer with its options and sizes, and the shape of its inputs.

    Attributes:
      lengths: of the examples of a batch
      length: to which the examples are padded, unless it is to `dims.max_len`
    """

    mixer: mixers.Resolved
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dims: Dims = DIMS
    lengths: tuple[int, ...] = (97, 41, 1)
    length: int = 111

    def build(self, dtype: Any, seed: int = 0) -> Any:
        """Return the module."""
        dims = dataclasses.replace(self.dims, dtype=jnp.dtype(dtype))
        return mixers.build(self.mixer.cls, dims, self.options, _rngs(seed))

    def graph(self, dtype: Any = jnp.float32) -> nnx.GraphDef:
        """Return the module without its arrays."""
        return split(nnx.eval_shape(lambda: self.build(dtype)))[0]

    def inputs(self, length: int | None = None, dtype: Any = jnp.float32) -> tuple[np.ndarray, np.ndarray]:
        """Return x [B, L, D] and mask [B, L]. The values at a position are the same for every L."""
        shape = (len(self.lengths), self.dims.max_len, self.dims.d_model)
        x = np.random.default_rng(3).standard_normal(shape, np.float32)[:, : length or self.length].astype(dtype)
        return x, np.arange(x.shape[1])[None, :] < np.array(self.lengths)[:, None]

    @property
    def rng_keys(self) -> jax.Array:
        """One PRNG key for each example, [B]."""
        return jax.random.split(jax.random.key(11), len(self.lengths))


def split(module: Any) -> tuple[nnx.GraphDef, PyTree, PyTree]:
    """Return a module as graph, parameters and buffers."""
    graph, *states = nnx.split(module, nnx.Param, ...)
    return graph, states[0], states[1]


@functools.lru_cache(maxsize=2)
def _arrays(subject: MixerUnderTest, seed: int) -> tuple[PyTree, PyTree]:
    """Return parameters and buffers, float32 for every dtype of the computation."""
    return jax.jit(lambda: split(subject.build(jnp.float32, seed))[1:])()


def _rngs(seed: int = 0) -> nnx.Rngs:
    """Return a generator that compiles fast, because most of the time of a check is compilation."""
    return nnx.Rngs(params=jax.random.key(seed, impl="unsafe_rbg"))


def _widened(params: PyTree, dtype: jnp.dtype) -> PyTree:
    """Return float64 parameters for float64; otherwise their gradients would be rounded to float32."""
    return jax.tree.map(lambda p: p.astype(dtype), params) if dtype == jnp.float64 else params


class Probe:
    """One mixer in one dtype, with its compiled functions."""

    def __init__(self, subject: MixerUnderTest, dtype: str, seed: int = 0) -> None:
        self.subject, self.dtype = subject, jnp.dtype(dtype)
        self.graph = subject.graph(self.dtype)
        params, self.buffers = _arrays(subject, seed)
        self.params = _widened(params, self.dtype)
        self.forward = jax.jit(lambda x, mask, rng_keys=None: self._apply(self.params, x, mask, rng_keys))
        self.gradients = jax.jit(partial(self._gradients, self._apply))

    def inputs(self, length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return x and mask in the dtype of this probe."""
        return self.subject.inputs(length, self.dtype)

    def outputs(self, x: np.ndarray, mask: np.ndarray, rng_keys: jax.Array | None = None) -> np.ndarray:
        """Return the outputs at real positions, zero elsewhere."""
        return zero_padding(np.asarray(self.forward(x, mask, rng_keys)), mask)

    def outputs_and_grads(self, x: np.ndarray, mask: np.ndarray, rng_keys: jax.Array) -> dict[str, Any]:
        """Return numpy arrays by name; a JAX operation outside of jit would be compiled separately."""
        y, params_gradient, x_gradient = jax.device_get(self.gradients(x, mask, rng_keys))
        return {
            "outputs in evaluation": self.outputs(x, mask),
            "outputs in training": y,
            "gradients of x": x_gradient,
            "gradients of parameters": params_gradient,
        }

    @functools.cached_property
    def reference(self) -> dict[str, Any]:
        """The outputs and gradients of the plain inputs."""
        return self.outputs_and_grads(*self.inputs(), self.subject.rng_keys)

    @functools.cached_property
    def rounds_to_float32(self) -> bool:
        """Whether the mixer converts values from float64 to float32."""
        traced = jax.make_jaxpr(lambda params, x, mask: self._apply(params, x, mask))(self.params, *self.inputs())
        return any(
            equation.primitive.name == "convert_element_type"
            and equation.invars[0].aval.dtype == np.float64
            and equation.outvars[0].aval.dtype == np.float32
            for equation in all_equations(traced.jaxpr)
        )

    @functools.cached_property
    def background(self) -> tuple[Future[np.ndarray], Future[Callable[..., Gradients]]]:
        """Outputs in training without jit, and `gradients` rematerialised, compiled for one example of longest length.

        Another thread computes them during the first checks: they are a third of the time of all.
        """
        pool = ThreadPoolExecutor(1)
        futures = pool.submit(self._eager_outputs), pool.submit(self._compile_rematerialised)
        pool.shutdown(wait=False)
        return futures

    def _eager_outputs(self) -> np.ndarray:
        with _precision(self.dtype):  # of this thread
            x, mask = self.inputs()
            y = self._apply(self.params, jnp.asarray(x), jnp.asarray(mask), self.subject.rng_keys)
            return zero_padding(np.asarray(y), mask)

    def _compile_rematerialised(self) -> Callable[..., Gradients]:
        with _precision(self.dtype):
            x, mask = self.inputs(max(self.subject.lengths))
            gradients = jax.jit(partial(self._gradients, jax.checkpoint(self._apply)))
            return gradients.lower(x[:1], mask[:1], self.subject.rng_keys[:1]).compile()

    def _apply(self, params: PyTree, x: jax.Array, mask: jax.Array, rng_keys: jax.Array | None = None) -> jax.Array:
        return nnx.merge(self.graph, params, self.buffers)(x, mask, rng_keys=rng_keys)

    def _gradients(
        self, apply: Callable[..., jax.Array], x: jax.Array, mask: jax.Array, rng_keys: jax.Array
    ) -> Gradients:
        """Differentiate a weighted sum of squared outputs at real positions."""
        weights = jnp.linspace(0.5, 1.5, x.shape[-1], dtype=x.dtype)[None, None]

        def loss(params: PyTree, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            y = jnp.where(mask[..., None], apply(params, x, mask, rng_keys), 0)
            return (y**2 * weights).sum(), y

        (_, y), (params_gradient, x_gradient) = jax.value_and_grad(loss, (0, 1), has_aux=True)(self.params, x)
        return y, params_gradient, x_gradient

    def encoder_inputs(self, first: int = 0, last: int | None = None, length: int | None = None) -> tuple[Any, ...]:
        """Return parameters, ids and PRNG keys for `encoder`: all examples padded to max_len, or a part of them."""
        lengths, longest = np.array(self.subject.lengths), self.subject.dims.max_len
        ids = np.random.default_rng(5).integers(1, 17, (len(lengths), longest), np.int32)
        ids = np.where(np.arange(longest)[None, :] < lengths[:, None], ids, 0)
        return self._encoder_arrays[0], ids[first:last, :length], self.subject.rng_keys[first:last]

    def encoder(self, *, remat: bool) -> Callable[..., PyTree]:
        """Return the gradients of an encoder, a function of `encoder_inputs`."""
        graph = split(nnx.eval_shape(lambda: self._classifier(remat=remat)))[0]

        def loss(params: PyTree, ids: jax.Array, rng_keys: jax.Array) -> jax.Array:
            return (nnx.merge(graph, params, self._encoder_arrays[1])(ids, rng_keys=rng_keys) ** 2).sum()

        return jax.jit(jax.grad(loss))

    @functools.cached_property
    def _encoder_arrays(self) -> tuple[PyTree, PyTree]:
        params, buffers = jax.jit(lambda: split(self._classifier(remat=False))[1:])()
        return _widened(params, self.dtype), buffers

    def _classifier(self, *, remat: bool) -> Classifier:
        """Return an encoder of one block around the mixer."""
        d = self.subject.dims
        config = EncoderConfig(
            vocab_size=17, num_classes=3, max_len=d.max_len, num_layers=1, d_model=d.d_model, num_heads=d.num_heads,
            qkv_dim=d.qkv_dim, mlp_dim=d.mlp_dim, dropout=d.hidden_dropout, attention_dropout=d.dropout,
            embed_std=1.0, dtype=self.dtype, remat=remat,
        )  # fmt: skip

        def make_mixer(dims: Dims, layer: int, rngs: nnx.Rngs) -> Any:
            return mixers.build(self.subject.mixer.cls, dims, self.subject.options, rngs)

        return Classifier(config, make_mixer, rngs=_rngs())


@functools.lru_cache(maxsize=2)
def probe_of(subject: MixerUnderTest, dtype: str) -> Probe:
    """Return the probe that the checks of a mixer share."""
    return Probe(subject, dtype)


def zero_padding(y: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return y [B, L, ...] with zeros at padded positions."""
    return np.where(mask[..., None], y, np.zeros((), y.dtype))


def distance(actual: PyTree, expected: PyTree, least_scale: float = 1e-3) -> float:
    """Return the largest difference, relative to the largest value of its array.

    For small arrays it is relative to `least_scale` times the largest value of all arrays.
    """
    pairs = list(zip(jax.tree.leaves(jax.device_get(actual)), jax.tree.leaves(jax.device_get(expected)), strict=True))
    scales = [np.abs(b).max(initial=0) for _, b in pairs]
    least = max(least_scale * max(scales, default=0), 1e-30)
    errors = [
        np.abs(a.astype(b.dtype) - b).max(initial=0) / max(s, least) for (a, b), s in zip(pairs, scales, strict=True)
    ]
    return float("inf") if np.isnan(errors).any() else float(max(errors, default=0.0))


Pairs = Iterator[tuple[str, PyTree, PyTree]]  # name, actual arrays, expected arrays


def check_invariance(subject: MixerUnderTest, comparison: Callable[[Probe], Pairs], advice: str) -> str:
    """Return the largest difference of a comparison, in float32 or, if that is too large, in float64.

    Raises:
      ContractViolation: the difference is too large in both.
    """
    failures: dict[str, float] = {}
    for dtype, tolerance in TOLERANCES.items():
        with _precision(dtype):
            probe = probe_of(subject, dtype)
            pairs = {name: arrays for name, *arrays in comparison(probe)}
            if dtype == "float64" and probe.rounds_to_float32:
                # A gradient that is zero but for rounding, as that of a key's bias, is measured by the others.
                differences, tolerance = (
                    {n: distance(a, b, 1e-2) for n, (a, b) in pairs.items()},
                    TOLERANCES["float32"],
                )
            else:
                differences = {name: distance(*arrays) for name, arrays in pairs.items()}
        largest = max(differences.values())
        if largest <= tolerance:
            text = f"equal to {largest:.0e}" if largest else "exactly equal"
            return text + "".join(f" in {dtype}; to {e:.0e} in {d}: ties or rounding" for d, e in failures.items())
        failures[dtype] = largest
    name, difference = next((n, d) for n, d in differences.items() if not d <= tolerance)
    raise ContractViolation(f"{name} differ by {difference:.3g} times their largest value, in float64 too. {advice}")


@contextlib.contextmanager
def unoptimised() -> Iterator[None]:
    """Compile without optimisation, which would take longer than it saves in programs of a few milliseconds."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def _precision(dtype: Any) -> contextlib.AbstractContextManager[Any]:
    """Enable float64 in JAX if the dtype is float64."""
    if jnp.dtype(dtype) != np.float64:
        return contextlib.nullcontext()
    module: Any = jax if hasattr(jax, "enable_x64") else jax.experimental
    return module.enable_x64(True)
