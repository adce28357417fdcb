"""The compiled functions of a run: gradient of a micro-batch, update, prediction. No loops, no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from lra.config import RunConfig
from lra.errors import ConfigError
from lra.runtime.devices import compiler_options, device_mesh
from lra.runtime.numerics import pin
from lra.training.batching import micro_batch_size
from lra.training.device_dataset import DeviceSplit, gather
from lra.training.optimizer import optimizer
from models import mixers
from models.core import Dims
from models.encoder import Classifier, EncoderConfig
from tasks.core import Card

PyTree = Any
DEALT, EVERYWHERE = PartitionSpec("data"), PartitionSpec()


class TrainState(NamedTuple):
    """step: updates done; params: trained; rest: drawn once and kept; opt: state of the optimiser."""

    step: int
    params: PyTree
    rest: PyTree
    opt: PyTree


class Totals(NamedTuple):
    """Sums over the micro-batches of one step, [devices, ...]: gradient of the mean loss, mean loss, fraction correct.

    Each device adds up what it has computed itself; they are summed over devices once a step.
    """

    grads: PyTree
    loss: jax.Array
    correct: jax.Array


class Program:
    """One encoder with its mixer, its loss and its optimiser, as pure jitted functions on arrays.

    seeds:       that are trained, here one (`lra.training.multi_seed` has several)
    mesh:        the devices; parameters and data are on each, the examples of a micro-batch are dealt out
    devices:     that examples are dealt to, each of them one or several that share the positions
    micro_batch: examples that are computed together, on all devices
    parts:       micro-batches of a step
    rows:        how the examples of a micro-batch lie in indices and places, and in predictions
    """

    rows = DEALT

    def __init__(self, config: RunConfig, card: Card) -> None:
        pin()
        self.config = config
        self.seeds: tuple[int, ...] = (config.seed,)
        self._encoder = encoder_config(config, card)
        self._mixer = mixers.resolve(config.mixer)
        if self._mixer.sha256 != config.mixer_sha256:
            raise ConfigError(f"{config.mixer} is no longer the file that this run began with ({config.mixer_label})")
        mixers.check_options(self._mixer.cls, config.mixer_options)
        self._init_key, self.dropout_key = self._streams()
        model = nnx.eval_shape(lambda: self._model(jax.random.key(0)))
        self._graph: nnx.GraphDef
        self._graph, params = nnx.split(model, nnx.Param, ...)[:2]
        self._optimizer = optimizer(config.train, params)
        self.parameters = sum(p.size for p in jax.tree.leaves(params))
        plan = config.train
        if config.max_len % plan.length_shards:
            raise ConfigError(f"--train.length-shards {plan.length_shards} does not divide max-len {config.max_len}")
        self.mesh = device_mesh(plan.batch_size, plan.micro_batch, plan.length_shards)
        self.devices = self.mesh.shape["data"]
        self.everywhere, dealt = (NamedSharding(self.mesh, spec) for spec in (EVERYWHERE, DEALT))
        accelerator = jax.default_backend() != "cpu"
        self.micro_batch = plan.micro_batch or self.devices * micro_batch_size(
            plan.batch_size // self.devices, config.max_len, accelerator
        )
        self.parts = plan.batch_size // self.micro_batch
        jit = partial(jax.jit, compiler_options=compiler_options())
        rows, several = self.rows, PartitionSpec(None, *self.rows)
        specs = (DEALT, *(EVERYWHERE,) * 6, several, several, PartitionSpec(None, "data"))
        self._add = self._dealt(self._add_gradients, specs, DEALT)
        self.no_totals = jit(self._no_totals, out_shardings=dealt)
        self.add_gradient = jit(self._add, static_argnames="bucket", donate_argnums=0)
        self.update = jit(self._update, out_shardings=self.everywhere, donate_argnums=(0, 1))
        self.steps = jit(self._steps, static_argnames="bucket", out_shardings=self.everywhere, donate_argnums=(0, 1))
        predict = self._dealt(self._predict, (*(EVERYWHERE,) * 3, DEALT), rows)
        self.predict = jit(predict, static_argnames="bucket")

    def _dealt(
        self, function: Callable[..., PyTree], specs: tuple[PartitionSpec, ...], out: PartitionSpec
    ) -> Callable[..., PyTree]:
        """`function(*arrays, bucket=...)` on every device, each with what `specs` deal to it."""

        def dealt(*arrays: Any, bucket: int) -> PyTree:
            on_device = partial(function, bucket=bucket)
            # With check_vma the gradient of what every device has would be summed over devices in each micro-batch.
            # Positions are left to the partitioner, along the axis "length".
            return jax.shard_map(
                on_device, mesh=self.mesh, in_specs=specs, out_specs=out, axis_names={"data"}, check_vma=False
            )(*arrays)

        return dealt

    def classifier(self, state: TrainState) -> Classifier:
        """The model with these parameters."""
        return nnx.merge(self._graph, state.params, state.rest)

    def of_seed(self, state: TrainState, number: int) -> TrainState:
        """The part of one of `seeds`; here there is only one."""
        return state

    def joined(self, states: Sequence[TrainState]) -> TrainState:
        """One state of the parts of all seeds."""
        return states[0]

    def _streams(self) -> tuple[jax.Array, jax.Array]:
        """The seed's two streams: what parameters are drawn from, and what dropout is drawn from."""
        return seed_streams(self.config.seed)

    def _model(self, key: jax.Array) -> Classifier:
        def make_mixer(dims: Dims, layer: int, rngs: nnx.Rngs) -> Any:
            return mixers.build(self._mixer.cls, dims, self.config.mixer_options, rngs)

        return Classifier(self._encoder, make_mixer, rngs=nnx.Rngs(params=key))

    def init(self) -> TrainState:
        """The state before the first step, a function of the seed alone."""

        return TrainState(0, *jax.jit(self._arrays, out_shardings=self.everywhere)(self._init_key))

    def _arrays(self, key: jax.Array) -> tuple[PyTree, PyTree, PyTree]:
        _, *parts = nnx.split(self._model(key), nnx.Param, ...)
        return parts[0], parts[1], self._optimizer.init(parts[0])

    def _examples(self, data: DeviceSplit, indices: jax.Array, bucket: int) -> tuple[jax.Array, jax.Array]:
        """`gather`, with the positions dealt out along "length" where several devices share them."""
        shards = self.mesh.shape["length"]
        if shards == 1:
            return gather(data, indices, bucket)
        ids, labels = gather(data, indices, -(-bucket // shards) * shards)
        along = PartitionSpec(*[None] * (ids.ndim - 1), "length")
        return jax.lax.with_sharding_constraint(ids, along), labels

    def _logits(self, params: PyTree, rest: PyTree, ids: jax.Array, rng_keys: jax.Array | None) -> jax.Array:
        return nnx.merge(self._graph, params, rest)(ids, rng_keys=rng_keys)

    def _precision(self) -> AbstractContextManager[Any]:
        """The protocol's matmul precision, for all that is traced within the context."""
        return jax.default_matmul_precision(self.config.train.matmul_precision)

    def _no_totals(self, params: PyTree) -> Totals:
        def zeros(shape: tuple[int, ...]) -> jax.Array:
            return jnp.zeros((self.devices, *shape))

        return Totals(jax.tree.map(lambda p: zeros(p.shape), params), zeros(()), zeros(()))

    def _add_gradients(self, totals: Totals, *arguments: Any, bucket: int) -> Totals:
        """`_add_gradient` for the first `count` of several micro-batches [n, m]; None: for all.

        They are one dispatch, for after each of them the devices would wait for the slowest.
        arguments: params, rest, data, dropout key, step, count, indices, places, weights
        """
        *held, count, indices, places, weights = arguments
        add: Callable[..., Totals] = self._add_gradient

        def part(n: jax.Array, totals: Totals) -> Totals:
            return add(totals, *held, indices[n], places[n], weights[n], bucket=bucket)

        return jax.lax.fori_loop(0, len(indices) if count is None else count, part, totals)

    def _add_gradient(
        self,
        totals: Totals,
        params: PyTree,
        rest: PyTree,
        data: DeviceSplit,
        dropout_key: jax.Array,
        step: jax.Array,
        indices: jax.Array,
        places: jax.Array,
        weights: jax.Array,
        *,
        bucket: int,
    ) -> Totals:
        """Adds a device's part of a micro-batch [m] to its own totals."""
        ids, labels = self._examples(data, indices, bucket)
        rng_keys = None
        if self.config.model.dropout or self.config.model.attention_dropout:
            step_key = jax.random.fold_in(dropout_key, step)
            rng_keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, places)

        def loss(params: PyTree) -> tuple[jax.Array, jax.Array]:
            logits = self._logits(params, rest, ids, rng_keys)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            hits = (logits.argmax(-1) == labels) * weights
            return (losses * weights).sum() / self.config.train.batch_size, hits.sum()

        with self._precision():  # around the gradient: custom backward functions are traced after the forward pass
            (value, correct), grads = jax.value_and_grad(loss, has_aux=True)(params)
        part = Totals(grads, value, correct / self.config.train.batch_size)
        return jax.tree.map(lambda total, new: total + new[None], totals, part)

    def _update(self, params: PyTree, opt: PyTree, totals: Totals) -> tuple[PyTree, PyTree, jax.Array]:
        """One step of the optimiser -> params, opt, [loss, accuracy, norm of the gradient].

        Where loss or norm are not finite the step is not made: the parameters that gave them can be looked at.
        """
        grads, loss, correct = jax.tree.map(lambda total: total.sum(0), totals)
        metrics = jnp.stack([loss, correct, optax.tree.norm(grads)])
        updates, after = self._optimizer.update(grads, opt, params)
        made = (optax.apply_updates(params, updates), after)
        finite = jnp.isfinite(metrics).all()
        params, opt = jax.tree.map(lambda new, old: jnp.where(finite, new, old), made, (params, opt))
        return params, opt, metrics

    def _steps(
        self,
        params: PyTree,
        opt: PyTree,
        rest: PyTree,
        data: DeviceSplit,
        dropout_key: jax.Array,
        first: jax.Array,
        batches: tuple[jax.Array, jax.Array, jax.Array],
        *,
        bucket: int,
    ) -> tuple[PyTree, PyTree, jax.Array]:
        """Several steps in one dispatch -> params, opt, metrics [steps, ...].

        batches: indices, places and weights [steps, micro-batches, ...] of steps `first`, `first` + 1, ...
        """

        def one(carry: tuple[PyTree, PyTree, jax.Array], batch: PyTree) -> tuple[Any, jax.Array]:
            params, opt, step = carry
            held = (params, rest, data, dropout_key, step)
            totals = self._add(self._no_totals(params), *held, None, *batch, bucket=bucket)
            params, opt, metrics = self._update(params, opt, totals)
            return (params, opt, step + 1), metrics

        (params, opt, _), metrics = jax.lax.scan(one, (params, opt, first), batches)
        return params, opt, metrics

    def _predict(
        self, params: PyTree, rest: PyTree, data: DeviceSplit, indices: jax.Array, *, bucket: int
    ) -> tuple[jax.Array, jax.Array]:
        """Predicted classes int32 [m] and losses float32 [m] of a micro-batch, without dropout."""
        ids, labels = self._examples(data, indices, bucket)
        with self._precision():
            logits = self._logits(params, rest, ids, None)
        return logits.argmax(-1), optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def seed_streams(seed: int) -> tuple[jax.Array, jax.Array]:
    init, dropout = jax.random.split(jax.random.key(seed, impl="threefry2x32"))
    return init, dropout


def encoder_config(config: RunConfig, card: Card) -> EncoderConfig:
    model = config.model
    return EncoderConfig(
        vocab_size=card.vocab_size,
        num_classes=len(card.classes),
        max_len=config.max_len,
        num_layers=model.layers,
        d_model=model.d_model,
        num_heads=model.heads,
        qkv_dim=model.qkv_dim,
        mlp_dim=model.mlp_dim,
        dropout=model.dropout,
        attention_dropout=model.attention_dropout,
        positions=model.positions,
        pooling=model.pooling,
        head=model.head,
        pair=model.pair,
        bias=model.bias,
        embed_std=model.embed_std,
        position_std=model.position_std,
        init=model.init,
        norm_eps=model.norm_eps,
        gelu=model.gelu,
        dtype=jnp.dtype(model.dtype),
        remat=config.train.remat,
    )
