"""What the board, its page, its CSV and `list` show of a record or protocol is the field that they name."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from lra.leaderboard.build import board, render
from lra.leaderboard.comparison import Comparison
from lra.leaderboard.html import as_html
from lra.leaderboard.html.run_page import RunView, run_view
from lra.leaderboard.types import Column, LeaderboardCell
from lra.record.files import RecordFile, pack
from tests.lra.edited import edited
from tests.lra.leaderboard.test_leaderboard import DATA, run, trivial

CONFUSION = [[6, 0, 0, 0], [2, 3, 0, 0], [1, 1, 0, 3], [4, 0, 0, 0]]  # 20 examples, 9 of them right, 6 of one class


def distinct(**other: Any) -> RecordFile:
    """The record of a run in which no two fields have the same value."""
    made = run(
        *(0.45,),
        **{"seed": 5, "count": 20, "majority": 0.3, "mixer": "local", "protocol": "laptop", "origin": "committed"},
        **{"overrides": {"train.batch_size": 48}, "variant": "full", "source": "a source", "cores": 6, **other},
    )
    places: dict[str, Any] = {
        **{"test.loss": 1.375, "test.confusion": CONFUSION, "test.predictions": pack(np.zeros(20))},
        **{"parameters": 271_828, "forward_flops": 3.5e9, "seconds": 1_500.0, "steps_per_second": 8.25},
        **{"peak_bytes": 77 * 2**20, "message": "a message", "created": "2026-02-03T04:05:06+00:00"},
        "selection": {"rule": "validation", "step": 310, "best_step": 300},
        "seeds_together": 4,
        **{"environment.python": "3.11.1", "environment.jax": "0.8.1", "environment.flax": "0.12.1"},
        **{"environment.device": "a device", "environment.device_count": 3},
        "code": {"sha256": 64 * "a", "git_commit": 40 * "b", "git_clean": True},
        "config_sha256": 64 * "c",
        **{"mixer.label": "local(window=8)", "mixer.options": {"window": 8}, "mixer.sha256": 64 * "d"},
    }
    if made.record.status == "truncated":
        places["steps"] = {"done": 640, "planned": 2_500}
    return dataclasses.replace(edited(made, places), path=Path("results/x.json"))


def test_a_line_of_csv() -> None:
    found = distinct(status="truncated")
    lines = csv.DictReader(io.StringIO(str(render(board([found]), "csv"))))
    (line,) = (line for line in lines if line["origin"] != "published")
    column = found.record.column
    wanted: dict[str, Any] = {  # the variant is `copy`, because ListOps has 2,000 test examples and this record 20
        **{"origin": "committed", "kind": "run", "status": "truncated", "id": found.record.id},
        **{"created": "2026-02-03T04:05:06+00:00", "task": "listops", "variant": "copy", "task_version": 1},
        **{"source": "a source", "data_sha256": DATA, "protocol": "laptop", "modified": True},
        **{"protocol_version": column.protocol_version, "mixer": "local(window=8)", "mixer_sha256": 64 * "d"},
        **{"seed": 5, "steps_done": 640, "steps_planned": 2_500, "accuracy": 0.45, "correct": 9, "count": 20},
        **{"loss": 1.375, "at_chance": True, "majority_accuracy": 0.3, "selection": "validation"},
        **{"selected_step": 310, "parameters": 271_828, "seconds": 1_500.0, "steps_per_second": 8.25},
        **{"peak_bytes": 77 * 2**20, "backend": "cpu", "device": "a device", "device_count": 3, "cores": 6},
        **{"python": "3.11.1", "jax": "0.8.1", "flax": "0.12.1", "config_sha256": 64 * "c"},
        **{"code_sha256": 64 * "a", "git_commit": 40 * "b", "git_clean": True, "message": "a message"},
    }
    assert {name: line[name] for name in wanted} == {name: str(value) for name, value in wanted.items()}
    assert line["options"].replace("'", '"') == '{"window": 8}'


def test_rows_columns_costs_and_baselines_of_a_table() -> None:
    softmax = run(0.3, mixer="softmax", protocol="laptop", variant="copy", source="a source", seed=5, count=20)
    softmax = edited(softmax, {"parameters": 100_000, "test.confusion": CONFUSION})
    found = distinct(overrides={}, variant="copy")
    diverged = run(None, protocol="laptop", variant="copy", source="a source", seed=6, origin="committed")
    diverged = edited(diverged, {"mixer": found.record.mixer.as_json()})
    baseline = edited(trivial(0.4), {"column.variant": "copy"})
    (table,) = board([found, diverged, dataclasses.replace(softmax, origin="committed"), baseline]).tables
    assert table.columns == (Column("listops", "copy", 1, DATA, "a source", 20, chance=0.3),)
    first = table.rows[0]
    assert (first.origin, first.label, first.changes) == ("committed", "local(window=8)", ())
    assert first.cells == (
        LeaderboardCell(
            accuracies=(0.45,),
            seeds=(5,),
            diverged=(6,),
            at_chance=(True,),
            one_class=(False,),
            records=(found.record.id, diverged.record.id),
            examples=20,
            comparison=Comparison("best"),
            below_baseline=False,
            other_seeds=True,
            mixed_code=True,
            mixed_hardware=True,
        ),
    )
    costs = {(cost.label, cost.hardware): (cost.cells, cost.ratios) for cost in table.costs}
    assert costs["local(window=8)", "a device, 6 cores"] == (((271_828, 6.25),), (2.71828,))  # four seeds in 25 min
    assert {b.name: b.accuracies for b in table.baselines}["root operator"] == (0.4,)


def test_a_run_that_was_stopped() -> None:
    (table,) = board([distinct(status="truncated", overrides={})]).tables
    (stopped,) = table.truncated
    found = dataclasses.asdict(stopped)
    wanted = {"origin": "committed", "label": "local(window=8)", "seed": 5, "steps_done": 640, "steps_planned": 2_500}
    wanted |= {"accuracy": 0.45, "at_chance": True, "chance": 0.3, "minutes": 6.25, "hardware": "a device, 6 cores"}
    assert {name: found[name] for name in wanted} == wanted


def test_a_run_on_the_page() -> None:
    found = distinct()
    view: RunView = run_view(found, 17, "none", counted=True)
    wanted: dict[str, Any] = {
        **{"number": 17, "label": "local(window=8)", "task": "ListOps", "origin": "committed"},
        **{
            "record": found.record,
            "gflops": 3.5,
            "checkpoint": "best",
            "peak_mib": 77.0,
            "hardware": found.record.environment.hardware,
            "message": "a message",
        },
        "confusion": tuple(tuple((n, n / sum(row)) for n in row) for row in CONFUSION),
    }
    assert {name: getattr(view, name) for name in wanted} == wanted
    facts = dict(view.facts)
    assert facts["majority class of train"] == "30.0"
    assert facts["tested"] == "9 right of 20"
    assert "310" in facts["tested checkpoint"]
    assert facts["date"] == "2026-02-03T04:05:06+00:00"
    for mark in (found.record.id, 16 * "c", 16 * "a"):
        assert mark in facts["record"]
    (row,) = re.findall(r'<tr data-mixer="local[^>]*><th scope="row"><a .*?</tr>', as_html(board([found])))
    assert re.findall(r">([^<]+)<", row) == [
        *("local(window=8)", "ListOps", "5", "45.0≈", "271,828", "3.5"),
        *("2,500", "48", "none", "best", "6.2", "77", "process", "a device, 6 cores"),
    ]


def test_the_page_shows_the_receptive_field_of_runs_that_have_one() -> None:
    field = {"half": 1_234, "distances": [0, 1, 2], "within": [0.125, 0.5, 1.0]}
    page = as_html(board([distinct(receptive_field=field)]))
    assert "from a distance of at most 1,234; 12.5 % of all influence is that of the token itself" in page
    assert page.count("Influence of tokens within a distance</figcaption>") == 1
    assert "Influence of tokens" not in as_html(board([distinct()]))
