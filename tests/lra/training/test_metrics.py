"""metrics.csv and the event files have every point of the curve once, however often a run was interrupted."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from lra.training import trainer
from lra.training.metrics import COLUMNS
from lra.training.step_functions import StepFunctions
from tasks.core import Prepared
from tasks.listops import CARD
from tests.lra.conftest import tiny_config


@pytest.mark.slow
def test_an_interrupted_run_writes_every_point_once(
    tiny: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_steps, calls = trainer.train_steps, 0

    def interrupted_once(*arguments):
        nonlocal calls
        calls += 1
        if calls == 10:  # after the checkpoint of step 8, before that of step 12
            raise KeyboardInterrupt
        return train_steps(*arguments)

    monkeypatch.setattr(trainer, "train_steps", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(StepFunctions(tiny_config(), CARD), tiny, tmp_path, tensorboard=True)
    outcome = trainer.train(StepFunctions(tiny_config(), CARD), tiny, tmp_path, tensorboard=True)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    history = outcome.history
    assert [[float(r["step"]), float(r["train_loss"]), float(r["train_accuracy"])] for r in rows] == history.curve
    validations = [r for r in rows if r["validation_loss"]]
    assert [[int(r["step"]), float(r["validation_loss"])] for r in validations] == [v[:2] for v in history.validation]
    steps = event_steps(tmp_path / "tensorboard", "train/loss")
    assert steps == list(range(1, 13))
    assert event_steps(tmp_path / "tensorboard", "validation/accuracy") == [4, 8, 12]


def event_steps(directory: Path, tag: str) -> list[int]:
    """The steps of a tag in the event files, in the order they were written."""
    from tensorboardX.proto.event_pb2 import Event

    steps = []
    for path in sorted(directory.glob("events.*"), key=lambda p: p.stat().st_mtime_ns):
        content, position = path.read_bytes(), 0
        while position < len(content):
            length = int.from_bytes(content[position : position + 8], "little")
            event = Event.FromString(content[position + 12 : position + 12 + length])
            position += 16 + length
            steps += [event.step for value in event.summary.value if value.tag == tag]
    return steps
