"""The learning rate is chosen on validation, whatever the test says, and the board shows what was tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lra import sweep, tuning
from lra.config import protocol
from lra.interrupt import RunError
from lra.leaderboard import board
from lra.record import Found, find
from tests.lra.test_leaderboard import run

RATE = protocol("listops", "quick").train.learning_rate


def trial(rate: float, validation: float, test: float | None, seed: int = 0, mixer: str = "cosformer") -> Found:
    overrides = {} if rate == RATE else {"train.learning_rate": rate}
    return run(test, mixer=mixer, seed=seed, overrides=overrides, validation=[[10, 2.0, 0.1], [20, 1.5, validation]])


def records(*found: Found) -> dict[float, dict[str, Any]]:
    return {f.record["config"]["train"]["learning_rate"]: f.record for f in found}


def test_the_grid_has_the_protocols_rate() -> None:
    assert tuning.grid("listops", "quick")[1] == RATE
    configs = tuning.trials("listops", "cosformer", "quick")
    assert list(configs) == tuning.grid("listops", "quick")
    assert [c.modified for c in configs.values()] == [True, False, True]


def test_validation_chooses() -> None:
    assert tuning.choose(records(trial(0.1, 0.30, 0.9), trial(0.2, 0.40, 0.1))) == 0.2
    assert tuning.choose(records(trial(0.2, 0.40, 0.1), trial(0.1, 0.40, 0.1))) == 0.1  # equals: the smaller
    assert tuning.choose(records(trial(0.1, 0.30, 0.9), trial(0.2, 0.99, None))) == 0.1  # diverged
    with pytest.raises(RunError, match=r"every rate of 0.1, 0.2 diverged"):
        tuning.choose(records(trial(0.1, 0.3, None), trial(0.2, 0.3, None)))


def test_a_choice_is_recorded_once_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRA_RUNS", str(tmp_path))
    tried = [trial(0.3 * RATE, 0.3, 0.39), trial(RATE, 0.2, 0.2), trial(3 * RATE, 0.4, 0.35)]
    assert tuning.write_tuning(records(*tried)) == pytest.approx(3 * RATE)
    before = [path.read_bytes() for path in sorted(tmp_path.rglob("*.json"))]
    tuning.write_tuning(records(*tried))
    assert [path.read_bytes() for path in sorted(tmp_path.rglob("*.json"))] == before
    (choice,) = find([(tmp_path, "yours")])
    assert [t["validation"] for t in choice.record["trials"]] == [0.3, 0.2, 0.4]

    others = [trial(3 * RATE, 0.4, 0.37, seed=1), trial(3 * RATE, 0.4, 0.3, mixer="softmax")]
    made = board([*tried, *others, choice])
    tracks = {t.track: t for t in made.tables}
    assert list(tracks) == ["matched", "tuned", "modified"]
    (row,) = tracks["tuned"].rows
    assert (row.label, row.changes) == ("cosformer", ("3 learning rates tried",))
    assert row.cells[0] is not None
    assert row.cells[0].accuracies == (0.35, 0.37)
    assert len(tracks["matched"].rows) == 1
    assert len(made.found) == len(tried) + len(others)  # each record once


def test_a_choice_counts_where_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Your own tuning says nothing of committed runs."""
    monkeypatch.setenv("LRA_RUNS", str(tmp_path))
    tried = [trial(0.3 * RATE, 0.3, 0.39), trial(RATE, 0.2, 0.2), trial(3 * RATE, 0.4, 0.35)]
    tuning.write_tuning(records(*tried))
    committed = [Found(f.record, "committed", f.path) for f in tried]
    assert [t.track for t in board([*committed, *find([(tmp_path, "yours")])]).tables] == ["matched", "modified"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The words of every `train` that a suite starts, instead of starting it."""
    words: list[list[str]] = []

    def train(place: str, command: list[str]) -> list[str]:
        words.append(command)
        return []

    monkeypatch.setattr(sweep, "_train", train)
    monkeypatch.setattr(sweep, "write_floors", lambda *_: [])
    return words


def rate_of(words: list[str]) -> str | None:
    return words[words.index("--train.learning-rate") + 1] if "--train.learning-rate" in words else None


def test_a_suite_trains_seeds_together(started: list[list[str]]) -> None:
    assert sweep.suite(["listops"], ["cosformer", "fnet"], protocol="quick", seeds=3, together=True) == []
    assert [words[-2:] for words in started] == [["--together", "3"]] * 2
    sweep.suite(["listops"], ["cosformer"], protocol="quick", together=True)
    assert started[-1][-2:] == ["--seed", "0"]


def test_a_suite_goes_on_with_the_best_rate(started: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    reached = iter([0.3, 0.2, 0.4])
    monkeypatch.setattr(
        tuning, "run_record", lambda config, _: trial(config.train.learning_rate, next(reached), 0.1).record
    )
    monkeypatch.setattr(tuning, "write_tuning", tuning.choose)
    assert sweep.suite(["listops"], ["cosformer"], protocol="quick", seeds=2, tune=True) == []
    rates = [str(rate) for rate in tuning.grid("listops", "quick")]
    assert [rate_of(words) for words in started] == [*rates, rates[2], rates[2]]
    assert [words[-1] for words in started[3:]] == ["0", "1"]


def test_nothing_is_chosen_from_half_a_grid(started: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "run_record", lambda *_: None)
    (failed,) = sweep.suite(["listops"], ["cosformer"], protocol="quick", tune=True)
    assert "not every rate of the grid came to its end" in failed
    assert len(started) == 3


def test_without_a_validation_split_the_protocols_rate_stays(started: list[list[str]], capsys: Any) -> None:
    sweep.suite(["text"], ["cosformer"], protocol="quick", tune=True)
    assert [rate_of(words) for words in started] == [None]
    assert "text has no validation split to choose a rate by" in capsys.readouterr().err
