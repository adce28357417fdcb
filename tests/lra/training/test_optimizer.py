"""Schedules against the formulas of their sources, the optimiser against a step by hand."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import image, listops, retrieval
from lra import config as cfg
from lra.config import Train
from lra.training.optimizer import learning_rate, optimizer, peak_rate

SMALL = listops.PROTOCOLS["small"].train


def test_onecycle_is_torchs():
    """torch.optim.lr_scheduler.OneCycleLR(1e-4, 50_000, pct_start=1000 / 50_000, anneal_strategy="linear")."""
    rate = learning_rate(SMALL)
    assert float(rate(0)) == pytest.approx(1e-4 / 25, rel=1e-5)
    assert float(rate(999)) == pytest.approx(1e-4, rel=1e-5)
    assert float(rate(49_999)) == pytest.approx(1e-4 / 25 / 1e4, rel=1e-4)
    middle = (999 + 49_999) / 2
    assert float(rate(middle)) == pytest.approx((1e-4 + 1e-4 / 25e4) / 2, rel=1e-4)


def test_a_shortened_run_reaches_its_peak_and_comes_down():
    short = dataclasses.replace(SMALL, steps=500)
    rates = [float(learning_rate(short)(n)) for n in range(500)]
    assert max(rates) == pytest.approx(1e-4, rel=1e-5)
    assert rates.index(max(rates)) == 249
    assert rates[-1] < 1e-8


def test_rsqrt_is_a_factor_and_not_a_peak():
    rate = learning_rate(listops.PROTOCOLS["lra"].train)
    assert float(rate(500)) == pytest.approx(0.05 * 0.5 / math.sqrt(1000), rel=1e-5)
    assert float(rate(1000)) == pytest.approx(1.58e-3, rel=1e-2)  # protocols of the original suite: the peak
    assert float(rate(4000)) == pytest.approx(0.05 / math.sqrt(4000), rel=1e-5)
    warming = learning_rate(retrieval.PROTOCOLS["lra"].train)
    assert float(warming(4999)) == pytest.approx(3.5e-4, rel=2e-2)  # never leaves its warm-up


def test_cosine():
    rate = learning_rate(image.PROTOCOLS["lra"].train)
    assert float(rate(0)) == 0
    assert float(rate(175)) == pytest.approx(5e-4, rel=1e-5)
    assert float(rate(175 + 17_500)) == pytest.approx(2.5e-4, rel=1e-4)


def test_peak_rate_is_that_of_the_schedule():
    for task in cfg.TASKS:
        for name in cfg.protocols(task):
            plan = cfg.protocol(task, name).train
            rate = learning_rate(plan)
            near = (plan.warmup - 1, plan.warmup, plan.steps - 1)
            highest = max(float(rate(step)) for step in near if step < plan.steps)
            assert peak_rate(plan) == pytest.approx(highest, rel=0.02)


def test_adamw_with_cycling_momentum_by_hand():
    """Three steps of torch's AdamW, whose bias correction takes the present beta_1."""
    plan = dataclasses.replace(SMALL, steps=5, warmup=2, weight_decay=0.1, clip_value=1.0, learning_rate=0.1)
    tx = optimizer(plan, {})
    p, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    params, state = jnp.asarray(p), tx.init(jnp.asarray(p))
    for n, raw in enumerate([[0.5, 3.0], [-0.2, 0.1], [0.3, -5.0]]):
        rate = float(learning_rate(plan)(n))
        b1 = float(np.interp(n, [0, 1, 4], [0.95, 0.85, 0.95]))
        grad = np.clip(raw, -1, 1)
        m, v = b1 * m + (1 - b1) * grad, 0.999 * v + 0.001 * grad**2
        p = p - rate * (m / (1 - b1 ** (n + 1)) / (np.sqrt(v / (1 - 0.999 ** (n + 1))) + 1e-6) + 0.1 * p)
        updates, state = tx.update(jnp.asarray(raw), state, params)
        params = params + updates
        np.testing.assert_allclose(params, p, rtol=1e-4)


def test_parameters_with_wishes_of_their_own():
    """At the first step Adam's direction is the gradient's sign: -rate * (1 + decay * p)."""
    model = nnx.Dict(
        plain=nnx.Param(jnp.full(2, 3.0)),
        slow=nnx.Param(jnp.full(2, 3.0), lr_scale=0.1),
        free=nnx.Param(jnp.full(2, 3.0), decay=False),
    )
    params = nnx.split(model, nnx.Param)[1]
    plan = dataclasses.replace(SMALL, steps=5, warmup=2, weight_decay=0.5, clip_value=1.0, learning_rate=0.1)
    tx = optimizer(plan, params)
    updates, _ = tx.update(params, tx.init(params), params)
    rate = float(learning_rate(plan)(0))
    for name, want in (("plain", 1 + 0.5 * 3), ("slow", 0.1 * (1 + 0.5 * 3)), ("free", 1.0)):
        np.testing.assert_allclose(updates[name][...], -rate * want, rtol=1e-4)


RSQRT = retrieval.PROTOCOLS["lra"].train  # ends within its warm-up


@pytest.mark.parametrize(
    ("plan", "ratio"),
    [
        pytest.param(SMALL, 1.0, id="small, 1e-4"),
        pytest.param(listops.PROTOCOLS["laptop"].train, 1.0, id="laptop, 1e-3"),
        pytest.param(dataclasses.replace(SMALL, learning_rate=1e-2), 0.1, id="1e-2"),
        pytest.param(listops.PROTOCOLS["lra"].train, 1e-3 / (0.05 / math.sqrt(1000)), id="rsqrt, 1.6e-3"),
        pytest.param(RSQRT, 1.0, id="rsqrt, 3.5e-4"),
        pytest.param(dataclasses.replace(RSQRT, learning_rate=5.0), 8000**1.5 / 5e3 / 5000, id="rsqrt in its warm-up"),
    ],
)
def test_a_rate_of_its_own_is_absolute_and_never_above_the_protocols(plan: Train, ratio: float):
    """Updates of a parameter with lr = 1e-3 over those of an ordinary one, at steps all over the schedule."""
    plan = dataclasses.replace(plan, weight_decay=0.0)
    model = nnx.Dict(plain=nnx.Param(jnp.full(2, 3.0)), slow=nnx.Param(jnp.full(2, 3.0), lr=1e-3, decay=False))
    params = nnx.split(model, nnx.Param)[1]
    tx = optimizer(plan, params)
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(params, state, params)
        np.testing.assert_allclose(updates["slow"][...], ratio * updates["plain"][...], rtol=1e-5)
    assert (updates["plain"][...] != 0).all()
    highest = max(float(learning_rate(plan)(step)) for step in range(0, plan.steps, 10))
    assert ratio * highest <= 1e-3 * (1 + 1e-5)


def test_a_fraction_and_a_rate_multiply():
    model = nnx.Dict(plain=nnx.Param(jnp.ones(2)), slow=nnx.Param(jnp.ones(2), lr=1e-3, lr_scale=0.5))
    params = nnx.split(model, nnx.Param)[1]
    tx = optimizer(dataclasses.replace(SMALL, learning_rate=1e-2), params)
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["slow"][...], 0.05 * updates["plain"][...], rtol=1e-5)
