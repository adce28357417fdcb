"""PASS and FAIL of a score that is expected: by complete runs alone, with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from lra import reproduction
from lra.config import ConfigError, Expected
from lra.reproduction import judge, reproduce
from tests.lra.test_leaderboard import run

EXPECTED = Expected(38.0, 1.0, "a paper")


def records(*accuracies: float | None, **other: Any) -> list[dict[str, Any]]:
    return [run(a, seed=seed, **other).record for seed, a in enumerate(accuracies)]


def test_the_mean_over_seeds_is_judged() -> None:
    verdict = judge(records(0.37, 0.385, 0.40), EXPECTED)
    assert verdict.passes
    assert verdict.text().splitlines() == [
        "listops cosformer under quick@1",
        "  expected  38 ± 1 (a paper)",
        "  came out  38.50 ± 1.50 (seed 0: 37.00, seed 1: 38.50, seed 2: 40.00)",
        "PASS",
    ]


@pytest.mark.parametrize(("accuracy", "reason"), [(0.36, "2.00 below"), (0.395, "1.50 above")])
def test_too_far_on_either_side_fails(accuracy: float, reason: str) -> None:
    verdict = judge(records(accuracy), EXPECTED)
    assert not verdict.passes
    assert verdict.text().endswith(f"FAIL: {reason} what is expected, where 1 is allowed")


def test_a_run_that_is_not_complete_fails_whatever_it_scored() -> None:
    truncated = run(0.38, status="truncated", seed=1).record
    verdict = judge([*records(0.38), truncated], EXPECTED)
    assert verdict.reasons == ("seed 1 is truncated after 120 of 1,200 steps",)
    assert list(verdict.scores) == [0]
    (reason,) = judge(records(None), EXPECTED).reasons
    assert "seed 0 is diverged" in reason


def test_what_a_reader_should_know_is_said() -> None:
    assert "generated sample" in judge(records(0.38, source="sample"), EXPECTED).text()
    assert "unrecognised" in judge(records(0.38, source="unrecognised copy 1234"), EXPECTED).text()
    assert "at chance: seed 0" in judge(records(0.21), EXPECTED).text()


def test_seeds_are_run_and_only_what_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    def pretend(config: Any, max_minutes: float | None) -> dict[str, Any]:
        seeds.append(config.seed)
        return run(0.361, seed=config.seed).record

    monkeypatch.setattr(reproduction, "run_config", pretend)
    assert reproduce("listops", "cosformer", protocol="quick", seeds=3).passes
    assert seeds == [0, 1, 2]
    with pytest.raises(ConfigError, match=r"expected of fnet on listops under quick; there are .* cosformer"):
        reproduce("listops", "fnet", protocol="quick", seeds=1)
    with pytest.raises(ConfigError, match="--seeds 0"):
        reproduce("listops", "cosformer", protocol="quick", seeds=0)
