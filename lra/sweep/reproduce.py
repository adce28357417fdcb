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
    """The comparison of a score with the expected one.

    Attributes:
      scores: test accuracies in per cent by seed
      reasons: why it fails; none: it passes
      unjudged: why no score is expected of these data, so that nothing was run; "" if one is
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
        """Return the expected and the reached score, and a line with the verdict."""
        e, scores = self.expected, list(self.scores.values())
        each = ", ".join(f"seed {seed}: {score:.2f}" for seed, score in self.scores.items())
        lines = [
            f"{self.task} {self.mixer} under {self.protocol}",
            f"  expected  {e.score:g} ± {e.tolerance:g} ({e.source})",
        ]
        if scores:
            spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
            lines.append(f"  reached   {statistics.fmean(scores):.2f}{spread} ({each})")
        lines += [f"  note: {remark}" for remark in self.remarks]
        if self.unjudged:
            return "\n".join([*lines, f"NOTHING EXPECTED: {self.unjudged}"])
        return "\n".join([*lines, "PASS" if self.passes else f"FAIL: {'; '.join(self.reasons)}"])


def reproduce(task: str, mixer: str, *, protocol: str, seeds: int, max_minutes: float | None = None) -> Verdict:
    """Run the seeds 0 to seeds - 1 that are not complete, and compare their mean with the expected score.

    Nothing is run if the expected score is of other data than those available here.

    Raises:
      ConfigError: the task, mixer or protocol does not exist, or no score of that mixer is expected.
      DataError, RunError: as `lra.api.run`.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: at least 1")
    base = cfg.protocol(task, protocol)
    configs = [configure(task, mixer, protocol=protocol, seed=seed) for seed in range(seeds)]
    label = configs[0].mixer_label
    if label not in base.expected:
        known = ", ".join(base.expected) or "none"
        raise ConfigError(f"no score of {label} is expected on {task} under {protocol}; there are scores of: {known}")
    expected = base.expected[label]
    data = prepare(task, base.variant, base.source, progress=data_progress)
    if unjudged := other_data(expected, data, configs[0]):
        return Verdict(task, label, f"{base.name}@{base.version}", expected, {}, (), unjudged=unjudged)
    return compare_with_expected([run_config(config, max_minutes=max_minutes) for config in configs], expected)


def other_data(expected: Expected, data: Prepared, config: RunConfig) -> str:
    """Return why an expected score is not of these data; "" if it is."""
    if expected.data_sha256 is not None:
        if data.sha256 == expected.data_sha256:
            return ""
        return f"the expected score is of data {expected.data_sha256[:8]}, these are {data.sha256[:8]} ({data.source})"
    if data.source.startswith(SAMPLE):
        return "the data here are the generated sample, the expected score is of the task's own data"
    sizes = load_task(config.task).CARD.variants[config.variant].sizes
    for split, size in sizes.items():
        if len(data.splits[split]) != size:
            return (
                f"the {split} split here has {len(data.splits[split]):,} examples, that of the expected score {size:,}"
            )
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
        difference = statistics.fmean(complete.values()) - expected.score
        if abs(difference) > expected.tolerance:
            side = "above" if difference > 0 else "below"
            reasons.append(f"{abs(difference):.2f} {side} the expected score; {expected.tolerance:g} is allowed")
    remarks = []
    if chance := [str(r.seed) for r in records if r.test and r.test.is_at_chance]:
        remarks.append(f"at chance: seed {', '.join(chance)}")
    if column.source.startswith(SAMPLE):
        remarks.append("the data are the generated sample, not the official files")
    elif "unrecognised" in column.source:
        remarks.append(f"the data are an {column.source}: not the official files")
    name = f"{column.protocol}@{column.protocol_version}"
    return Verdict(column.task, mixer, name, expected, complete, tuple(reasons), tuple(remarks))
