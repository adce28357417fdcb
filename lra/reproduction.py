"""`run_lra.py repro`: runs what is missing, and says whether a score that is expected of a protocol comes out."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lra import config as cfg
from lra import record as rec
from lra.api import configure, run_config
from lra.config import ConfigError, Expected
from tasks.core import SAMPLE


@dataclasses.dataclass(frozen=True)
class Verdict:
    """scores: test accuracies in per cent by seed. reasons: why it fails; none: it passes."""

    task: str
    mixer: str
    protocol: str
    expected: Expected
    scores: Mapping[int, float]
    reasons: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @property
    def passes(self) -> bool:
        return not self.reasons

    def text(self) -> str:
        """What was expected, what came out, and one line of verdict."""
        e, scores = self.expected, list(self.scores.values())
        each = ", ".join(f"seed {seed}: {score:.2f}" for seed, score in self.scores.items())
        lines = [
            f"{self.task} {self.mixer} under {self.protocol}",
            f"  expected  {e.score:g} ± {e.tolerance:g} ({e.source})",
        ]
        if scores:
            spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
            lines.append(f"  came out  {statistics.fmean(scores):.2f}{spread} ({each})")
        lines += [f"  note: {remark}" for remark in self.remarks]
        return "\n".join([*lines, "PASS" if self.passes else f"FAIL: {'; '.join(self.reasons)}"])


def reproduce(task: str, mixer: str, *, protocol: str, seeds: int, max_minutes: float | None = None) -> Verdict:
    """Runs the seeds 0 .. seeds - 1 that are not complete yet, and holds their mean against what is expected.

    Raises:
      ConfigError: there is no such task, mixer or protocol, or nothing is expected of that mixer under it.
      DataError, RunError: as `lra.api.run`.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: at least 1")
    base = cfg.protocol(task, protocol)
    configs = [configure(task, mixer, protocol=protocol, seed=seed) for seed in range(seeds)]
    label = configs[0].mixer_label
    if label not in base.expected:
        there = ", ".join(base.expected) or "none"
        raise ConfigError(f"nothing is expected of {label} on {task} under {protocol}; there are figures of: {there}")
    records = [run_config(config, max_minutes=max_minutes) for config in configs]
    return judge(records, base.expected[label])


def judge(records: Sequence[Mapping[str, Any]], expected: Expected) -> Verdict:
    """The verdict on runs of one configuration that differ in their seeds alone."""
    column, mixer = records[0]["column"], records[0]["mixer"]["label"]
    complete = {r["seed"]: 100 * r["test"]["accuracy"] for r in records if r["status"] == "complete"}
    reasons = [
        f"seed {r['seed']} is {r['status']} after {r['steps']['done']:,} of {r['steps']['planned']:,} steps"
        for r in records
        if r["status"] != "complete"
    ]
    if complete:
        apart = statistics.fmean(complete.values()) - expected.score
        if abs(apart) > expected.tolerance:
            side = "above" if apart > 0 else "below"
            reasons.append(f"{abs(apart):.2f} {side} what is expected, where {expected.tolerance:g} is allowed")
    remarks = []
    if chance := [str(r["seed"]) for r in records if r["test"] and rec.is_at_chance(r["test"])]:
        remarks.append(f"at chance: seed {', '.join(chance)}")
    if column["source"].startswith(SAMPLE):
        remarks.append("the data are the generated sample, not the official files")
    elif "unrecognised" in column["source"]:
        remarks.append(f"the data are an {column['source']}: not the official files")
    name = f"{column['protocol']}@{column['protocol_version']}"
    return Verdict(column["task"], mixer, name, expected, complete, tuple(reasons), tuple(remarks))
