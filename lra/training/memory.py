"""Memory of training: a check before anything is allocated, and smaller micro-batches if it runs out later."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax

from lra.errors import ConfigError, RunError
from lra.runtime.memory import available_bytes
from lra.training.outcome import Outcome
from lra.training.step_functions import StepFunctions
from lra.training.trainer import train
from tasks.core import Prepared


def check_memory(functions: StepFunctions) -> None:
    """Check that a run fits into memory, as far as this is known before its functions are compiled.

    Training takes at least the parameters, two gradients and two moments of Adam, and the output of each layer for each
    token of a micro-batch. What the mixer takes comes on top of it.

    Raises:
      ConfigError: more is needed than is available
    """
    config, available = functions.config, available_bytes()
    copies = 1 if functions.accelerator else functions.devices  # the cores of a CPU share its memory
    tokens = functions.micro_batch // functions.devices * config.max_len
    needed = copies * 4 * (5 * functions.parameters + tokens * config.model.d_model * config.model.layers)
    if available is not None and needed > available:
        raise ConfigError(
            f"training needs at least {needed / 2**30:,.1f} GiB of memory, and {available / 2**30:,.1f} GiB are "
            f"available: max_len is {config.max_len:,}, a micro-batch has {functions.micro_batch:,} examples, and the "
            f"model has {functions.parameters:,} parameters. Lower --max-len, --train.micro-batch or --model.*"
        )


def train_in_memory(functions: StepFunctions, data: Prepared, directory: Path, **options: Any) -> Outcome:
    """Train (`lra.training.trainer.train`); each time memory runs out, halve the micro-batch and resume.

    A micro-batch that the user has set is kept. So is that of several processes, which would have to agree.

    Raises:
      RunError: memory runs out with the smallest micro-batch; and as `train`
    """
    set_by_user = functions.config.train.micro_batch is not None
    while True:
        try:
            return train(functions, data, directory, **options)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            reason = str(error).partition("\n")[0]
        # The arrays of the attempt are referred to by the exception, which no longer exists here.
        micro_batch = functions.micro_batch
        smaller = [m for m in range(functions.devices, micro_batch // 2 + 1, functions.devices) if micro_batch % m == 0]
        if set_by_user or jax.process_count() > 1 or not smaller:
            advice = f"--train.micro-batch {smaller[-1]} or " if smaller else ""
            raise RunError(f"{directory.name}: out of memory ({reason}); try {advice}--train.remat")
        print(
            f"{directory.name}: out of memory with micro-batches of {micro_batch} examples; {smaller[-1]} are tried",
            file=sys.stderr,
            flush=True,
        )
        train_config = dataclasses.replace(functions.config.train, micro_batch=smaller[-1])
        functions = StepFunctions(dataclasses.replace(functions.config, train=train_config), functions.card)
