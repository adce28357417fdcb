"""One run on the page: what it was, how to repeat it, what came out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from lra import board_text as say
from lra.board import Column
from lra.comparison import interval
from lra.leaderboard import column_key, hardware
from lra.page.charts import Curves, curves
from lra.page.repeat import caveats, command
from lra.record import Found


@dataclasses.dataclass(frozen=True)
class CellView:
    """text, and what it is sorted by; runs: seed and number of the section of each."""

    text: str
    sort: float | None
    interval: str = ""
    runs: tuple[tuple[int, int], ...] = ()


@dataclasses.dataclass(frozen=True)
class RunView:
    number: int
    title: str
    label: str
    task: str
    seed: int
    origin: str
    status: str
    accuracy: CellView
    facts: tuple[tuple[str, str], ...]
    steps: str
    steps_done: int
    gflops: float | None  # of the forward pass of an example at max_len
    checkpoint: str
    batch: int | None
    tuning: str
    parameters: int
    minutes: float
    peak_mib: float
    hardware: str
    command: str
    caveats: tuple[str, ...]
    config: str
    environment: str
    message: str
    loss: Curves | None
    accuracy_curve: Curves | None
    classes: tuple[str, ...]
    confusion: tuple[tuple[tuple[int, float], ...], ...]  # count, and its share of the row


def interval_text(of: tuple[float, float] | None) -> str:
    return f"{100 * of[0]:.1f} to {100 * of[1]:.1f}" if of else ""


def run_view(f: Found, number: int, tuning: str, *, counted: bool) -> RunView:
    r = f.record
    column, test, steps = r["column"], r["test"], r["steps"]
    told = Column(*column_key(f), column["source"], None)
    task, variant, source = say.heading(told)
    card = say.card_of(told)
    classes = card.classes if card else ()
    confusion = test["confusion"] if test else []
    label = say.clean(r["mixer"]["label"])
    protocol = f"{say.clean(column['protocol'])}@{column['protocol_version']}"
    shown = CellView(r["status"] if not test else say.NONE, None)
    if test:
        accuracy, of_examples = test["accuracy"], interval(test["accuracy"], test["count"])
        shown = CellView(say.percent(accuracy) + "≈" * test["at_chance"], accuracy, interval_text(of_examples))
    both = (("training", 0, r["curve"]), ("validation", 1, r["validation"]))
    losses = [(name, style, [(step, loss) for step, loss, _ in points]) for name, style, points in both]
    accuracies = [(name, style, [(step, 100 * share) for step, _, share in points]) for name, style, points in both]
    return RunView(
        number=number,
        title=f"{label} on {task}, {variant}, {protocol}, seed {r['seed']}",
        label=label,
        task=task,
        seed=r["seed"],
        origin=f.origin,
        status=r["status"],
        accuracy=shown,
        facts=(
            ("data", f"{source}; SHA-256 {column['data_sha256'][:16]}, task version {column['task_version']}"),
            ("majority class", say.percent(r["majority_accuracy"])),
            ("tested", f"{test['correct']:,} right of {test['count']:,}" if test else "not tested"),
            ("tested checkpoint", _selection(r["selection"])),
            ("record", f"{r['id']}; configuration {r['config_sha256'][:16]}, code {r['code']['sha256'][:16]}"),
            ("date", r["created"]),
            *([] if counted else [("on the board", "not counted: an earlier run of this seed counts")]),
        ),
        steps=f"{steps['done']:,}" + (f" of {steps['planned']:,}" if steps["done"] != steps["planned"] else ""),
        steps_done=steps["done"],
        gflops=r["forward_flops"] / 1e9 if r.get("forward_flops") else None,
        checkpoint="best" if r["selection"]["rule"] == "validation" else say.clean(r["selection"]["rule"]),
        batch=r["config"].get("train", {}).get("batch_size"),
        tuning=tuning,
        parameters=r["parameters"],
        minutes=r["seconds"] / 60 / r.get("seeds_together", 1),
        peak_mib=r["peak_bytes"] / 2**20,
        hardware=say.clean(hardware(r)),
        command=command(r),
        caveats=tuple(caveats(r)),
        config=json.dumps(r["config"], indent=1),
        environment=json.dumps(r["environment"], indent=1),
        message=say.clean(r.get("message") or ""),
        loss=curves("loss", losses, "loss"),
        accuracy_curve=curves("accuracy", accuracies, "accuracy, %"),
        classes=classes if len(classes) == len(confusion) else tuple(map(str, range(len(confusion)))),
        confusion=tuple(tuple((n, n / max(1, sum(row))) for n in row) for row in confusion),
    )


def _selection(selection: Mapping[str, Any]) -> str:
    rules = {"validation": "the best on validation", "last": "the last one"}
    step = selection.get("step")
    rule = rules.get(selection["rule"], say.clean(selection["rule"]))
    return rule + (f", of step {step:,}" if isinstance(step, int) else "")
