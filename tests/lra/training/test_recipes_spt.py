"""The recipe `spt`: two phases, each resumed bit-exactly, and one pretrained encoder for several runs."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from lra.errors import ConfigError, RunError
from lra.protocols import SelfPretraining
from lra.runtime.locks import run_lock
from lra.training import pretraining, trainer
from lra.training.checkpoints import Checkpoints, flatten
from lra.training.objectives import objective
from lra.training.optimizer import compressed, learning_rate
from lra.training.outcome import Outcome
from lra.training.pretraining import fine_tuning_state, pretraining_functions
from lra.training.recipes.symbols import corrupt
from lra.training.step_functions import StepFunctions, encoder_config
from lra.training.trainer import train
from models import mixers
from models.encoder import Classifier
from tasks.core import Prepared
from tasks.listops import CARD
from tests.lra.conftest import tiny_config

RECIPE = SelfPretraining(masked=0.5)
FIRST, ALL = 5, 12  # steps


def functions(seed: int = 0, recipe: SelfPretraining = RECIPE) -> StepFunctions:
    config = dataclasses.replace(tiny_config("performer"), recipe=recipe, protocol="small+spt", seed=seed)
    return StepFunctions(config, CARD)


def states(directory: Path, made: StepFunctions) -> dict[str, np.ndarray]:
    loaded = Checkpoints(directory / "checkpoints").load("latest", made.init())
    assert loaded is not None
    return {name: np.asarray(leaf) for name, leaf in flatten(loaded[0]).items()}


def pretrained(directory: Path, made: StepFunctions) -> dict[str, np.ndarray]:
    (found,) = directory.glob("pretraining-*")
    return states(found, pretraining_functions(made))


def assert_same(a: Outcome, b: Outcome) -> None:
    assert a.history.curve == b.history.curve
    assert a.history.validation == b.history.validation
    assert a.test is not None
    assert b.test is not None
    np.testing.assert_array_equal(a.test.predictions, b.test.predictions)


def counted(monkeypatch: pytest.MonkeyPatch, *interrupted: int) -> list[int]:
    """Count steps in a list of the steps that were made; a signal arrives in those calls."""
    real, steps = trainer.train_steps, []

    def counting(made: Any, state: Any, *args: Any) -> Any:
        steps.append(state.step)
        if len(steps) in interrupted:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(made, state, *args)

    monkeypatch.setattr(trainer, "train_steps", counting)
    return steps


def test_a_run_that_is_interrupted_in_both_phases_ends_bit_equal(
    tiny: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(functions(), tiny, tmp_path / "a" / "run")
    steps = counted(monkeypatch, 3, 8)
    ends = [train(functions(), tiny, tmp_path / "b" / "run") for _ in range(3)]
    assert [end.status for end in ends] == ["interrupted", "interrupted", "complete"]
    assert ends[0].message == "stopped by a signal at step 3 of 12"
    assert steps == list(range(ALL))
    assert_same(ends[-1], whole)
    assert [point[0] for point in whole.history.curve] == list(range(1, ALL + 1))
    assert [point[0] for point in whole.history.validation] == [8, 12]
    for load in (pretrained, lambda place, made: states(place / "run", made)):
        a, b = (load(tmp_path / name, functions()) for name in "ab")
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_seeds_share_one_pretrained_encoder_and_score_as_if_they_did_not(
    tiny: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = counted(monkeypatch)
    first = train(functions(0), tiny, tmp_path / "a" / "zero")
    second = train(functions(1), tiny, tmp_path / "a" / "one")
    assert steps == [*range(ALL), *range(FIRST, ALL)]
    assert second.history.curve[: FIRST - 1] == first.history.curve[: FIRST - 1]
    assert second.history.curve[FIRST:] != first.history.curve[FIRST:]
    assert second.history.seconds > first.history.seconds - 60  # the pretraining's time is that of both
    alone = train(functions(1), tiny, tmp_path / "b" / "one")
    assert_same(second, alone)


def test_fine_tuning_starts_with_the_encoder_and_a_new_head(tiny: Prepared, tmp_path: Path) -> None:
    made = functions(3)
    train(made, tiny, tmp_path / "run")
    encoder = pretrained(tmp_path, made)
    first = pretraining_functions(made)
    loaded = Checkpoints(next(tmp_path.glob("pretraining-*")) / "checkpoints").load("latest", first.init())
    assert loaded is not None
    start, fresh = flatten(fine_tuning_state(loaded[0], made)), flatten(made.init())
    assert start.keys() == fresh.keys()
    for name, leaf in start.items():
        source = encoder if name.startswith(("params", "buffers", "step")) and "/head/" not in name else fresh
        np.testing.assert_array_equal(leaf, source[name])
    assert int(start["step"]) == FIRST
    assert any(name.startswith("buffers") for name in start)  # performer's random projections
    assert "params/symbol_head/kernel/value" in encoder
    assert "params/symbol_head/kernel/value" not in start


def test_labels_have_no_part_in_the_pretraining(tiny: Prepared, tmp_path: Path) -> None:
    split = tiny.splits["train"]
    relabelled = dataclasses.replace(split, labels=split.labels[::-1].copy())
    other = dataclasses.replace(tiny, splits={**tiny.splits, "train": relabelled})
    outcomes = [train(functions(), data, tmp_path / name / "run") for data, name in ((tiny, "a"), (other, "b"))]
    a, b = (pretrained(tmp_path / name, functions()) for name in "ab")
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    assert outcomes[0].history.curve[-1] != outcomes[1].history.curve[-1]


def test_the_loss_is_that_of_the_masked_positions() -> None:
    config = dataclasses.replace(tiny_config(), recipe=RECIPE)
    cosformer = mixers.resolve("cosformer").cls
    sizes = encoder_config(config, CARD, pretraining=True)
    model = Classifier(sizes, lambda dims, _, rngs: cosformer(dims, rngs=rngs), rngs=nnx.Rngs(0))
    ids, keys = (
        np.random.RandomState(0).randint(1, 16, (3, 14)).astype(np.int32),
        jax.random.split(jax.random.key(0), 3),
    )
    ids[:, 10:] = 0
    pretrain = objective(RECIPE, CARD, "full", pretraining=True)
    losses, correct = pretrain(model, ids, np.zeros(3, np.int32), None, keys)
    masked, chosen = map(np.asarray, corrupt(ids, keys, CARD.vocab_size, share=0.5, masked=1.0))
    logits = np.asarray(model.symbols(model.states(masked)[0]), np.float64)
    for i in range(3):
        true, predicted = ids[i][chosen[i]], logits[i][chosen[i]]
        assert 0 < len(true) < 10
        loss = np.log(np.exp(predicted).sum(-1)) - predicted[np.arange(len(true)), true]
        assert float(losses[i]) == pytest.approx(loss.mean(), rel=1e-5)
        assert float(correct[i]) == pytest.approx((predicted.argmax(-1) == true).mean())


@pytest.mark.parametrize("schedule", ["onecycle", "rsqrt", "cosine"])
def test_each_phase_has_the_whole_schedule(schedule: str) -> None:
    plain = dataclasses.replace(tiny_config().train, schedule=schedule, steps=1_000, warmup=200)
    part = compressed(plain, 400)
    assert (part.steps, part.warmup) == (400, 80)
    steps = np.array([0, 30, 79, 80, 200, 399])
    whole, short = learning_rate(plain), learning_rate(part)
    for step in steps:
        assert float(short(step)) == pytest.approx(float(whole(2.5 * step)), rel=0.03, abs=plain.learning_rate * 2e-3)


def test_the_time_limit_in_the_pretraining_and_a_single_step_are_refused(tiny: Prepared, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the time limit ended the pretraining at step 1 of 5; the same command resumes"):
        train(functions(), tiny, tmp_path / "run", max_minutes=1e-6)
    one = dataclasses.replace(tiny_config(**{"train.steps": 1}), recipe=RECIPE)
    with pytest.raises(ConfigError, match="must be at least 2"):
        StepFunctions(one, CARD)


def test_a_run_waits_for_the_process_that_pretrains(
    tiny: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    made = functions()
    train(made, tiny, tmp_path / "run")
    (place,) = tmp_path.glob("pretraining-*")
    held = run_lock(place)
    held.__enter__()
    monkeypatch.setattr(pretraining.time, "sleep", lambda _: held.__exit__(None, None, None))
    assert train(functions(1), tiny, tmp_path / "other").status == "complete"
    assert "another process pretrains this encoder; waiting" in capfd.readouterr().err
