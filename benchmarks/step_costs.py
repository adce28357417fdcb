"""Count operations and memory of a training step of every mixer; write tests/lra/training/flops_of_step.json.

python benchmarks/step_costs.py              # all mixers; compiles for some minutes
python benchmarks/step_costs.py softmax      # only these; the figures of others stay

Nothing is timed. tests/lra/training/test_step_costs.py compares every mixer with these figures. Run this again after an
intended change of the costs of a step.
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
SIZES = {"model.layers": 1, "train.batch_size": 1}  # one example runs on one device, whatever their number


@cache
def bench_case(name: str, length: int) -> Any:
    """Return a step of Text under `small`, with one layer and one example of random bytes of full length."""
    from lra.api import configure
    from lra.bench.measure import BenchCase

    return BenchCase(configure("text", name, protocol="small", options={}, overrides={**SIZES, "max_len": length}))


def operations(name: str) -> float:
    return bench_case(name, LENGTHS[0]).flops()


def temporary_bytes(name: str, length: int) -> int:
    """Return the temporary memory of the compiled gradient."""
    return bench_case(name, length).functions["gradient"].compile().memory_analysis().temp_size_in_bytes


def compiler() -> dict[str, str]:
    """Return the versions that temporary memory depends on; operations do not."""
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
    content = {
        "made_by": "python benchmarks/step_costs.py",
        "about": f"one training step of Text under small, {SIZES}; operations at {LENGTHS[0]} tokens",
        "compiler": compiler(),
        "costs": dict(sorted(costs.items())),
    }
    RECORDED.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
