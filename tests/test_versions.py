"""docs/versions.md lists every version above 1 and how many committed records each of them retired."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from lra import config as cfg
from lra.paths import results_directory
from lra.record import files as record
from lra.record.baseline_models import DETERMINISTIC, FITTED
from lra.record.baseline_models import version_of as rule_version
from lra.record.facts import retired
from models.mixer_files import available, version_of
from tasks import load_task

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "versions.md").read_text("utf-8")
ROWS = {
    (kind, name + task): (int(version), sum(map(int, re.findall(r"\d+", count))))
    for kind, name, task, version, count in re.findall(
        r"^\| (protocol|task|mixer|trivial baseline) `([^`]+)`((?:, \w+)?) \| (\d+) \|.*\| ([^|]+) \|$",
        PAGE,
        re.MULTILINE,
    )
}


def protocol_row(name: str, task: str) -> str:
    """The row of a protocol, which has a row for each task if its versions differ between them."""
    one_version = len({base.version for base in cfg.protocols_named(name)}) == 1
    return name if one_version else f"{name}, {load_task(task).CARD.title}"


def test_every_version_above_one_has_a_row_and_no_other() -> None:
    now = {
        ("protocol", protocol_row(name, task)): cfg.protocol(task, name).version
        for task in cfg.TASKS
        for name in cfg.protocols(task)
    }
    now |= {("task", name): load_task(name).CARD.version for name in cfg.TASKS}
    now |= {("mixer", name): version_of(name) for name in available()}
    now |= {("trivial baseline", name): rule_version(name) for name in (*DETERMINISTIC, *FITTED)}
    assert {key: version for key, (version, _) in ROWS.items()} == {k: v for k, v in now.items() if v > 1}


def test_the_retired_records_are_counted() -> None:
    counts: Counter[tuple[str, str]] = Counter()
    for found in record.find([(results_directory(), "committed")]):
        for reason in retired(found.record):
            kind, _, name = reason.partition(" version")[0].partition(" ")
            if kind == "protocol":
                name = protocol_row(name, found.record.column.task)
            if kind == "task":
                name = found.record.column.task
            if kind == "variant":
                kind, name = "variant", found.record.column.variant
            if kind == "trivial":
                kind, name = "trivial baseline", name.removeprefix("baseline ")
            counts[kind, name] += 1
    (variant,) = re.findall(r"variant `(\w+)` of Pathfinder .* its (\d+) records are retired", PAGE)
    assert counts.pop(("variant", variant[0])) == int(variant[1])
    assert counts == {key: count for key, (_, count) in ROWS.items() if count}
