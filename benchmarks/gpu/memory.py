"""Print the memory that training under `small` needs, by the compiler for this backend: the table of docs/gpu.md.

JAX_PLATFORMS=cpu python -m benchmarks.gpu.memory

Nothing is trained. Every example has the full length. The data come on top: their bytes, and 16 per example.
"""

from __future__ import annotations

from lra.api import configure
from lra.bench.measure import BenchCase
from lra.bench.memory import needed_bytes
from lra.config import protocol
from tasks import LRA_TASKS

MIXERS = ("cosformer", "softmax")


def needed(task: str, mixer: str, micro_batch: int) -> int:
    """Return the bytes of a training loop with micro-batches of so many examples, on one device."""
    overrides = {"train.micro_batch": micro_batch}
    case = BenchCase(configure(task, mixer, protocol="small", options={}, overrides=overrides))
    executables = {name: f.compile() for name, f in case.functions.items() if name != "predict"}
    return needed_bytes(executables, case.opt_state, case.step_functions.mesh.size)


def main() -> None:
    names = [f"{mixer}, {part}" for mixer in MIXERS for part in ("batch / 4", "batch")]
    print(f"| task | tokens | batch | {' | '.join(names)} |")
    print("| :-- | --: | --: |" + " --: |" * len(names))
    for task in LRA_TASKS:
        base = protocol(task, "small")
        batch = base.train.batch_size
        sizes = [f"{needed(task, mixer, m) / 2**30:.2f}" for mixer in MIXERS for m in (batch // 4, batch)]
        print(f"| {task} | {base.max_len:,} | {batch} | {' | '.join(sizes)} |", flush=True)


if __name__ == "__main__":
    main()
