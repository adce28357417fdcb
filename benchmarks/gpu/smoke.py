"""Part 1: every mixer trains 20 steps on short ListOps expressions under `quick`, in float32 and in bfloat16."""

from __future__ import annotations

import dataclasses
import math
import time
from functools import partial
from typing import Any

import jax

from benchmarks.gpu.lines import Settings
from benchmarks.gpu.worker import Case
from lra.api import configure
from lra.runtime.devices import use_compilation_cache
from lra.training.step_functions import StepFunctions
from lra.training.train_step import train_steps
from tasks import listops
from tasks.core import Split

STEPS = 20
EXAMPLES = 256
TINY = {
    "max_len": 32, "train.batch_size": 2, "model.layers": 1, "model.d_model": 16, "model.qkv_dim": 16,
    "model.mlp_dim": 16, "model.head": (16,),
}  # fmt: skip


def cases(settings: Settings) -> dict[str, Case]:
    """Return a case for each mixer and dtype; all of float32 first."""
    use_compilation_cache()
    return {
        f"{mixer} {dtype}": partial(_train, mixer, dtype, TINY if settings.tiny else {})
        for dtype in ("float32", "bfloat16")
        for mixer in settings.mixers
    }


def _train(mixer: str, dtype: str, sizes: dict[str, Any]) -> dict[str, Any]:
    config = configure("listops", mixer, protocol="quick", options={}, overrides={**sizes, "model.dtype": dtype})
    functions = StepFunctions(config, listops.CARD)
    expressions, values = listops.generate(EXAMPLES, seed=1, min_length=15, max_length=256)
    dataset = functions.dataset(Split.from_documents(list(map(listops.encode, expressions)), values))
    dataset = dataclasses.replace(dataset, buckets=dataset.buckets[-1:])  # one length, so that one program is compiled
    state, losses, begin = functions.init(), [], time.perf_counter()
    seconds_of_first_step = 0.0
    for _ in range(STEPS):
        state, metrics = train_steps(functions, state, dataset, 1)
        losses.append(float(metrics[0, 0]))  # waits for the step
        seconds_of_first_step = seconds_of_first_step or time.perf_counter() - begin
    fields = {
        "mixer": mixer,
        "dtype": dtype,
        "first_step_seconds": seconds_of_first_step,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "devices": [device.platform for device in jax.tree.leaves(state.params)[0].devices()],
    }
    wrong = [step for step, loss in enumerate(losses) if not math.isfinite(loss)]
    return fields | ({"status": "failed", "error": f"the loss of step {wrong[0]} is not finite"} if wrong else {})
