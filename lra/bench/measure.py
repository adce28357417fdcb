"""One cell of the efficiency table: a mixer at a length, compiled, held against the memory there is, and timed.

What is measured is what trains: the functions of `lra.training.step_functions`, with their micro-batches.
Every example is random bytes and fills the length, so nothing is saved on padding.
"""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import NamedSharding

from lra.bench.memory import limit_bytes, needed_bytes
from lra.config import RunConfig
from lra.runtime.devices import use_every_core
from lra.runtime.memory import Peak
from lra.training.batching import stack_micro_batches
from lra.training.evaluation import evaluate, evaluation_micro_batch
from lra.training.flops import flops
from lra.training.step_functions import BATCH_SHARDED, StepFunctions, TrainState
from lra.training.train_step import micro_batches, step_inputs, train_steps
from tasks import load_task
from tasks.core import Split

TRAINING_SHARE = 0.7  # of the time that is left after compiling; the rest is inference
LEAST_SHARE = 0.05  # of all time, for training and for inference each, however long compiling took


@dataclasses.dataclass(frozen=True)
class Speed:
    """Single steps of one batch each. seconds: first quartile, median, third quartile."""

    steps: int
    seconds: tuple[float, float, float]

    @property
    def per_second(self) -> float:
        return 1 / self.seconds[1]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A mixer at a length.

    status:           measured; oom = needs more memory than there is, and was not run; failed, see `reason`
    micro_batch:      examples that are computed together in training, on all devices
    compile_seconds:  tracing and compiling all functions of training and inference, nothing cached
    flops:            of a training step of one batch
    moved_bytes:      read and written by a training step, by the compiler, which counts the body of a loop once
    needed_bytes:     by the compiler, see `lra.bench.memory.needed_bytes`
    limit_bytes:      what there was
    peak_bytes:       measured, see `lra.runtime.memory.Peak`
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


@dataclasses.dataclass(frozen=True)
class Function:
    """A jitted function of a step, with the arguments that it is called with, or their shapes."""

    jitted: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any] = dataclasses.field(default_factory=dict)

    def compile(self) -> Any:
        return self.jitted.lower(*self.arguments, **self.keywords).compile()

    def flops(self) -> float:
        return flops(partial(self.jitted.__wrapped__, **self.keywords), *self.arguments)


class Subject:
    """The compiled steps of a configuration, one batch that fills its length, and the functions of its steps."""

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
        batch = micro_batches(step_functions, 0, self.batch)
        stack = stack_micro_batches(batch, step_functions.micro_batches_per_step)
        inputs = step_inputs(step_functions, state, self.batch)
        bucket = {"bucket": length}
        indices = np.zeros(self.evaluation_micro, np.int32)
        self.functions = {
            "zero gradients": Function(step_functions.zero_gradients, (state.params,)),
            "gradient": Function(step_functions.add_gradients, (accumulator, inputs, stack), bucket),
            "update": Function(step_functions.update, (state.params, state.opt_state, accumulator)),
            "predict": Function(
                step_functions.predict, (state.params, state.buffers, self.batch.arrays, indices), bucket
            ),
        }

    def flops(self) -> float:
        """Of a training step. Of the loop over micro-batches one is counted, for one device."""
        return self._parts * self.functions["gradient"].flops() + self.functions["update"].flops()

    def moved_bytes(self, compiled: Mapping[str, Any]) -> float:
        """Of a training step, on all devices."""
        of = {name: float(program.cost_analysis()["bytes accessed"]) for name, program in compiled.items()}
        return self._parts * of["gradient"] + self.step_functions.mesh.size * (of["update"] + of["zero gradients"])

    @property
    def _parts(self) -> int:
        """Micro-batches of a step, on all devices."""
        return self.step_functions.micro_batches_per_step * self.step_functions.devices

    def train(self, state: TrainState) -> TrainState:
        state, metrics = train_steps(self.step_functions, state, self.batch, 1)
        jax.block_until_ready((state.params, state.opt_state, metrics))
        return state

    def infer(self, state: TrainState) -> None:
        evaluate(self.step_functions, state, self.batch, self.evaluation_micro)


def measure(config: RunConfig, seconds: float, limit: int | None = None) -> Cell:
    """The cell of a configuration, measured in this process, which should be its own. Raises nothing.

    Args:
      seconds: for all of it. It takes longer if compiling does, or a single step of training or of inference
      limit: bytes there are; None: as `limit_bytes` finds
    """
    deadline = time.monotonic() + seconds
    cell = Cell(config.mixer_label, config.max_len, "failed")
    use_every_core()
    jax.config.update("jax_enable_compilation_cache", False)  # what was compiled before would seem to cost nothing
    try:
        subject = Subject(config)
        begin = time.perf_counter()
        compiled = {name: function.compile() for name, function in subject.functions.items()}
        devices = subject.step_functions.mesh.size
        cell = dataclasses.replace(
            cell,
            compile_seconds=time.perf_counter() - begin,
            parameters=subject.step_functions.parameters,
            micro_batch=subject.step_functions.micro_batch,
            flops=subject.flops(),
            moved_bytes=subject.moved_bytes(compiled),
            needed_bytes=(needed := needed_bytes(compiled, subject.opt_state, devices)),
            limit_bytes=(limit := limit_bytes() if limit is None else limit),
        )
        if limit is not None and needed > limit:
            return dataclasses.replace(cell, status="oom", reason="needs more memory than there is; not run")
        return dataclasses.replace(cell, status="measured", **_run(subject, deadline, LEAST_SHARE * seconds))
    except Exception as error:
        if _out_of_memory(error):
            return dataclasses.replace(cell, status="oom", reason="an allocation failed")
        return dataclasses.replace(cell, reason=told(error))


def _run(subject: Subject, deadline: float, least: float) -> dict[str, Any]:
    state = subject.step_functions.init()
    peak = Peak((state[1:], subject.batch.arrays))

    def train() -> None:
        nonlocal state
        state = subject.train(state)

    training = timed(train, max(TRAINING_SHARE * (deadline - time.monotonic()), least))
    inference = timed(lambda: subject.infer(state), max(deadline - time.monotonic(), least))
    return {"training": training, "inference": inference, "peak_bytes": peak.bytes()}


def timed(step: Callable[[], None], budget: float) -> Speed:
    """Steps for as many seconds as the budget has, at least one.

    The first one warms up, and counts only if it is the only one.
    """
    deadline = time.monotonic() + budget
    seconds: list[float] = []
    while not seconds or time.monotonic() + seconds[-1] < deadline:
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    counted = seconds[1:] or seconds
    low, median, high = np.percentile(counted, [25, 50, 75]).tolist()
    return Speed(len(counted), (low, median, high))


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error)


def told(error: Exception) -> str:
    """An error in one line: the place that raised it, by the file's name alone, and its message."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} raised " if frames else ""
    return f"{place}{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
