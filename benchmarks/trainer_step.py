"""Compare the trainer's step of `small` with the same model in PyTorch eager, on the same machine.

python benchmarks/trainer_step.py                        # needs torch: pip install torch
python benchmarks/trainer_step.py --cases listops-real text-real
python benchmarks/trainer_step.py --mixer softmax

One step is a batch of 32, forward, backward and Adam, float32. PyTorch pads every example to the protocol's length;
the trainer pads micro-batches to their bucket. Both start with the same parameters, and must give the same loss and
norm of the gradient before anything is timed. They alternate, and the ratio is of medians. Use an idle machine.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import numpy as np
from flax import nnx

from lra.api import configure
from lra.config import RunConfig
from lra.data.prepare import prepare
from lra.provenance.environment import environment
from lra.runtime.devices import use_compilation_cache, use_every_core
from lra.training.batching import batch_indices
from lra.training.step_functions import GradientAccumulator, StepFunctions
from lra.training.train_step import gradient, train_steps
from tasks import load_task
from tasks.core import Split

try:
    import torch
    from torch.nn import functional as F
except ImportError:
    sys.exit("benchmarks/trainer_step.py compares with PyTorch, which is not installed: .venv/bin/pip install torch")

# name: task, data ("full": every example fills the length; "real": the task's own), dropout
CASES = {
    "listops-full": ("listops", "full", 0.0),
    "listops-full-dropout": ("listops", "full", 0.1),
    "listops-real": ("listops", "real", 0.0),
    "listops-real-dropout": ("listops", "real", 0.1),
    "text-real": ("text", "real", 0.0),
    "text-real-dropout": ("text", "real", 0.1),
}


class TorchEncoder:
    """The encoder of `small` in PyTorch: two pre-norm blocks, learned positions, mean over the real tokens, head."""

    def __init__(self, params: dict[str, Any], config: RunConfig) -> None:
        self.config = config
        self.p = {name: torch.tensor(np.array(value), requires_grad=True) for name, value in params.items()}

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.p[f"{name}/kernel"].T, self.p[f"{name}/bias"])

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], self.p[f"{name}/scale"], self.p[f"{name}/bias"], 1e-6)

    def drop(self, x: torch.Tensor) -> torch.Tensor:
        rate = self.config.model.dropout
        return F.dropout(x, rate) if rate else x

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        mask = ids != 0
        x = self.drop(self.p["tokens"][ids] + self.p["positions"][: ids.shape[1]])
        for i in range(self.config.model.layers):
            block = f"blocks/{i}"
            x = x + self.drop(self.attention(f"{block}/mixer", self.norm(f"{block}/mixer_norm", x), mask))
            y = self.drop(F.gelu(self.linear(f"{block}/expand", self.norm(f"{block}/mlp_norm", x))))
            x = x + self.drop(self.linear(f"{block}/contract", y))
        x = self.norm("norm", x) * mask[..., None]
        x = x.sum(1) / mask.sum(1, keepdim=True)
        return self.linear("head/1", torch.relu(self.linear("head/0", x)))

    def attention(self, name: str, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        b, length, _ = x.shape
        heads = (b, length, self.config.model.heads, -1)
        q, k, v = (self.linear(f"{name}/{part}", x).view(heads).transpose(1, 2) for part in ("query", "key", "value"))
        attend = self.cosformer if self.config.mixer == "cosformer" else self.softmax
        y = attend(q, k, v, mask[:, None])
        return self.linear(f"{name}/output", y.transpose(1, 2).reshape(b, length, -1))

    def softmax(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        rate = self.config.model.attention_dropout
        padded = None if bool(mask.all()) else mask[:, :, None]  # torch is faster without a mask
        return F.scaled_dot_product_attention(q, k, v, attn_mask=padded, dropout_p=rate)

    def cosformer(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        angle = math.pi / 2 / self.config.max_len * torch.arange(1, q.shape[2] + 1)[:, None]
        q, k = torch.relu(q), torch.relu(k) * mask[..., None]
        q = torch.cat([q * torch.cos(angle), q * torch.sin(angle)], -1)
        k = torch.cat([k * torch.cos(angle), k * torch.sin(angle)], -1)
        total = q @ k.sum(2)[..., None]
        return q @ (k.transpose(2, 3) @ v) / total.clamp_min(1e-6)


class Trainer:
    """The trainer's step, without its loop."""

    def __init__(self, config: RunConfig, split: Split) -> None:
        card = load_task(config.task).CARD
        self.config, self.functions = config, StepFunctions(config, card)
        self.dataset = self.functions.dataset(split)
        self.state = self.functions.init()

    def gradient(self) -> GradientAccumulator:
        return gradient(self.functions, self.state, self.dataset)

    def step(self) -> None:
        self.state, metrics = train_steps(self.functions, self.state, self.dataset, 1)
        jax.block_until_ready(metrics)


class Torch:
    """A PyTorch step on the trainer's batch of the same step, padded to the protocol's length."""

    def __init__(self, ours: Trainer, split: Split) -> None:
        config = ours.config
        flat = nnx.to_flat_state(ours.state.params)
        self.model = TorchEncoder({"/".join(map(str, path)): leaf[...] for path, leaf in flat}, config)
        self.optimizer = torch.optim.Adam(self.model.p.values(), lr=1e-6)
        self.split, self.config, self.number = split, config, 0

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = batch_indices(self.config.seed, step, self.config.train.batch_size, len(self.split))
        ids = np.zeros((len(rows), self.config.max_len), np.int64)
        for line, row in zip(ids, rows, strict=True):
            first, last = self.split.offsets[self.split.items[row] :][:2]
            document = self.split.data[first:last][: len(line)]
            line[: len(document)] = document.astype(np.int64) + 1
        return torch.from_numpy(ids), torch.from_numpy(self.split.labels[rows].astype(np.int64))

    def loss(self) -> torch.Tensor:
        ids, labels = self.batch(self.number)
        return F.cross_entropy(self.model(ids), labels)

    def step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        self.optimizer.step()
        self.number += 1


def check_equal(ours: Trainer, other: Torch) -> None:
    """Assert equal losses and gradients, without dropout."""
    accumulator = ours.gradient()
    loss = other.loss()
    loss.backward()
    norms = [
        math.sqrt(sum(float((np.asarray(g) ** 2).sum()) for g in gradients))
        for gradients in (
            [g.sum(0) for g in jax.tree.leaves(accumulator.grads)],
            [p.grad for p in other.model.p.values()],
        )
    ]
    np.testing.assert_allclose(float(accumulator.loss.sum()), float(loss.detach()), rtol=1e-4)
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-3)


def task_split(task: str, data: str, config: RunConfig) -> Split:
    if data == "real":
        return prepare(task, config.variant).splits["train"]
    random, count = np.random.RandomState(0), 4 * config.train.batch_size
    card = load_task(task).CARD
    return Split(
        data=random.randint(0, card.vocab_size - 1, count * config.max_len).astype(np.uint8),
        offsets=np.arange(count + 1) * config.max_len,
        labels=random.randint(0, len(card.classes), count).astype(np.uint8),
        items=np.arange(count, dtype=np.int32),
    )


def seconds(step: Callable[[], None]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def compare(name: str, mixer: str, rounds: int) -> str:
    task, data, dropout = CASES[name]
    rates = {"model.dropout": dropout, "model.attention_dropout": dropout}
    config = configure(task, mixer, protocol="small", options={}, overrides=rates)
    split = task_split(task, data, config)
    plain = configure(task, mixer, protocol="small", options={}, overrides=dict.fromkeys(rates, 0.0))
    without = Trainer(plain, split)
    check_equal(without, Torch(without, split))
    ours = Trainer(config, split)
    other = Torch(ours, split)
    ours_step, torch_step = ours.step, other.step
    for _ in range(10):  # compiles every bucket, or nearly
        ours_step()
    torch_step()
    times: dict[str, list[float]] = {"ours": [], "torch": []}
    for _ in range(rounds):
        times["torch"] += [seconds(torch_step) for _ in range(2)]
        times["ours"] += [seconds(ours_step) for _ in range(3)][1:]  # torch's threads may still be active in the first
    (ours_time, ours_spread), (torch_time, torch_spread) = (middle(times[name]) for name in ("ours", "torch"))
    lengths = ours.dataset.lengths.mean() / config.max_len
    return (
        f"| {name} | {mixer} | {lengths:.2f} | {1e3 * torch_time:.0f} ± {1e3 * torch_spread:.0f} "
        f"| {1e3 * ours_time:.0f} ± {1e3 * ours_spread:.0f} | {ours_time / torch_time:.2f} |"
    )


def middle(values: list[float]) -> tuple[float, float]:
    """Return the median, and half the distance between the quartiles."""
    low, median, high = statistics.quantiles(values, n=4)
    return median, (high - low) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--mixer", choices=("cosformer", "softmax"), default="cosformer")
    parser.add_argument("--rounds", type=int, default=8, help="two steps of each in every round")
    args = parser.parse_args()
    use_compilation_cache()
    use_every_core()
    e = environment()
    torch.set_num_threads(e["cores"])
    print(f"{e['device']}, {e['cores']} cores, jax {e['jax']}, torch {torch.__version__}\n")
    print("| case | mixer | mean length / padded | PyTorch, ms | trainer, ms | ratio |")
    print("| :-- | :-- | --: | --: | --: | --: |")
    for name in args.cases:
        print(compare(name, args.mixer, args.rounds), flush=True)


if __name__ == "__main__":
    main()
