"""The compiled functions of a run: gradient of micro-batches, parameter update, prediction. No loops, no files."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from lra.config import RunConfig
from lra.errors import ConfigError
from lra.runtime.devices import compiler_options, device_mesh, on_accelerator
from lra.runtime.numerics import pin
from lra.training.batching import MicroBatchStack, micro_batch_size
from lra.training.device_dataset import DeviceDataset, DeviceSplit, gather
from lra.training.objectives import RECIPE_SITE, has_mask_symbol, objective, predicts_symbols
from lra.training.optimizer import optimizer, train_of_phase
from models import mixers
from models.core import Dims
from models.dropout import fold_in_keys
from models.encoder import Classifier, EncoderConfig
from tasks.core import Card, Split

PyTree = Any
BATCH_SHARDED, REPLICATED = PartitionSpec("data"), PartitionSpec()


class TrainState(NamedTuple):
    """Everything that training changes.

    Attributes:
      step: number of updates made
      params: trained parameters
      buffers: arrays that were drawn once and are not trained, such as random projections
      opt_state: state of the optimizer
    """

    step: int
    params: PyTree
    buffers: PyTree
    opt_state: PyTree


class StepInputs(NamedTuple):
    """What the gradient of a step depends on, apart from its micro-batches."""

    params: PyTree
    buffers: PyTree
    data: DeviceSplit
    dropout_key: jax.Array
    step: Any  # uint32 scalar


class GradientAccumulator(NamedTuple):
    """Sums over the micro-batches of one step, [devices, ...]: gradient of the mean loss, mean loss, share correct.

    Each device adds up its own examples; the devices are summed once, in the update.
    """

    grads: PyTree
    loss: jax.Array
    correct: jax.Array


class StepFunctions:
    """One encoder with its mixer, loss and optimizer, as pure jitted functions on arrays.

    Attributes:
      config, card: what they were made from; with `pretraining`, they are those of phase 1 of the recipe `spt`
      mesh: the devices; parameters and data are replicated, the examples of a micro-batch are sharded
      accelerator: the devices are not cores of a CPU
      devices: number of shards of a micro-batch; with `length_shards` several devices form one shard
      micro_batch: examples computed together, on all devices
      micro_batches_per_step: number of micro-batches in a batch
      parameters: number of trained parameters
    """

    def __init__(self, config: RunConfig, card: Card, *, pretraining: bool = False) -> None:
        pin()
        self.config, self.card = config, card
        self._encoder = encoder_config(config, card, pretraining=pretraining)
        self._mixer = mixers.resolve(config.mixer)
        if self._mixer.sha256 != config.mixer_sha256:
            raise ConfigError(
                f"{config.mixer} has changed since this run was configured ({config.mixer_label}); "
                "start the command again to train the changed mixer as a new run"
            )
        mixers.check_options(self._mixer.cls, config.mixer_options)
        self._init_key, self.dropout_key = seed_keys(config.seed)
        model = nnx.eval_shape(lambda: self._model(jax.random.key(0)))
        self._graph: nnx.GraphDef
        self._graph, params = nnx.split(model, nnx.Param, ...)[:2]
        self._optimizer = optimizer(train_of_phase(config, pretraining=pretraining), params)
        self._objective = objective(config.recipe, card, config.variant, pretraining=pretraining)
        self.parameters = sum(p.size for p in jax.tree.leaves(params))

        train = config.train
        if config.max_len % train.length_shards:
            raise ConfigError(f"--train.length-shards {train.length_shards} does not divide max-len {config.max_len}")
        self.mesh = device_mesh(train.batch_size, train.micro_batch, train.length_shards)
        self.devices = self.mesh.shape["data"]
        self.replicated = NamedSharding(self.mesh, REPLICATED)
        self.accelerator = on_accelerator()
        self.micro_batch = train.micro_batch or self.devices * micro_batch_size(
            train.batch_size // self.devices,
            config.max_len,
            accelerator=self.accelerator,
            equal_lengths=card.images,
        )
        self.micro_batches_per_step = train.batch_size // self.micro_batch

        jit = partial(jax.jit, compiler_options=compiler_options())
        stack_spec = MicroBatchStack(REPLICATED, *[PartitionSpec(None, "data")] * 3)
        self._sharded_add = self._shard_map(self._add_gradients, (BATCH_SHARDED, REPLICATED, stack_spec), BATCH_SHARDED)
        sharded_predict = self._shard_map(self._predict, (*[REPLICATED] * 3, BATCH_SHARDED), BATCH_SHARDED)
        self.zero_gradients = jit(self._zero_gradients, out_shardings=NamedSharding(self.mesh, BATCH_SHARDED))
        self.add_gradients = jit(self._sharded_add, static_argnames="bucket", donate_argnums=0)
        self.update = jit(self._update, out_shardings=self.replicated, donate_argnums=(0, 1))
        self.several_steps = jit(
            self._several_steps, static_argnames="bucket", out_shardings=self.replicated, donate_argnums=(0, 1)
        )
        self.predict = jit(sharded_predict, static_argnames="bucket")

    def _shard_map(self, function: Any, in_specs: tuple[PyTree, ...], out_specs: PartitionSpec) -> Any:
        """Return `function(*arrays, bucket=...)` as it runs on every device, each with its shard of the arrays."""

        def sharded(*arrays: Any, bucket: int) -> PyTree:
            # With check_vma, the gradient of replicated parameters would be summed over devices in each micro-batch.
            # Positions are left to the partitioner, along the axis "length". Where it has one device, all axes are
            # mapped, which cuDNN's attention on several GPUs needs (`models/fused_attention.py`).
            return jax.shard_map(
                partial(function, bucket=bucket),
                mesh=self.mesh,
                in_specs=in_specs,
                out_specs=out_specs,
                axis_names={"data"} if self.mesh.shape["length"] > 1 else {"data", "length"},
                check_vma=False,
            )(*arrays)

        return sharded

    def dataset(self, split: Split, *, limit: int | None = None) -> DeviceDataset:
        """Copy a split, or the first `limit` examples of it, to the devices of this run."""
        return DeviceDataset.put(split, self.config.max_len, self.replicated, limit=limit)

    def classifier(self, state: TrainState) -> Classifier:
        """Return the model with the parameters of a state."""
        return nnx.merge(self._graph, state.params, state.buffers)

    def _model(self, key: jax.Array) -> Classifier:
        def make_mixer(dims: Dims, layer: int, rngs: nnx.Rngs) -> Any:
            return mixers.build(self._mixer.cls, dims, self.config.mixer_options, rngs)

        return Classifier(self._encoder, make_mixer, rngs=nnx.Rngs(params=key))

    def init(self) -> TrainState:
        """Return the state before the first step, a function of the seed alone."""

        def arrays(key: jax.Array) -> tuple[PyTree, PyTree, PyTree]:
            _, *trees = nnx.split(self._model(key), nnx.Param, ...)
            params, buffers = trees
            return params, buffers, self._optimizer.init(params)

        return TrainState(0, *jax.jit(arrays, out_shardings=self.replicated)(self._init_key))

    def _zero_gradients(self, params: PyTree) -> GradientAccumulator:
        def zeros(shape: tuple[int, ...]) -> jax.Array:
            return jnp.zeros((self.devices, *shape))

        return GradientAccumulator(jax.tree.map(lambda p: zeros(p.shape), params), zeros(()), zeros(()))

    def _add_gradients(
        self, accumulator: GradientAccumulator, inputs: StepInputs, stack: MicroBatchStack, *, bucket: int
    ) -> GradientAccumulator:
        """Add a device's share of several micro-batches to its own accumulator.

        One dispatch computes them all, because after each dispatch the devices wait for the slowest.
        """
        batch_size = self.config.train.batch_size

        def add_one(n: jax.Array, accumulator: GradientAccumulator) -> GradientAccumulator:
            indices, batch_positions, weights = stack.indices[n], stack.batch_positions[n], stack.weights[n]
            ids, labels = gather(inputs.data, indices, bucket, self.config.train.length_shards)
            dropout_keys = recipe_keys = None
            has_dropout = self.config.model.dropout or self.config.model.attention_dropout
            if has_dropout or self.config.recipe:
                step_key = jax.random.fold_in(inputs.dropout_key, inputs.step)
                example_keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, batch_positions)
                dropout_keys = example_keys if has_dropout else None
                recipe_keys = fold_in_keys(example_keys, RECIPE_SITE) if self.config.recipe else None

            def loss(params: PyTree) -> tuple[jax.Array, jax.Array]:
                model = nnx.merge(self._graph, params, inputs.buffers)
                losses, correct = self._objective(model, ids, labels, dropout_keys, recipe_keys)
                return (losses * weights).sum() / batch_size, (correct * weights).sum()

            # The context is around the gradient, because custom backward functions are traced after the forward pass.
            with jax.default_matmul_precision(self.config.train.matmul_precision):
                (value, hits), grads = jax.value_and_grad(loss, has_aux=True)(inputs.params)
            addition = GradientAccumulator(grads, value, hits / batch_size)
            return jax.tree.map(lambda total, new: total + new[None], accumulator, addition)

        count = len(stack.indices) if stack.count is None else stack.count
        return jax.lax.fori_loop(0, count, add_one, accumulator)

    def _update(
        self, params: PyTree, opt_state: PyTree, accumulator: GradientAccumulator
    ) -> tuple[PyTree, PyTree, jax.Array]:
        """Make one optimizer step.

        A step whose loss or gradient norm is not finite changes nothing, so the parameters before it can be examined.

        Returns:
          params, opt_state, and float32 [3]: loss, accuracy, norm of the gradient
        """
        grads, loss, correct = jax.tree.map(lambda total: total.sum(0), accumulator)
        metrics = jnp.stack([loss, correct, optax.tree.norm(grads)])
        updates, new_opt_state = self._optimizer.update(grads, opt_state, params)
        updated = (optax.apply_updates(params, updates), new_opt_state)
        finite = jnp.isfinite(metrics).all()
        params, opt_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, (params, opt_state))
        return params, opt_state, metrics

    def _several_steps(
        self, params: PyTree, opt_state: PyTree, inputs: StepInputs, stacks: MicroBatchStack, *, bucket: int
    ) -> tuple[PyTree, PyTree, jax.Array]:
        """Make several steps in one dispatch.

        Args:
          inputs: of the first step; its `params` are None
          stacks: arrays [steps, micro-batches, ...], count None

        Returns:
          params, opt_state, metrics [steps, 3]
        """

        def one_step(carry: tuple[PyTree, PyTree, jax.Array], stack: MicroBatchStack) -> tuple[Any, jax.Array]:
            params, opt_state, step = carry
            step_inputs = inputs._replace(params=params, step=step)
            accumulator = self._sharded_add(self._zero_gradients(params), step_inputs, stack, bucket=bucket)
            params, opt_state, metrics = self._update(params, opt_state, accumulator)
            return (params, opt_state, step + 1), metrics

        (params, opt_state, _), metrics = jax.lax.scan(one_step, (params, opt_state, inputs.step), stacks)
        return params, opt_state, metrics

    def _predict(
        self, params: PyTree, buffers: PyTree, data: DeviceSplit, indices: jax.Array, *, bucket: int
    ) -> tuple[jax.Array, jax.Array]:
        """Return predicted classes int32 [m] and losses float32 [m] of a micro-batch, without dropout."""
        ids, labels = gather(data, indices, bucket, self.config.train.length_shards)
        with jax.default_matmul_precision(self.config.train.matmul_precision):
            logits = nnx.merge(self._graph, params, buffers)(ids)
        return logits.argmax(-1), optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def seed_keys(seed: int) -> tuple[jax.Array, jax.Array]:
    """Return the keys of a seed: the one that parameters are drawn from, and the one that dropout is drawn from."""
    init_key, dropout_key = jax.random.split(jax.random.key(seed, impl="threefry2x32"))
    return init_key, dropout_key


def encoder_config(config: RunConfig, card: Card, *, pretraining: bool = False) -> EncoderConfig:
    """Return the sizes of the encoder for a protocol's model and a task."""
    model = config.model
    return EncoderConfig(
        vocab_size=card.vocab_size + has_mask_symbol(config.recipe),
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
        symbols=card.vocab_size * predicts_symbols(config.recipe, pretraining=pretraining),
        remat=config.train.remat,
    )
