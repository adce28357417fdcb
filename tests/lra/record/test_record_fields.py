"""Each field of a run's record says what it is called, of the run that it is of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lra import api
from lra.config import RunConfig, hashed_fields
from lra.errors import Interrupted, RunError
from lra.provenance.code import computing
from lra.provenance.environment import environment
from lra.provenance.sessions import continued
from lra.record import files as record
from lra.training.evaluation import Evaluation
from lra.training.history import History
from lra.training.trainer import Outcome
from tasks.core import SPLITS, Prepared, Split
from tests.lra import recording

LIMIT = 40
SMALL = {"model.layers": 1, "model.d_model": 6, "model.heads": 1, "model.qkv_dim": 6, "model.mlp_dim": 4}
# Among the first 40 labels of test, class 3 is the most frequent one with 16, as it is in train; among all, class 7 is.
LABELS = np.array([3] * 16 + [0, 1, 2, 4, 5, 6] * 4 + [7] * 30, np.uint8)


def prepared() -> Prepared:
    documents = [b"\x01\x02"] * len(LABELS)
    train = Split.from_documents(documents, np.roll(np.array([3] * 60 + [1] * 10, np.uint8), 1))
    splits = dict.fromkeys(SPLITS, train) | {"test": Split.from_documents(documents, LABELS)}
    return Prepared("listops", "full", 1, "somewhere", "5" * 64, splits)


def configured(mixer: str = "local", options: Any = ("window=8",), **other: Any) -> RunConfig:
    overrides = SMALL | {"train.steps": 90, "train.eval_every": 30}
    return api.configure(
        "listops", mixer, protocol="small", seed=2, options=options, limit=LIMIT, overrides=overrides, **other
    )


def outcome(config: RunConfig, correct: int, **changes: Any) -> Outcome:
    """What a run of 90 steps might come to: `correct` of the first examples are right, the others are called 9."""
    labels = LABELS[:LIMIT]
    predictions = np.where(np.arange(LIMIT) < correct, labels, 9).astype(np.uint8)
    validation = [[30, 1.5, 0.25], [60, 1.25, 0.75], [90, 1.125, 0.5]]
    history = History(90, curve=[[1, 2.5, 0.125], [90, 1.0, 0.875]], validation=validation, seconds=12.5)
    given: dict[str, Any] = {
        **{"status": "complete", "steps_done": 90, "history": history, "parameters": 7_777},
        **{"forward_flops": 4096.0, "selected_step": 60, "test": Evaluation(predictions, labels, 1.75)},
        **{"steps_per_second": 8.25, "peak_bytes": 7_000_000, "sessions": continued((), 0)},
    }
    return Outcome(**{**given, **changes})


Train = Callable[..., Outcome]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Train], None]:
    """Sets what stands for the training of a run."""
    monkeypatch.setenv("LRA_RUNS", str(tmp_path))
    monkeypatch.setattr(api, "prepare", lambda *_, **__: prepared())
    monkeypatch.setattr(api, "use_compilation_cache", lambda: None)
    return lambda function: monkeypatch.setattr(api, "train_in_memory", function)


@pytest.mark.parametrize(("correct", "at_chance"), [(22, True), (23, False)])  # 0.4 + 2 sqrt(0.24 / 40) is 0.5549
def test_of_a_complete_run(trained: Callable[[Train], None], tmp_path: Path, correct: int, at_chance: bool) -> None:
    seen: list[Any] = []

    def train(functions: Any, data: Any, directory: Path, *, max_minutes: float | None, **_: Any) -> Outcome:
        seen.extend((functions.config, directory, max_minutes))
        return outcome(functions.config, correct)

    trained(train)
    config = configured()
    made = api.run_config(config, max_minutes=7.5)
    name = config.run_id("5" * 64, computing(config).sha256)
    assert seen == [config, tmp_path / name, 7.5]
    assert RunConfig.read(tmp_path / name / "config.json") == config
    assert record.read(tmp_path / name / "records" / f"{name}.json") == made
    confusion = np.zeros((10, 10), int)
    for i, label in enumerate(LABELS[:LIMIT]):
        confusion[label, label if i < correct else 9] += 1
    wanted: dict[str, Any] = {
        **{"schema": 1, "kind": "run", "status": "complete", "id": name, "seed": 2, "message": ""},
        "column": {
            **{"task": "listops", "variant": "full", "task_version": config.task_version, "source": "somewhere"},
            **{"data_sha256": "5" * 64, "protocol": "small", "protocol_version": config.protocol_version},
            "modified": True,
        },
        "steps": {"done": 90, "planned": 90},
        "config": json.loads(json.dumps(hashed_fields(config))),
        "config_sha256": config.sha256,
        **{"forward_flops": 4096.0, "majority_accuracy": 0.4, "seconds": 12.5},
        **{"chance": 0.4, "steps_per_second": 8.25, "peak_bytes": 7_000_000},
        "selection": {"rule": "validation", "step": 60, "best_step": 60},
        "validation": [[30, 1.5, 0.25], [60, 1.25, 0.75], [90, 1.125, 0.5]],
        "curve": [[1, 2.5, 0.125], [90, 1.0, 0.875]],
    }
    fields = made.as_json()
    assert {field: fields[field] for field in wanted} == wanted
    scores = {"accuracy": correct / 40, "correct": correct, "count": 40, "loss": 1.75, "at_chance": at_chance}
    scores["confusion"] = confusion.tolist()  # rows are the true classes
    assert {field: fields["test"][field] for field in scores} == scores
    mixer = {"name": "local", "label": "local(window=8)", "options": {"window": 8}, "sha256": None}
    assert {field: fields["mixer"][field] for field in mixer} == mixer
    here = environment()
    assert {field: fields["environment"][field] for field in here} == here
    assert made.parameters == 7_777


def test_of_a_diverged_run_with_a_mixer_from_a_file(trained: Callable[[Train], None], tmp_path: Path) -> None:
    """It is recorded, and ends in an error."""
    config = configured(recording.SPEC, ())
    changes = {"status": "diverged", "test": None, "selected_step": None, "steps_done": 31, "message": "why"}
    trained(lambda functions, *_, **__: outcome(functions.config, 0, **changes))
    with pytest.raises(RunError, match=r"-s2-\S+: why$"):
        api.run_config(config)
    (found,) = record.find([(tmp_path, "yours")])
    made = found.record
    assert (made.test, made.message, made.steps.as_json()) == (None, "why", {"done": 31, "planned": 90})
    assert made.selection.as_json() == {"rule": "validation", "step": None, "best_step": 60}
    mixer = {"name": recording.SPEC, "options": {}, "sha256": config.mixer_sha256}
    assert {field: getattr(made.mixer, field) for field in mixer} == mixer
    assert made.mixer.label == f"{recording.SPEC}@{str(config.mixer_sha256)[:8]}"


def test_of_a_run_that_was_stopped(trained: Callable[[Train], None], tmp_path: Path) -> None:
    trained(lambda functions, *_, **__: outcome(functions.config, 23, status="truncated", steps_done=61))
    made = api.run_config(configured())
    assert (made.status, made.steps.as_json()) == ("truncated", {"done": 61, "planned": 90})
    (path,) = tmp_path.glob("*/records/*.json")
    assert path.name == f"{made.id}-truncated-61.json"
    trained(lambda functions, *_, **__: outcome(functions.config, 23, status="interrupted", message="by a signal"))
    with pytest.raises(Interrupted, match=f"{made.id}: by a signal; the same command"):
        api.run_config(configured())
    assert list(tmp_path.glob("*/records/*.json")) == [path]
