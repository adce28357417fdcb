"""Show why laptop's Pathfinder needs token embeddings and positions of standard deviation 1 at the start.

python benchmarks/pathfinder_start.py

For each standard deviation, on generated pictures of the variant and with the initial parameters of seed 0: how much of
the grey level, row and column of a pixel a linear probe reads from the state of its position (R squared, on pictures
that it was not fitted on), after the embedding and after each block.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

from lra.api import configure
from lra.training.step_functions import StepFunctions
from models.encoder import Classifier
from tasks import load_task, pathfinder
from tasks.pathfinder.settings import VARIANTS

FITTED, TESTED = 96, 32  # pictures


def probed(states: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return R squared of each target in held-out pictures: states [N, L, D], targets [N, L, T]."""
    states = np.concatenate([states, np.ones_like(states[..., :1])], -1)
    states = states / np.sqrt(np.mean(np.square(states), (0, 1)))
    fit, test = (np.concatenate(part) for part in (states[:FITTED], states[FITTED:]))
    wanted, truth = (np.concatenate(part) for part in (targets[:FITTED], targets[FITTED:]))
    ridge = 1e-6 * len(fit) * np.eye(fit.shape[1])
    residual = truth - test @ np.linalg.solve(fit.T @ fit + ridge, fit.T @ wanted)
    return 1 - np.mean(np.square(residual), 0) / np.var(truth, 0)


def states(model: Classifier, ids: jax.Array, mask: jax.Array) -> list[np.ndarray]:
    """Return the states after the embedding and after each block, [N, L, D]."""
    x, mask = model.embed(ids, mask)
    found = [x]
    for block in model.blocks:
        found.append(block(found[-1], mask))
    return [np.asarray(x, np.float64) for x in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixer", default="cosformer")
    mixer = parser.parse_args().mixer
    for std in (0.02, 1.0):
        overrides = {"model.embed_std": std, "model.position_std": std}
        config = configure("pathfinder", mixer, protocol="laptop", overrides=overrides)
        side = VARIANTS[config.variant][0]
        images, _ = pathfinder.generate(FITTED + TESTED, resolution=side, seed=0)
        grey = images.reshape(len(images), -1).astype(np.int32)
        places = np.broadcast_to(np.stack(np.divmod(np.arange(side**2), side), -1), (*grey.shape, 2))
        functions = StepFunctions(config, load_task("pathfinder").CARD)
        model = functions.classifier(functions.init())
        ids, mask = jnp.asarray(grey + 1), jnp.ones(grey.shape, bool)  # 0 is the padding
        print(f"{mixer}, standard deviation {std}: R squared of grey level, row, column")
        targets = np.concatenate([grey[..., None], places], -1).astype(np.float64)
        for layer, x in enumerate(states(model, ids, mask)):
            name = f"after block {layer}" if layer else "embedding"
            print(f"  {name:16}", *(f"{value:6.3f}" for value in probed(x, targets)))


if __name__ == "__main__":
    main()
