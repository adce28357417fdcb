"""What differs on an accelerator, tested on a CPU: micro-batches, dispatches, memory, several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lra.errors import RunError
from lra.runtime import distributed
from lra.runtime.distributed import Agreement
from lra.training import memory, step_functions
from lra.training.memory import train_in_memory
from lra.training.step_functions import StepFunctions
from lra.training.train_step import gradient, micro_batch_stacks
from lra.training.trainer import train
from tasks.core import Prepared
from tasks.image import CARD as IMAGE
from tasks.listops import CARD
from tests.lra.conftest import leaves, tiny_config


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_functions, "on_accelerator", lambda: True)


def test_the_gradient_is_that_of_a_cpu(tiny: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config("softmax")

    def of(functions: StepFunctions) -> Any:
        return gradient(functions, functions.init(), functions.dataset(tiny.splits["train"]))

    expected = jax.tree.map(lambda total: np.asarray(total).sum(0), of(StepFunctions(config, CARD)))
    monkeypatch.setattr(step_functions, "on_accelerator", lambda: True)
    functions = StepFunctions(config, CARD)
    assert functions.micro_batch == functions.devices * max(1, 8 // functions.devices // 4)
    found = jax.tree.map(lambda total: np.asarray(total).sum(0), of(functions))
    for a, b in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_no_loop_has_a_length_that_the_host_would_wait_for(tiny: Prepared, accelerator: None) -> None:
    functions = StepFunctions(tiny_config("linear"), CARD)
    dataset = functions.dataset(tiny.splits["train"])
    stacks = list(micro_batch_stacks(functions, 0, dataset))
    assert len(stacks) == functions.micro_batches_per_step
    assert all(stack.count is None and stack.indices.shape == (1, functions.micro_batch) for _, stack in stacks)


def test_images_are_one_micro_batch(accelerator: None) -> None:
    functions = StepFunctions(tiny_config("linear", max_len=1024), IMAGE)
    assert functions.micro_batch == functions.config.train.batch_size


OUT_OF_MEMORY = "RESOURCE_EXHAUSTED: Out of memory allocating 12345 bytes.\nmore"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of micro-batches that do not fit into memory; those that were tried are appended."""
    tried: list[int] = []

    def limited(functions: StepFunctions, *arguments: Any, **options: Any) -> Any:
        tried.append(functions.micro_batch)
        if functions.micro_batch > 2:
            raise jax.errors.JaxRuntimeError(OUT_OF_MEMORY)
        return train(functions, *arguments, **options)

    monkeypatch.setattr(memory, "train", limited)
    return tried


def test_micro_batches_are_halved_until_they_fit(
    tiny: Prepared, tmp_path: Path, failing: list[int], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(step_functions, "micro_batch_size", lambda size, *_, **__: size)
    functions = StepFunctions(tiny_config("linear"), CARD)
    outcome = train_in_memory(functions, tiny, tmp_path / "halved")
    assert failing == [8, 4, 2]
    assert "out of memory with micro-batches of 8 examples; 4 are tried\n" in capsys.readouterr().err
    chosen = StepFunctions(tiny_config("linear", **{"train.micro_batch": 2}), CARD)
    assert outcome.history.curve == train(chosen, tiny, tmp_path / "chosen").history.curve


def test_a_micro_batch_that_the_user_has_set_is_kept(tiny: Prepared, tmp_path: Path, failing: list[int]) -> None:
    functions = StepFunctions(tiny_config("linear", **{"train.micro_batch": 4}), CARD)
    with pytest.raises(RunError, match=r"out of memory \(RESOURCE_EXHAUSTED: .* 12345 bytes\.\); try --train\.micro-b"):
        train_in_memory(functions, tiny, tmp_path)
    assert failing == [4]


def test_processes_ask_each_other_every_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process needs 0.1 s for a step, this one 0.05 s; the other one wants to stop from step 22 on."""
    asked: list[int] = []
    step = 0

    def gather(mine: np.ndarray) -> np.ndarray:
        asked.append(step)
        return np.stack([mine, np.array([step >= 22, 0.1], np.float32)])

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(distributed.multihost_utils, "process_allgather", gather)
    agreement, answers = Agreement(), {}
    for step in range(1, 50):
        (answers[step],) = agreement.any_process(step, 0.05, False)
    assert asked == [1, 21, 41]
    assert [s for s, stop in answers.items() if stop] == [41]


def test_one_process_decides_alone_and_at_once() -> None:
    assert Agreement().any_process(3, 0.1, True, False) == (True, False)
