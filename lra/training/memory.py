"""The least memory that training takes, compared with what is available before anything is allocated."""

from __future__ import annotations

import jax

from lra.errors import ConfigError
from lra.runtime.memory import available_bytes
from lra.training.step_functions import StepFunctions


def check_memory(functions: StepFunctions) -> None:
    """Check that a run fits into memory, as far as this is known before its functions are compiled.

    Training takes at least the parameters, two gradients and two moments of Adam, and the output of each layer for each
    token of a micro-batch. What the mixer takes comes on top of it.

    Raises:
      ConfigError: more is needed than is available
    """
    config, available = functions.config, available_bytes()
    copies = functions.devices if jax.default_backend() == "cpu" else 1  # the cores of a CPU share its memory
    tokens = functions.micro_batch // functions.devices * config.max_len
    needed = copies * 4 * (5 * functions.parameters + tokens * config.model.d_model * config.model.layers)
    if available is not None and needed > available:
        raise ConfigError(
            f"training needs at least {needed / 2**30:,.1f} GiB of memory, and {available / 2**30:,.1f} GiB are "
            f"available: max_len is {config.max_len:,}, a micro-batch has {functions.micro_batch:,} examples, and the "
            f"model has {functions.parameters:,} parameters. Lower --max-len, --train.micro-batch or --model.*"
        )
