"""One run on the page: its settings, the command that repeats it, and its results."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from lra.leaderboard.comparison import Difference, interval
from lra.leaderboard.html.charts import Curves, curves
from lra.leaderboard.html.rerun_command import caveats, command
from lra.leaderboard.table import chance_mark
from lra.leaderboard.text import NONE, card_of, clean, heading, percent
from lra.leaderboard.types import Column
from lra.record.facts import column_key
from lra.record.files import RecordFile
from lra.record.schema import ReceptiveField, RunRecord, Selection


def is_quick(protocol: str) -> bool:
    """Return whether a protocol is that of smoke tests, with or without a recipe."""
    return protocol.partition("+")[0] == "quick"


@dataclasses.dataclass(frozen=True)
class CellView:
    """A cell of a table.

    Attributes:
      sort: what it is sorted by
      runs: seed and number of the section of each
      difference: from the best row
      is_best: the highest of its column
    """

    text: str
    sort: float | None
    interval: str = ""
    runs: tuple[tuple[int, int], ...] = ()
    difference: str = ""
    is_best: bool = False


@dataclasses.dataclass(frozen=True)
class RunView:
    """A run on the page.

    Attributes:
      loss, accuracy_curve, receptive_field: None if the record lacks them, or if it is a committed run of `quick`
    """

    number: int
    record: RunRecord
    title: str
    label: str
    task: str
    origin: str
    accuracy: CellView
    facts: tuple[tuple[str, str], ...]
    steps: str
    gflops: float | None  # of the forward pass of an example at max_len
    checkpoint: str
    tuning: str
    peak_mib: float | None
    peak_about: str
    hardware: str
    command: str
    caveats: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]  # of the input, the model, the training and the environment
    message: str
    loss: Curves | None
    accuracy_curve: Curves | None
    receptive_field: Curves | None
    classes: tuple[str, ...]
    confusion: tuple[tuple[tuple[int, float], ...], ...]  # count, and its share of the row


def interval_text(of: tuple[float, float] | None) -> str:
    return f"{100 * of[0]:.1f} to {100 * of[1]:.1f}" if of else ""


def difference_text(difference: Difference | None) -> str:
    """Return `−2.3 (−4.5 to −0.1)`, in per cent; "" if there is none."""
    if difference is None:
        return ""
    numbers = (f"{100 * x:+.1f}".replace("-", "−") for x in (difference.mean, difference.low, difference.high))
    return "{} ({} to {})".format(*numbers)


def run_view(f: RecordFile[RunRecord], number: int, tuning: str, *, counted: bool) -> RunView:
    r = f.record
    column, test, steps, config = r.column, r.test, r.steps, r.config.as_json()
    key = Column(*column_key(r), column.source)
    task, variant, source = heading(key)
    card = card_of(key)
    classes = card.classes if card else ()
    confusion = test.confusion if test else []
    label = clean(r.mixer.label)
    protocol = f"{clean(column.protocol)}@{column.protocol_version}"
    shown = CellView(r.status if not test else NONE, None)
    if test:
        mark = chance_mark(test.is_at_chance, test.predicts_one_class)
        wilson = interval_text(interval(test.accuracy, test.count))
        shown = CellView(percent(test.accuracy) + mark, test.accuracy, wilson)
    drawn = not (f.origin == "committed" and is_quick(column.protocol))  # a third of the page
    both = (("training", "other", r.curve), ("validation", "first", r.validation))
    losses = [(name, kind, name, [(step, loss) for step, loss, _ in points]) for name, kind, points in both]
    shares = [(name, kind, name, [(step, 100 * share) for step, _, share in points]) for name, kind, points in both]
    return RunView(
        number=number,
        record=r,
        title=f"{label} on {task}, {variant}, {protocol}, seed {r.seed}",
        label=label,
        task=task,
        origin=f.origin,
        accuracy=shown,
        facts=(
            ("data", f"{source}; SHA-256 {column.data_sha256[:16]}, task version {column.task_version}"),
            ("chance", f"{percent(test.chance)}, the largest class of the test labels" if test else NONE),
            ("majority class of train", percent(r.majority_accuracy)),
            *([("predictions", "all of the same class")] if test and test.predicts_one_class else []),
            ("tested", f"{test.correct:,} right of {test.count:,}" if test else "not tested"),
            ("tested checkpoint", _selection(r.selection)),
            *([("receptive field", _receptive_field(r.receptive_field))] if r.receptive_field else []),
            ("record", f"{r.id}; configuration {r.config_sha256[:16]}, code {r.code.sha256[:16]}"),
            ("date", r.created),
            *([] if counted else [("on the board", "not counted: an earlier run of this seed counts")]),
        ),
        steps=f"{steps.done:,}" + (f" of {steps.planned:,}" if steps.done != steps.planned else ""),
        gflops=r.forward_flops / 1e9 if r.forward_flops else None,
        checkpoint="best" if r.selection.rule == "validation" else clean(r.selection.rule),
        tuning=tuning,
        peak_mib=r.peak_bytes / 2**20 if r.peak_bytes is not None else None,
        peak_about="process" if r.has_process_memory else "",
        hardware=clean(r.environment.hardware),
        command=command(r),
        caveats=tuple(caveats(r)),
        settings=(
            ("input", _listed({name: config.get(name) for name in ("max_len", "limit", "mixer_options")})),
            *((name, _listed(config[name])) for name in ("model", "train")),
            ("environment", _listed(r.environment.as_json())),
        ),
        message=clean(r.message),
        loss=curves("loss", losses, "loss") if drawn else None,
        accuracy_curve=curves("accuracy", shares, "accuracy, %") if drawn else None,
        receptive_field=_receptive_field_curve(r.receptive_field) if drawn and r.receptive_field else None,
        classes=classes if len(classes) == len(confusion) else tuple(map(str, range(len(confusion)))),
        confusion=tuple(tuple((n, n / max(1, sum(row))) for n in row) for row in confusion),
    )


def _selection(selection: Selection) -> str:
    rules = {"validation": "the best on validation", "last": "the last one"}
    rule = rules.get(selection.rule, clean(selection.rule))
    return rule + (f", of step {selection.step:,}" if selection.step is not None else "")


def _receptive_field(field: ReceptiveField) -> str:
    return (
        f"half of the influence of other tokens comes from a distance of at most {field.half:,}; "
        f"{percent(field.within[0])} % of all influence is that of the token itself"
    )


def _receptive_field_curve(field: ReceptiveField) -> Curves | None:
    pairs = zip(field.distances, field.within, strict=True)
    points = [(math.log2(distance), 100 * share) for distance, share in pairs if distance]
    series = [("influence", "first", "influence within a distance", points)]
    return curves("receptive field", series, "share of the influence, %", "logarithm (base 2) of the distance")


def _listed(values: Mapping[str, Any]) -> str:
    """Return settings as `layers=2, heads=2`."""
    return clean(", ".join(f"{name}={value}" for name, value in values.items()))
