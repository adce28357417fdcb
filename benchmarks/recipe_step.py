"""Compare the step of a recipe with that of the plain protocol, in one process.

python benchmarks/recipe_step.py                                  # every task with its recipes, of `small`
python benchmarks/recipe_step.py --protocols listops/small+shuffle --mixer softmax

Both steps alternate on the same batches of the generated sample, and the ratio is of medians. For `spt` it is the step
of the pretraining; its fine-tuning has the plain step.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax

from lra import config as cfg
from lra.api import configure
from lra.config import RunConfig
from lra.data.prepare import prepare
from lra.protocols import SelfPretraining
from lra.provenance.environment import environment
from lra.runtime.devices import use_compilation_cache, use_every_core
from lra.training.step_functions import StepFunctions
from lra.training.train_step import train_steps
from tasks import load_task
from tasks.core import SAMPLE, Split


class Steps:
    """Training steps of one configuration."""

    def __init__(self, config: RunConfig, split: Split) -> None:
        pretraining = isinstance(config.recipe, SelfPretraining)
        self.functions = StepFunctions(config, load_task(config.task).CARD, pretraining=pretraining)
        self.dataset, self.state = self.functions.dataset(split), self.functions.init()

    def seconds(self) -> float:
        """Make one step and return its time."""
        begin = time.perf_counter()
        self.state, metrics = train_steps(self.functions, self.state, self.dataset, 1)
        jax.block_until_ready(metrics)
        return time.perf_counter() - begin


def compare(task: str, protocol: str, mixer: str, rounds: int) -> str:
    """Return a line of the table."""
    config = configure(task, mixer, protocol=protocol)
    split = prepare(task, config.variant, SAMPLE).splits["train"]
    recipe, plain = Steps(config, split), Steps(dataclasses.replace(config, recipe=None), split)
    for _ in range(10):  # compiles every bucket, or nearly
        recipe.seconds(), plain.seconds()
    times = [(plain.seconds(), recipe.seconds()) for _ in range(rounds)]
    before, after = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    return f"| {task} | {protocol} | {mixer} | {before:.0f} | {after:.0f} | {after / before:.2f} |"


def main() -> None:
    every = [f"{task}/small+{name}" for task in cfg.TASKS for name in cfg.recipes(task)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocols", nargs="+", default=every, metavar="TASK/PROTOCOL+RECIPE")
    parser.add_argument("--mixer", default="cosformer")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    use_compilation_cache()
    use_every_core()
    e = environment()
    print(f"{e['device']}, {e['cores']} cores, jax {e['jax']}\n")
    print("| task | protocol | mixer | plain, ms | recipe, ms | ratio |")
    print("| :-- | :-- | :-- | --: | --: | --: |")
    for name in args.protocols:
        task, _, protocol = name.partition("/")
        print(compare(task, protocol, args.mixer, args.rounds), flush=True)


if __name__ == "__main__":
    main()
