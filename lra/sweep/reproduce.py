"""`run_lra.py repro`: complete the missing runs and compare their mean score with the expected one of a protocol."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

from lra import config as cfg
from lra.api import configure, run_config
from lra.config import Expected, RunConfig
from lra.data.prepare import prepare
from lra.errors import ConfigError
from lra.record.schema import RunRecord
from lra.runtime.progress import data_progress
from tasks import load_task
from tasks.core import SAMPLE, Prepared


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a score came out as expected.

    scores:   test accuracies in per cent by seed
    reasons:  why it fails; none: it passes
    unjudged: why nothing is expected of the data here, so that nothing was run; "": something is
    """

    task: str
    mixer: str
    protocol: str
    expected: Expected
    scores: Mapping[int, float]
    reasons: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    unjudged: str = ""

    @property
    def passes(self) -> bool:
        return not self.reasons and not self.unjudged

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
        if self.unjudged:
            return "\n".join([*lines, f"NOTHING EXPECTED: {self.unjudged}"])
        return "\n".join([*lines, "PASS" if self.passes else f"FAIL: {'; '.join(self.reasons)}"])


def reproduce(task: str, mixer: str, *, protocol: str, seeds: int, max_minutes: float | None = None) -> Verdict:
    """Run the seeds 0 to seeds - 1 that are not complete, and compare their mean with what is expected.

    Nothing is run if the score that is expected is one of other data than those here.

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
    expected = base.expected[label]
    data = prepare(task, base.variant, allow_sample=base.allow_sample, progress=data_progress)
    if unjudged := other_data(expected, data, configs[0]):
        return Verdict(task, label, f"{base.name}@{base.version}", expected, {}, (), unjudged=unjudged)
    return compare_with_expected([run_config(config, max_minutes=max_minutes) for config in configs], expected)


def other_data(expected: Expected, data: Prepared, config: RunConfig) -> str:
    """Return why an expected score is not one of these data; "" if it is."""
    if expected.data_sha256 is not None:
        if data.sha256 == expected.data_sha256:
            return ""
        return f"the score is one of data {expected.data_sha256[:8]}, and these are {data.sha256[:8]} ({data.source})"
    if data.source.startswith(SAMPLE):
        return "the data here are the generated sample, and the score is one of the task's own data"
    sizes = load_task(config.task).CARD.variants[config.variant].sizes
    for split, size in sizes.items():
        if len(data.splits[split]) != size:
            return f"the {split} split here has {len(data.splits[split]):,} examples, that of the score {size:,}"
    return ""


def compare_with_expected(records: Sequence[RunRecord], expected: Expected) -> Verdict:
    """Return the verdict on runs of one configuration that differ in their seeds alone."""
    column, mixer = records[0].column, records[0].mixer.label
    complete = {r.seed: 100 * r.test.accuracy for r in records if r.test and r.status == "complete"}
    reasons = [
        f"seed {r.seed} is {r.status} after {r.steps.done:,} of {r.steps.planned:,} steps"
        for r in records
        if r.status != "complete"
    ]
    if complete:
        apart = statistics.fmean(complete.values()) - expected.score
        if abs(apart) > expected.tolerance:
            side = "above" if apart > 0 else "below"
            reasons.append(f"{abs(apart):.2f} {side} what is expected, where {expected.tolerance:g} is allowed")
    remarks = []
    if chance := [str(r.seed) for r in records if r.test and r.test.is_at_chance]:
        remarks.append(f"at chance: seed {', '.join(chance)}")
    if column.source.startswith(SAMPLE):
        remarks.append("the data are the generated sample, not the official files")
    elif "unrecognised" in column.source:
        remarks.append(f"the data are an {column.source}: not the official files")
    name = f"{column.protocol}@{column.protocol_version}"
    return Verdict(column.task, mixer, name, expected, complete, tuple(reasons), tuple(remarks))
