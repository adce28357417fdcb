"""Measure one result of `bench`: compile a mixer at a length, check its memory need against the limit, time it.

The measured code is that of the trainer: `lra.training.step_functions` with the trainer's micro-batches.
Every example is random bytes of the full length, so there is no padding.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from lra.bench.memory import needed_bytes
from lra.config import RunConfig
from lra.errors import describe
from lra.runtime.devices import use_every_core
from lra.runtime.memory import Peak, available_bytes
from lra.training.evaluation import evaluate, evaluation_micro_batch
from lra.training.flops import flops
from lra.training.step_functions import BATCH_SHARDED, StepFunctions, TrainState
from lra.training.train_step import gradient, micro_batch_stacks, step_inputs
from models.fused_attention import choose_implementation
from tasks import load_task
from tasks.core import Split

TRAINING_SHARE = 0.7  # of the time that is left after compiling; inference gets the rest
LEAST_SHARE = 0.05  # of the whole time, for training and for inference each, however long compiling took


@dataclasses.dataclass(frozen=True)
class Speed:
    """Times of single steps of one batch.

    Attributes:
      steps: number of steps measured
      seconds: first quartile, median, third quartile
    """

    steps: int
    seconds: tuple[float, float, float]

    @property
    def per_second(self) -> float:
        """Steps per second, by the median."""
        return 1 / self.seconds[1]


@dataclasses.dataclass(frozen=True)
class BenchResult:
    """The figures of a mixer at a length.

    Attributes:
      status: oom: needs more memory than the limit and was not run, or an allocation failed; failed: see `reason`
      micro_batch: examples computed together in training, on all devices
      compile_seconds: to trace and compile all functions of training and inference, without a cache
      flops: of a training step of one batch
      moved_bytes: read and written by a training step, by the compiler, which counts the body of a loop once
      needed_bytes: by the compiler, see `lra.bench.memory.needed_bytes`
      limit_bytes: `lra.runtime.memory.available_bytes`
      peak_bytes: measured, see `lra.runtime.memory.Peak`
      implementation: of the softmax mixer, see `softmax_implementation`; empty for other mixers
    """

    mixer: str
    length: int
    status: Literal["measured", "oom", "failed"]
    reason: str = ""
    parameters: int | None = None
    micro_batch: int | None = None
    compile_seconds: float | None = None
    flops: float | None = None
    moved_bytes: float | None = None
    needed_bytes: int | None = None
    limit_bytes: int | None = None
    peak_bytes: int | None = None
    training: Speed | None = None
    inference: Speed | None = None
    implementation: str = ""


@dataclasses.dataclass(frozen=True)
class Function:
    """A jitted function of a step, with the arguments of its call, or their shapes."""

    jitted: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any] = dataclasses.field(default_factory=dict)

    def compile(self) -> Any:
        """Return the executable."""
        return self.jitted.lower(*self.arguments, **self.keywords).compile()

    def flops(self) -> float:
        """Return the counted operations of one call."""
        return flops(partial(self.jitted.__wrapped__, **self.keywords), *self.arguments)


class BenchCase:
    """The step functions of a configuration, and one batch whose examples fill its length.

    Attributes:
      functions: the jitted functions of a training step and of inference, by name
    """

    def __init__(self, config: RunConfig) -> None:
        card, size, length = load_task(config.task).CARD, config.train.batch_size, config.max_len
        documents = np.random.RandomState(0).randint(0, 256, (size, length)).astype(np.uint8)
        self.step_functions = step_functions = StepFunctions(config, card)
        split = Split.from_images(documents, np.arange(size) % len(card.classes))
        if card.pairs:
            split = dataclasses.replace(split, items=np.stack([split.items, split.items[::-1]], 1))
        self.batch = step_functions.dataset(split)
        devices, most = step_functions.devices, evaluation_micro_batch(step_functions)
        self.evaluation_micro = max(m for m in range(devices, size + 1, devices) if size % m == 0 and m <= most)

        def shapes(tree: Any, sharding: NamedSharding) -> Any:
            return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tree)

        _, *parts = jax.eval_shape(step_functions.init)
        state = TrainState(0, *(shapes(part, step_functions.replicated) for part in parts))
        self.opt_state = state.opt_state
        accumulator = shapes(
            jax.eval_shape(step_functions.zero_gradients, state.params),
            NamedSharding(step_functions.mesh, BATCH_SHARDED),
        )
        _, stack = next(micro_batch_stacks(step_functions, 0, self.batch))
        inputs = step_inputs(step_functions, state, self.batch)
        prediction = (state.params, state.buffers, self.batch.arrays, np.zeros(self.evaluation_micro, np.int32))
        bucket = {"bucket": length}
        self.functions = {
            "zero gradients": Function(step_functions.zero_gradients, (state.params,)),
            "gradient": Function(step_functions.add_gradients, (accumulator, inputs, stack), bucket),
            "update": Function(step_functions.update, (state.params, state.opt_state, accumulator)),
            "predict": Function(step_functions.predict, prediction, bucket),
        }
        # A counted or compiled gradient is one micro-batch of one device.
        self._gradients_per_step = step_functions.micro_batches_per_step * devices

    def flops(self) -> float:
        """Return the operations of a training step on all devices."""
        return self._gradients_per_step * self.functions["gradient"].flops() + self.functions["update"].flops()

    def moved_bytes(self, executables: Mapping[str, Any]) -> float:
        """Return the bytes that a training step reads and writes on all devices."""
        accessed = {name: float(program.cost_analysis()["bytes accessed"]) for name, program in executables.items()}
        once = accessed["update"] + accessed["zero gradients"]
        return self._gradients_per_step * accessed["gradient"] + self.step_functions.mesh.size * once

    def train(self, state: TrainState) -> TrainState:
        """Make one training step and wait for its result."""
        accumulator = gradient(self.step_functions, state, self.batch)
        params, opt_state, metrics = self.step_functions.update(state.params, state.opt_state, accumulator)
        jax.block_until_ready((params, opt_state, metrics))
        return TrainState(state.step + 1, params, state.buffers, opt_state)

    def infer(self, state: TrainState) -> None:
        """Evaluate the batch."""
        evaluate(self.step_functions, state, self.batch, self.evaluation_micro)


def measure(config: RunConfig, seconds: float, limit: int | None = None) -> BenchResult:
    """Return the result of a configuration, measured in this process, which should run nothing else. Raises nothing.

    Args:
      seconds: for everything; it takes longer if compiling does, or a single step of training or of inference
      limit: available bytes; None: `limit_bytes`
    """
    deadline = time.monotonic() + seconds
    result = BenchResult(config.mixer_label, config.max_len, "failed")
    use_every_core()
    jax.config.update("jax_enable_compilation_cache", False)  # compile_seconds are those without a cache
    try:
        case = BenchCase(config)
        begin = time.perf_counter()
        executables = {name: function.compile() for name, function in case.functions.items()}
        compile_seconds = time.perf_counter() - begin
        needed = needed_bytes(executables, case.opt_state, case.step_functions.mesh.size)
        limit = available_bytes() if limit is None else limit
        result = dataclasses.replace(
            result,
            compile_seconds=compile_seconds,
            parameters=case.step_functions.parameters,
            micro_batch=case.step_functions.micro_batch,
            flops=case.flops(),
            moved_bytes=case.moved_bytes(executables),
            needed_bytes=needed,
            limit_bytes=limit,
            implementation=softmax_implementation(config),
        )
        if limit is not None and needed > limit:
            return dataclasses.replace(result, status="oom", reason="needs more memory than is available; not run")
        return dataclasses.replace(result, status="measured", **_run(case, deadline, LEAST_SHARE * seconds))
    except Exception as error:
        if isinstance(error, MemoryError) or any(t in str(error) for t in ("RESOURCE_EXHAUSTED", "Out of memory")):
            return dataclasses.replace(result, status="oom", reason="an allocation failed")
        return dataclasses.replace(result, reason=describe(error))


def softmax_implementation(config: RunConfig) -> str:
    """Return how softmax attention is computed on this machine: `blocks`, or `blocks in training, cudnn in inference`.

    It is empty for other mixers.
    """
    if config.mixer != "softmax":
        return ""
    model = config.model
    x = jax.ShapeDtypeStruct((1, config.max_len, model.heads, model.qkv_dim // model.heads), jnp.dtype(model.dtype))
    slopes = config.mixer_options.get("decay", "none") != "none"
    training, inference = (
        choose_implementation(x, x, x, dropout=dropout, slopes=slopes)
        for dropout in (model.attention_dropout > 0, False)
    )
    return training if training == inference else f"{training} in training, {inference} in inference"


def _run(case: BenchCase, deadline: float, least: float) -> dict[str, Any]:
    state = case.step_functions.init()
    peak = Peak((state[1:], case.batch.arrays))

    def train() -> None:
        nonlocal state
        state = case.train(state)

    training = timed(train, max(TRAINING_SHARE * (deadline - time.monotonic()), least))
    inference = timed(lambda: case.infer(state), max(deadline - time.monotonic(), least))
    return {"training": training, "inference": inference, "peak_bytes": peak.bytes()}


def timed(step: Callable[[], None], budget: float) -> Speed:
    """Time steps for `budget` seconds, but at least one. The first is not counted, unless it is the only one."""
    deadline = time.monotonic() + budget
    seconds: list[float] = []
    while not seconds or time.monotonic() + seconds[-1] < deadline:
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    counted = seconds[1:] or seconds
    low, median, high = np.percentile(counted, [25, 50, 75]).tolist()
    return Speed(len(counted), (low, median, high))
