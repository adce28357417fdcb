"""The message about a run that diverged."""

from __future__ import annotations

import math

import numpy as np

from lra.config import RunConfig
from lra.training.batching import batch_indices
from lra.training.checkpoints import flatten
from lra.training.step_functions import TrainState


def failure(failed: tuple[int, float, float], state: TrainState, config: RunConfig, examples: int) -> str:
    """Describe the first step that was not finite.

    Args:
      failed: step, loss and norm of the gradient
      state: that before the step (`StepFunctions._update`)
      examples: number of training examples
    """
    step, loss, gradient_norm = failed
    norms = {
        name.removeprefix("params/"): float(np.linalg.norm(np.asarray(array, np.float64)))
        for name, array in flatten(state).items()
        if name.startswith("params/")
    }
    largest = sorted(norms, key=lambda name: (not math.isnan(norms[name]), -norms[name]))[:3]
    rows = batch_indices(config.seed, step, config.train.batch_size, examples)
    return (
        f"not a number at step {step}: loss {loss}, gradient norm {gradient_norm}, "
        f"parameter norm {math.hypot(*norms.values()):.3g} "
        f"(of {', '.join(f'{name} {norms[name]:.3g}' for name in largest)}); the last checkpoint is kept. "
        f"Try a lower train.learning-rate. The batch: training examples {', '.join(map(str, rows))}"
    )
