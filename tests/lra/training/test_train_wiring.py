"""Every setting of the training arrives in its steps: schedules by closed formulas, AdamW once more in numpy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra.api import configure
from lra.config import Train, protocol
from lra.training.batching import batch_indices
from lra.training.device_dataset import DeviceDataset
from lra.training.evaluation import evaluate
from lra.training.optimizer import learning_rate, optimizer
from lra.training.step_functions import StepFunctions
from lra.training.train_step import gradient, train_steps
from tasks.core import Split
from tasks.listops import CARD
from tests.lra import recording

PLAN = dataclasses.replace(
    protocol("listops", "small").train,
    **{"steps": 60, "warmup": 9, "learning_rate": 0.25, "b1": 0.83, "b2": 0.91, "eps": 0.015, "weight_decay": 0.3},
    clip_value=0.7,
)


def onecycle(plan: Train, step: int) -> float:
    """torch.optim.lr_scheduler.OneCycleLR of two linear phases, which end at steps warmup - 1 and steps - 1."""
    peak, top, last = plan.learning_rate, plan.warmup - 1, plan.steps - 1
    if step <= top:
        return peak / 25 + (peak - peak / 25) * step / top
    return peak + (peak / 25 / 1e4 - peak) * (step - top) / (last - top)


def rsqrt(plan: Train, step: int) -> float:
    """The original suite's "constant * linear_warmup * rsqrt_decay"."""
    return plan.learning_rate * min(1, step / plan.warmup) / math.sqrt(max(step, plan.warmup))


def cosine(plan: Train, step: int) -> float:
    """The original suite's linear warm-up; then half a cosine that would last for as many steps as the whole run."""
    if step < plan.warmup:
        return plan.learning_rate * step / plan.warmup
    return plan.learning_rate * (1 + math.cos(math.pi * (step - plan.warmup) / plan.steps)) / 2


SCHEDULES: dict[str, Callable[[Train, int], float]] = {"onecycle": onecycle, "rsqrt": rsqrt, "cosine": cosine}


def momentum(plan: Train, step: int) -> float:
    """`onecycle` takes beta_1 to 0.1 below its highest value while the rate rises, and back."""
    if plan.schedule != "onecycle":
        return plan.b1
    top, last = plan.warmup - 1, plan.steps - 1
    return plan.b1 - 0.1 * (step / top if step <= top else (last - step) / (last - top))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("warmup", "steps"), [(9, 60), (200, 5_000), (1_000, 50_000)])
def test_a_schedule_is_its_formula(schedule: Any, warmup: int, steps: int) -> None:
    plan = dataclasses.replace(PLAN, schedule=schedule, warmup=warmup, steps=steps)
    rate = learning_rate(plan)
    middle = (warmup + steps) // 2
    for step in (0, 1, warmup - 2, warmup - 1, warmup, warmup + 1, middle, steps - 2, steps - 1):
        want = SCHEDULES[schedule](plan, step)
        assert float(rate(step)) == pytest.approx(want, rel=1e-5, abs=1e-6 * plan.learning_rate), step
    highest = max(range(steps), key=lambda step: SCHEDULES[schedule](plan, step)) if steps < 100 else warmup
    assert abs(highest - warmup) <= 1


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [1, 2, 59, 60])
def test_the_shortest_and_the_longest_warm_up_are_finite(schedule: Any, warmup: int) -> None:
    plan = dataclasses.replace(PLAN, schedule=schedule, warmup=warmup)
    rates = np.array([float(learning_rate(plan)(step)) for step in range(plan.steps)])
    peak = plan.learning_rate / math.sqrt(warmup) if schedule == "rsqrt" else plan.learning_rate
    assert (rates >= 0).all()
    assert rates.max() == pytest.approx(peak, rel=0.02)
    if schedule == "onecycle":
        assert rates[-1] < 1e-4 * peak


@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
def test_without_a_warm_up_the_first_steps_have_the_peak(schedule: Any) -> None:
    plan = dataclasses.replace(PLAN, schedule=schedule, warmup=0)
    rates = [float(learning_rate(plan)(step)) for step in range(plan.steps)]
    assert rates.index(max(rates)) <= 1
    assert max(rates) == pytest.approx(plan.learning_rate)


class AdamW:
    """Decoupled weight decay times the rate, after clipping by value; float64."""

    def __init__(self, plan: Train) -> None:
        self.plan, self.count, self.m, self.v = plan, 0, 0.0, 0.0

    def update(self, p: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        plan, b1 = self.plan, momentum(self.plan, self.count)
        rate = SCHEDULES[plan.schedule](plan, self.count)
        limit = math.inf if plan.clip_value is None else plan.clip_value
        g = np.clip(gradient.astype(np.float64), -limit, limit)
        self.count += 1
        self.m, self.v = b1 * self.m + (1 - b1) * g, plan.b2 * self.v + (1 - plan.b2) * g**2
        m, v = self.m / (1 - b1**self.count), self.v / (1 - plan.b2**self.count)
        return p - rate * (m / (np.sqrt(v) + plan.eps) + plan.weight_decay * p)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("clip", [0.7, None])
def test_steps_of_the_optimiser_are_adamws(schedule: Any, clip: float | None) -> None:
    plan = dataclasses.replace(PLAN, schedule=schedule, clip_value=clip)
    rng = np.random.RandomState(0)
    want = rng.normal(size=5)
    by_hand, tx = AdamW(plan), optimizer(plan, {})
    params = jnp.asarray(want)
    state = tx.init(params)
    for _ in range(12):
        raw = rng.normal(size=5) * [0.01, 0.1, 1, 3, 10]
        want = by_hand.update(want, raw)
        updates, state = tx.update(jnp.asarray(raw), state, params)
        params = params + updates
        np.testing.assert_allclose(params, want, rtol=2e-4, atol=1e-6)


@pytest.fixture(scope="module")
def split() -> Split:
    """40 examples of one length."""
    rng = np.random.RandomState(0)
    documents = [rng.randint(0, 15, 6).astype(np.uint8).tobytes() for _ in range(40)]
    return Split.from_documents(documents, np.arange(40) % 10)


def program() -> StepFunctions:
    """A program without dropout, every setting of whose optimiser is unusual."""
    sizes = {"max_len": 6, "model.layers": 1, "model.d_model": 4, "model.qkv_dim": 4, "model.mlp_dim": 4}
    sizes |= {"model.head": (4,), "model.dropout": 0.0, "model.attention_dropout": 0.0}
    counted = {f.name: getattr(PLAN, f.name) for f in dataclasses.fields(Train) if not f.metadata.get("unhashed")}
    plan = {f"train.{name}": value for name, value in counted.items()}
    plan |= {"train.batch_size": 12, "train.micro_batch": 4, "train.clip_value": 0.05, "train.schedule": "rsqrt"}
    overrides = sizes | plan | {"train.warmup": 2}
    return StepFunctions(configure("listops", recording.SPEC, protocol="small", overrides=overrides), CARD)


def test_steps_of_the_trainer_are_adamws_on_the_gradient_of_the_mean_loss(split: Split) -> None:
    """Loss and accuracy are those of an evaluation of the batch; its slope along the gradient is the norm."""
    made = program()
    plan, examples = made.config.train, made.dataset(split)
    state = made.init()
    by_hand = [AdamW(plan) for _ in jax.tree.leaves(state.params)]
    for step in range(3):
        totals = gradient(made, state, examples)
        grads = [np.asarray(leaf, np.float64).sum(0) for leaf in jax.tree.leaves(totals.grads)]
        before = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(state.params)]
        want = [one.update(p, g) for one, p, g in zip(by_hand, before, grads, strict=True)]
        batch = batch_of(made, split, step)
        norm = math.sqrt(sum((g**2).sum() for g in grads))
        loss, accuracy = evaluated(made, state, batch)
        if step == 0:
            ends = [evaluated(made, moved(state, grads, by / norm), batch)[0] for by in (2e-4, -2e-4)]
            assert (ends[0] - ends[1]) / 4e-4 == pytest.approx(norm, rel=1e-2)
        state, metrics = train_steps(made, state, examples, 1)
        np.testing.assert_allclose(np.asarray(metrics)[0], [loss, accuracy, norm], rtol=1e-4)
        assert state.step == step + 1
        for got, wanted in zip(jax.tree.leaves(state.params), want, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-5)


def batch_of(made: StepFunctions, split: Split, step: int) -> DeviceDataset:
    """The examples of a step's batch as a split of their own."""
    rows = batch_indices(made.config.seed, step, made.config.train.batch_size, len(split))
    return made.dataset(Split.from_documents([split.document(d) for d in rows], split.labels[rows]))


def evaluated(made: StepFunctions, state: Any, batch: DeviceDataset) -> tuple[float, float]:
    result = evaluate(made, state, batch, 4)
    return result.loss, result.accuracy


def moved(state: Any, direction: list[np.ndarray], by: float) -> Any:
    leaves, tree = jax.tree.flatten(state.params)
    along = [leaf + np.float32(by) * d.astype(np.float32) for leaf, d in zip(leaves, direction, strict=True)]
    return state._replace(params=jax.tree.unflatten(tree, along))
