"""Operations and memory of a training step of every mixer: counts, and writes tests/lra/training/flops_of_step.json.

python benchmarks/step_costs.py              # all, some minutes of compiling
python benchmarks/step_costs.py softmax      # only these, the others stay

Nothing is timed. tests/lra/training/test_step_costs.py compares every mixer with these
figures; run this again after a change of the costs of a step.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

RECORDED = Path(__file__).resolve().parent.parent / "tests" / "lra" / "training" / "flops_of_step.json"
LENGTHS = (512, 1024)
SIZES = {"model.layers": 1, "train.batch_size": 1}  # one example is computed on one device, however many there are


@cache
def subject(name: str, length: int) -> Any:
    """The step of Text under `small`, with one layer and one example of random bytes that fills the length."""
    from lra.api import configure
    from lra.bench.measure import BenchCase

    return BenchCase(configure("text", name, protocol="small", options={}, overrides={**SIZES, "max_len": length}))


def operations(name: str) -> float:
    return subject(name, LENGTHS[0]).flops()


def temporary_bytes(name: str, length: int) -> int:
    """Of the compiled gradient."""
    return subject(name, length).functions["gradient"].compile().memory_analysis().temp_size_in_bytes


def compiler() -> dict[str, str]:
    """What temporary memory depends on; operations do not."""
    import jax

    return {**{name: metadata.version(name) for name in ("jax", "jaxlib")}, "backend": jax.default_backend()}


def main() -> None:
    from models.mixers import available

    names = sys.argv[1:] or available()
    costs = json.loads(RECORDED.read_text())["costs"] if sys.argv[1:] else {}
    for name in names:
        print(name, file=sys.stderr, flush=True)
        sizes = {str(length): temporary_bytes(name, length) for length in LENGTHS}
        costs[name] = {"flops": operations(name), "temporary_bytes": sizes}
    said = {
        "made_by": "python benchmarks/step_costs.py",
        "about": f"one training step of Text under small, {SIZES}; operations at {LENGTHS[0]} tokens",
        "compiler": compiler(),
        "costs": dict(sorted(costs.items())),
    }
    RECORDED.write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()
