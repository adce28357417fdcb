"""Several seeds in one program, several steps in one dispatch: the runs that they are alone, step by step."""

from __future__ import annotations

import dataclasses
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra import api, config_file, finished
from lra.errors import RunError
from lra.record import files as record
from lra.training import trainer
from lra.training.checkpoints import Checkpoints
from lra.training.evaluation import Resident
from lra.training.gradient import gradient
from lra.training.multi_seed import Together
from lra.training.step_functions import Program
from lra.training.trainer import train, train_program
from models.mixers import version_of
from tasks.listops import CARD
from tests.lra.conftest import leaves, tiny_config


def assert_the_same_run(got, want):
    assert got.status == want.status == "complete"
    np.testing.assert_allclose(got.journal.curve, want.journal.curve, rtol=1e-3)
    np.testing.assert_allclose(got.journal.validation, want.journal.validation, rtol=1e-3)
    assert got.selected_step == want.selected_step
    assert (got.test.predictions == want.test.predictions).mean() >= 0.98


@pytest.mark.parametrize("mixer", ["cosformer", "softmax"])
def test_seeds_together_are_the_seeds_alone(tiny, tmp_path, mixer):
    """Parameters, batches, dropout, selection and test; a micro-batch is as long as its longest seed asks."""
    alone = tiny_config(mixer)
    places = [tmp_path / f"of {seed}" for seed in (3, 5)]
    outcomes = train_program(Together(alone, CARD, (3, 5)), CARD, tiny, tmp_path / "all", places)
    for seed, got in zip((3, 5), outcomes, strict=True):
        assert_the_same_run(got, train(dataclasses.replace(alone, seed=seed), CARD, tiny, tmp_path / f"alone {seed}"))
    assert outcomes[0].journal.curve != outcomes[1].journal.curve


def test_the_gradient_of_each_seed_is_its_own(tiny):
    together = Together(tiny_config(), CARD, (0, 1, 2))
    split, state = Resident.of(tiny.splits["train"], together), together.init()
    both = gradient(together, state, split)
    for number, seed in enumerate(together.seeds):
        one = Program(dataclasses.replace(tiny_config(), seed=seed), CARD)
        for a, b in zip(leaves(one.init()), leaves(together.of_seed(state, number)), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-7)
        want = gradient(one, one.init(), split)
        for a, b in zip(leaves(want), [leaf[:, number] for leaf in leaves(both)], strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)
    back = together.joined([together.of_seed(state, number) for number in range(3)])
    for a, b in zip(leaves(state), leaves(back), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_seed_that_diverges_takes_no_other_with_it(tiny, tmp_path, monkeypatch):
    program = Together(tiny_config(), CARD, (0, 1))
    healthy = program.init()

    def poisoned():
        return healthy._replace(params=jax.tree.map(lambda leaf: leaf.at[0].mul(jnp.nan), healthy.params))

    monkeypatch.setattr(program, "init", poisoned)
    bad, good = train_program(program, CARD, tiny, tmp_path / "all", [tmp_path / "a", tmp_path / "b"])
    assert (bad.status, bad.test, bad.steps_done) == ("diverged", None, 0)
    assert "not a number at step 0" in bad.message
    assert good.status == "complete"
    assert np.isfinite(good.journal.curve).all()
    assert good.test.accuracy > 0


@pytest.mark.parametrize("at_once", [1, 3])
def test_an_interruption_changes_no_seed(tiny, tmp_path, monkeypatch, at_once):
    """With three steps in a dispatch the last one before a validation is short, wherever it was interrupted."""
    program = Together(tiny_config(**{"train.dispatch_steps": at_once}), CARD, (0, 1))

    def go(name):
        places = [tmp_path / name / "0", tmp_path / name / "1"]
        return train_program(program, CARD, tiny, tmp_path / name, places)

    whole, calls, real = go("whole"), 0, trainer.advance

    def interrupting(*arguments):
        nonlocal calls
        calls += 1
        if calls in (2, 4):
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(trainer, "advance", interrupting)
    ends = []
    while not ends or ends[-1][0].status == "interrupted":
        ends.append(go("parts"))
    assert len(ends) == 3
    for got, want in zip(ends[-1], whole, strict=True):
        np.testing.assert_array_equal(got.test.predictions, want.test.predictions)
        assert got.journal.curve == want.journal.curve
        assert got.journal.validation == want.journal.validation
    states = []
    for name in ("whole", "parts"):
        with Checkpoints(tmp_path / name / "checkpoints") as checkpoints:
            states.append(checkpoints.load("latest", program.init())[0])
    for a, b in zip(*map(leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)


def test_several_steps_in_a_dispatch_are_those_steps(tiny, tmp_path):
    one = train(tiny_config(), CARD, tiny, tmp_path / "one")
    four = tiny_config(**{"train.dispatch_steps": 4})
    assert four.sha256 == tiny_config().sha256  # how it is executed, not what is computed
    assert_the_same_run(train(four, CARD, tiny, tmp_path / "four"), one)


def test_each_seed_has_a_record_of_its_own(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("LRA_RUNS", str(tmp_path))
    for module in (api, finished):
        monkeypatch.setattr(module, "prepare", lambda *_, **__: tiny)
        monkeypatch.setattr(module, "use_compilation_cache", lambda: None)
    first = api.run_config(tiny_config())
    both = api.run_seeds(tiny_config(), [0, 1, 2])
    assert both[0] == first  # a complete run is not repeated
    assert [r["seed"] for r in both] == [0, 1, 2]
    assert [r["seeds_together"] for r in both] == [1, 2, 2]
    assert [r["mixer"]["version"] for r in both] == [version_of("cosformer")] * 3
    found = {f.record["id"]: f.record for f in record.find([(tmp_path, "yours")])}
    assert found == {r["id"]: r for r in both}
    for r in both[1:]:
        again, _ = finished.evaluate_run(r["id"])
        assert again.correct.sum() == r["test"]["correct"]
        assert config_file.from_json(r["config"] | {"mixer": "cosformer"}).seed == r["seed"]
    (tmp_path / both[1]["id"] / "records" / f"{both[1]['id']}.json").unlink()
    begun = tmp_path / both[1]["id"] / "checkpoints" / "latest"
    begun.mkdir()
    (tmp_path / both[2]["id"] / "records" / f"{both[2]['id']}.json").unlink()
    with pytest.raises(RunError, match=r"begun alone: listops.*-s1-"):
        api.run_seeds(tiny_config(), [1, 2])
