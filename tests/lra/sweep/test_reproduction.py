"""PASS and FAIL of a score that is expected: by complete runs alone, with the reason."""

from __future__ import annotations

from typing import Any

import pytest

import run_lra
from lra import config as cfg
from lra.config import Expected
from lra.data.prepare import prepare
from lra.errors import ConfigError
from lra.record.schema import RunRecord
from lra.sweep import reproduce as reproduction
from lra.sweep.reproduce import Verdict, compare_with_expected, reproduce
from tasks import load_task
from tasks.core import Prepared, Split
from tests.lra.leaderboard.test_leaderboard import run

EXPECTED = Expected(38.0, 1.0, "a paper")


def records(*accuracies: float | None, **other: Any) -> list[RunRecord]:
    return [run(a, seed=seed, **other).record for seed, a in enumerate(accuracies)]


def test_the_mean_over_seeds_is_judged() -> None:
    verdict = compare_with_expected(records(0.37, 0.385, 0.40), EXPECTED)
    assert verdict.passes
    assert verdict.text().splitlines() == [
        "listops cosformer under quick@2",
        "  expected  38 ± 1 (a paper)",
        "  reached   38.50 ± 1.50 (seed 0: 37.00, seed 1: 38.50, seed 2: 40.00)",
        "PASS",
    ]


@pytest.mark.parametrize(("accuracy", "reason"), [(0.36, "2.00 below"), (0.395, "1.50 above")])
def test_too_far_on_either_side_fails(accuracy: float, reason: str) -> None:
    verdict = compare_with_expected(records(accuracy), EXPECTED)
    assert not verdict.passes
    assert verdict.text().endswith(f"FAIL: {reason} the expected score; 1 is allowed")


def test_a_run_that_is_not_complete_fails_whatever_it_scored() -> None:
    truncated = run(0.38, status="truncated", seed=1).record
    verdict = compare_with_expected([*records(0.38), truncated], EXPECTED)
    assert verdict.reasons == ("seed 1 is truncated after 120 of 500 steps",)
    assert list(verdict.scores) == [0]
    (reason,) = compare_with_expected(records(None), EXPECTED).reasons
    assert "seed 0 is diverged" in reason


def test_what_a_reader_should_know_is_said() -> None:
    assert "generated sample" in compare_with_expected(records(0.38, source="sample"), EXPECTED).text()
    assert "unrecognised" in compare_with_expected(records(0.38, source="unrecognised copy 1234"), EXPECTED).text()
    assert "at chance: seed 0" in compare_with_expected(records(0.21), EXPECTED).text()


@pytest.fixture
def trained_seeds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that are trained, with a score of 33.4 % each."""
    seeds: list[int] = []

    def pretend(config: Any, max_minutes: float | None) -> dict[str, Any]:
        seeds.append(config.seed)
        return run(0.334, seed=config.seed).record

    monkeypatch.setattr(reproduction, "run_config", pretend)
    return seeds


def prepared(task: str, variant: str, source: str, sizes: dict[str, int] | None = None) -> Prepared:
    """Data of one byte an example, of the sizes of the task or others."""
    sizes = {**load_task(task).CARD.variants[variant].sizes, **(sizes or {})}
    splits = {name: Split.from_documents([b"0"] * n, [0] * n) for name, n in sizes.items()}
    return Prepared(task, variant, 1, source, "0" * 64, splits)


def test_seeds_are_run_and_only_what_is_expected(trained_seeds: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduction, "prepare", lambda *_, **__: prepared("listops", "short", "generated, seed 1806"))
    assert reproduce("listops", "cosformer", protocol="quick", seeds=3).passes
    assert trained_seeds == [0, 1, 2]
    with pytest.raises(ConfigError, match=r"no score of fnet is expected on listops under quick;.*cosformer"):
        reproduce("listops", "fnet", protocol="quick", seeds=1)
    with pytest.raises(ConfigError, match="--seeds 0"):
        reproduce("listops", "cosformer", protocol="quick", seeds=0)


@pytest.mark.parametrize(
    ("task", "protocol", "variant", "source", "sizes", "message"),
    [
        ("text", "quick", "cut", "official archive", {}, "the expected score is of data b90ad140, these are 00000000"),
        ("listops", "laptop", "full", "sample, seed 1805", {}, "the data here are the generated sample"),
        ("listops", "laptop", "full", "unrecognised copy 1", {"train": 7}, "the train split here has 7 examples"),
    ],
)
def test_a_score_of_other_data_is_neither_passed_nor_failed(
    trained_seeds: list[int],
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    protocol: str,
    variant: str,
    source: str,
    sizes: dict[str, int],
    message: str,
) -> None:
    monkeypatch.setattr(reproduction, "prepare", lambda *_, **__: prepared(task, variant, source, sizes))
    verdict = reproduce(task, "cosformer", protocol=protocol, seeds=1)
    assert trained_seeds == []  # hours, for nothing
    assert not verdict.passes
    last = verdict.text().splitlines()[-1]
    assert last.startswith(f"NOTHING EXPECTED: {message}")
    assert "FAIL" not in verdict.text()


def test_the_command_succeeds_for_a_pass_alone(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for verdict, status, message in (
        (Verdict("t", "m", "p@1", EXPECTED, {}, ()), 0, "PASS"),
        (Verdict("t", "m", "p@1", EXPECTED, {}, ("too low",)), 1, "FAIL: too low"),
        (Verdict("t", "m", "p@1", EXPECTED, {}, (), unjudged="other data"), 1, "NOTHING EXPECTED: other data"),
    ):
        monkeypatch.setattr(reproduction, "reproduce", lambda *_, verdict=verdict, **__: verdict)
        assert run_lra.main(["repro", "listops", "cosformer"]) == status
        assert capsys.readouterr().out.splitlines()[-1] == message


@pytest.mark.parametrize("task", ["text", "retrieval", "image"])
def test_what_was_measured_on_a_sample_is_expected_of_it(task: str) -> None:
    """Of the sample that is generated here, by its hash."""
    base = cfg.protocol(task, "quick")
    data = prepare(task, base.variant, "sample")
    assert base.expected["cosformer"].data_sha256 == data.sha256
