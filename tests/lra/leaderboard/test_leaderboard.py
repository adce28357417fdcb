from __future__ import annotations

import csv
import io
import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from lra import config as cfg
from lra.leaderboard.build import board, render
from lra.record.facts import changes
from lra.record.files import RecordFile, pack
from lra.record.schema import SCHEMA, BaselineRecord, RunRecord, at_chance
from tasks import LRA_TASKS, load_task
from tests.lra.edited import edited

DATA = "628d26d6" + 56 * "0"
VERSIONS = dict.fromkeys(("python", "jax", "jaxlib", "flax", "optax", "numpy"), "0.7")
FORMATS = ("table", "md", "csv", "json")

STEPS = cfg.protocol("listops", "quick").train.steps


def run(
    accuracy: float | None,
    *,
    task: str = "listops",
    mixer: str = "cosformer",
    protocol: str = "quick",
    seed: int = 0,
    origin: Any = "yours",
    status: str = "complete",
    majority: float = 0.2,
    count: int = 1_000,
    variant: str | None = None,
    data: str = DATA,
    source: str = "generated, seed 1806",
    overrides: dict[str, Any] | None = None,
    limit: int | None = None,
    cores: int = 2,
    **other: Any,
) -> RecordFile[RunRecord]:
    """A record as `lra.api.make_record` makes it; the first examples are right, no others.

    accuracy None: the run diverged. majority: share of the largest class of test, and of train's most frequent one.
    """
    base = cfg.protocol(task, protocol)
    config = cfg.resolve(
        base,
        mixer=mixer,
        mixer_label=mixer,
        mixer_options={},
        mixer_sha256=None,
        task_version=load_task(task).CARD.version,
        seed=seed,
        limit=limit,
        overrides=overrides,
    )
    done = config.train.steps if status == "complete" else 120
    test: dict[str, Any] = {}
    if accuracy is not None:
        correct = round(accuracy * count)
        test = {"accuracy": correct / count, "correct": correct, "count": count, "loss": 1.5}
        test["at_chance"] = at_chance(correct, count, majority)
        test["correct_bits"] = pack(np.packbits(np.arange(count) < correct))
        test["predictions"] = pack(np.zeros(count))
        test["confusion"] = confusion(correct, count, majority)
    record = {
        "schema": SCHEMA,
        "kind": "run",
        "status": status if accuracy is not None else "diverged",
        "id": config.run_id(data, None),
        "created": "2026-01-01T00:00:00+00:00",
        "column": {
            "task": task,
            "variant": variant or config.variant,
            "task_version": config.task_version,
            "source": source,
            "data_sha256": data,
            "protocol": protocol,
            "protocol_version": base.version,
            "modified": config.modified,
        },
        "mixer": {"name": mixer, "label": mixer, "options": {}, "sha256": None},
        "seed": seed,
        "steps": {"done": done, "planned": config.train.steps},
        "config": json.loads(json.dumps(cfg.hashed_fields(config))),
        "config_sha256": config.sha256,
        "parameters": 95_000,
        "selection": {"rule": "validation", "step": done},
        "validation": [[done, 1.6, 0.3]],
        "curve": [[done // 2, 1.8, 0.25], [done, 1.5, 0.32]],
        "test": test,
        "majority_accuracy": majority,
        "message": "",
        "seconds": 60.0 * (seed + 1),
        "steps_per_second": 10.0,
        "peak_bytes": 1,
        "environment": VERSIONS | {"backend": "cpu", "device": "A Processor", "device_count": 1, "cores": cores},
        "code": {"sha256": 64 * "0", "git_commit": None, "git_clean": None},
        **other,
    }
    return RecordFile(RunRecord.model_validate(record), origin, Path("somewhere") / f"{config.run_id(data, None)}.json")


def confusion(correct: int, count: int, chance: float) -> list[list[int]]:
    """Of a test whose largest class has that share; wrong predictions name the next class."""
    classes = math.ceil(1 / chance)
    sizes = [round(chance * count)]
    sizes += [n.size for n in np.array_split(np.arange(count - sizes[0]), classes - 1)]
    matrix = np.zeros((classes, classes), int)
    for i, size in enumerate(sizes):
        right = min(size, correct)
        correct -= right
        matrix[i, i] += right
        matrix[i, (i + 1) % classes] += size - right
    return matrix.tolist()


def trivial(accuracy: float, name: str = "root operator", data: str = DATA) -> RecordFile[BaselineRecord]:
    found = run(accuracy, mixer=name, data=data).record.as_json()
    column = {**found["column"], "protocol": None, "protocol_version": None}
    kept = ("schema", "status", "created", "mixer", "test", "majority_accuracy", "environment", "code")
    record = {**{k: found[k] for k in kept}, "kind": "floor", "id": "floor", "column": column, "seed": None}
    return RecordFile(BaselineRecord.model_validate(record), "committed", Path("floor.json"))


def shown(made: Any, width: int = 100) -> str:
    if isinstance(made, str):
        return made
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(made)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_mean_and_sample_deviation_over_seeds() -> None:
    values = [0.31, 0.37, 0.43]
    (table,) = board([run(v, seed=i) for i, v in enumerate(values)]).tables
    (row,) = table.rows
    cell = row.cells[0]
    assert cell is not None
    assert (cell.seeds, cell.accuracies) == ((0, 1, 2), tuple(values))
    assert cell.mean == pytest.approx(0.37)
    assert cell.deviation == pytest.approx(statistics.stdev(values)) == pytest.approx(0.06)
    assert "37.0±6.0 (3)" in shown(render(board([run(v, seed=i) for i, v in enumerate(values)])))


def test_one_seed_has_no_deviation() -> None:
    cell = board([run(0.5)]).tables[0].rows[0].cells[0]
    assert cell is not None
    assert cell.deviation is None


def test_a_seed_counts_once_by_its_earliest_record() -> None:
    late = run(0.9, origin="committed", created="2026-03-01T00:00:00+00:00")
    early = run(0.4, origin="committed", created="2026-02-01T00:00:00+00:00")
    cell = board([late, early]).tables[0].rows[0].cells[0]
    assert cell is not None
    assert cell.accuracies == (0.4,)


def test_origins_are_never_merged() -> None:
    table = board([run(0.9, origin="committed"), run(0.3, origin="yours", seed=1)]).tables[0]
    assert [(r.origin, r.cells[0] and r.cells[0].accuracies) for r in table.rows] == [
        ("yours", (0.3,)),
        ("committed", (0.9,)),
    ]
    for format, yours in (("table", "yours"), ("md", "| yours |"), ("csv", "\nyours,")):
        text = shown(render(board([run(0.9, origin="committed"), run(0.3)]), format))  # type: ignore[arg-type]
        assert yours in text
        assert text.index("committed") > 0


def test_variants_never_mix() -> None:
    (table,) = board([run(0.3), run(0.6, seed=1, variant="full")]).tables
    assert len(table.columns) == 2
    assert sorted(c.accuracies for c in table.rows[0].cells if c) == [(0.3,), (0.6,)]


def test_data_never_mix() -> None:
    """Another data hash is another column, in a table of its own, also where its source reads the same."""
    made = board([run(0.3), run(0.6, seed=1, data="f" * 64)])
    assert sorted(t.rows[0].cells[0].accuracies for t in made.tables) == [(0.3,), (0.6,)]
    for format in ("table", "md"):
        text = " ".join(shown(render(made, format)).split())
        assert "628d26d6" in text
        assert "ffffffff" in text


def test_ones_own_data_come_first_and_samples_last() -> None:
    sample, real = {"data": "1" * 64, "source": "sample"}, {"data": "2" * 64, "source": "official archive"}
    committed = [run(0.5, origin="committed", **data) for data in (sample, real)]
    assert [t.columns[0].source for t in board(committed).tables] == ["official archive", "sample"]
    more = [*committed, run(0.3, mixer="linear", origin="committed", **sample)]
    assert [t.columns[0].source for t in board(more).tables] == ["sample", "official archive"]  # more rows
    with_mine = [*committed, run(0.4, **sample)]
    assert [t.columns[0].source for t in board(with_mine).tables] == ["sample", "official archive"]


def test_one_table_per_protocol() -> None:
    made = board([run(0.5, protocol="lra"), run(0.4, protocol="small"), run(0.3)])
    labels = [f"{name}@{cfg.protocol('listops', name).version}" for name in ("quick", "small", "lra")]
    assert [t.label for t in made.tables] == labels
    assert [t.label for t in board(made.runs, "small").tables] == [labels[1]]


def test_tasks_of_one_protocol_with_different_versions_share_a_table() -> None:
    listops, pathfinder = run(0.3, protocol="laptop"), run(0.9, task="pathfinder", protocol="laptop")
    versions = [f.record.column.protocol_version for f in (listops, pathfinder)]
    assert versions == [1, 2]
    (table,) = board([listops, pathfinder]).tables
    assert table.label == "laptop@2"
    assert [cell and cell.mean for cell in table.rows[0].cells] == [0.3, 0.9]
    assert [t.label for t in board([listops]).tables] == ["laptop@1"]


def test_modified_runs_stand_apart_by_what_they_changed() -> None:
    shorter, deeper = run(0.5, overrides={"train.steps": 300}), run(0.6, overrides={"train.steps": 300, "max_len": 128})
    limited = run(0.7, limit=100)
    made = board([run(0.3), shorter, deeper, limited])
    plain, modified = made.tables
    assert (plain.label, modified.label) == ("quick@2", "quick@2 (modified)")
    assert len(plain.rows) == 1
    expected = {("train.steps=300",), ("max_len=128", "train.steps=300"), ("limit=100",)}
    assert {r.changes for r in modified.rows} == expected
    assert "train.steps=300" in shown(render(made))


def test_a_recipe_has_columns_of_its_own() -> None:
    runs = [run(0.5, protocol="small"), run(0.6, protocol="small+shuffle")]
    plain, shuffled = board(runs).tables
    assert (plain.label, shuffled.label) == ("small@2", "small+shuffle@2")
    assert len(board(runs, "small").tables) == len(board(runs, "small+shuffle").tables) == 1
    assert all("small+shuffle" in shown(render(board(runs), format)) for format in FORMATS)
    assert changes(runs[1].record) == ()
    without = edited(runs[1], {"config.recipe": None})
    assert changes(without.record) == ("recipe=None",)


def test_a_run_that_is_not_todays_protocol_is_not_under_its_name() -> None:
    """Where a protocol was changed without a new version, its older records are told apart all the same."""
    older = edited(run(0.5), {"config.train.learning_rate": 7.0})
    assert changes(older.record) == ("train.learning_rate=7.0",)
    assert [t.track for t in board([older, run(0.4)]).tables] == ["matched", "modified"]


def test_failed_seeds_stay_and_are_said() -> None:
    made = board([run(0.4), run(None, seed=1), run(None, seed=2, mixer="linear")])
    cells = {r.label: r.cells[0] for r in made.tables[0].rows}
    assert cells["cosformer"] is not None
    assert cells["cosformer"].diverged == (1,)
    assert cells["cosformer"].mean == pytest.approx(0.4)
    for format in ("table", "md"):
        text = shown(render(made, format))
        assert "40.0 (1 diverged)" in text
        assert "no longer finite" in text


def test_truncated_runs_are_listed_apart() -> None:
    made = board([run(0.4), run(0.9, seed=1, status="truncated")])
    (table,) = made.tables
    assert [c and c.accuracies for c in table.rows[0].cells] == [(0.4,)]
    (stopped,) = table.truncated
    assert (stopped.steps_done, stopped.steps_planned, stopped.accuracy) == (120, STEPS, 0.9)
    for format in ("table", "md"):
        text = shown(render(made, format))
        assert f"120 of {STEPS:,}" in text
        assert text.index("Stopped before the last step") < text.index("90.0")


def test_only_truncated_runs_make_a_board_too() -> None:
    for format in ("table", "md"):
        assert f"120 of {STEPS:,}" in shown(render(board([run(0.9, status="truncated")]), format))


def test_trivial_baselines_are_listed_in_their_own_column() -> None:
    other = "e" * 64
    made = board([run(0.4), run(0.5, data=other, majority=0.25), trivial(0.362), trivial(0.99, data="a" * 64)])
    by_data = {t.columns[0].data_sha256: {b.name: b.accuracies for b in t.baselines} for t in made.tables}
    assert by_data[DATA]["root operator"] == (0.362,)
    assert "root operator" not in by_data[other]
    assert by_data[DATA]["majority class"] == (0.2,)  # no record of this baseline: as the runs say
    assert by_data[other]["majority class"] == (0.25,)
    assert (len(made.runs), len(made.baselines)) == (2, 1)  # the baseline of data that no run used is not on the board


def test_chance_is_marked() -> None:
    made = board([run(0.21), run(0.5, mixer="softmax"), run(0.2, mixer="mixed"), run(0.9, mixer="mixed", seed=1)])
    text = shown(render(made))
    assert "21.0≈" in text
    assert "50.0≈" not in text
    assert "(2, 1≈)" in text
    assert "at chance" in text
    assert "≈" not in shown(render(board([run(0.5)])))  # the legend explains what is there


def test_five_task_mean_only_where_all_five_are_there() -> None:
    five = [run(0.1 * (i + 1), task=task) for i, task in enumerate(LRA_TASKS)]
    four = [run(0.9, task=task, mixer="softmax") for task in LRA_TASKS[:4]]
    table = board(five + four).tables[0]
    assert [c.task for c in table.columns] == list(LRA_TASKS)
    assert {r.label: r.mean for r in table.rows} == {"cosformer": pytest.approx(0.3), "softmax": None}
    assert "5-task mean" in shown(render(board(five + four), "md"))
    assert "5-task mean" not in shown(render(board(four), "md")).partition("### Reported")[0]
    twice = [*five, run(0.5, variant="full")]  # two columns of one task: which one would count?
    assert board(twice).tables[0].rows[0].mean is None


def test_a_single_column_is_ordered_by_its_score() -> None:
    table = board([run(0.3, mixer="a"), run(0.5, mixer="b"), run(0.4, mixer="c")]).tables[0]
    assert [r.label for r in table.rows] == ["b", "c", "a"]


def test_costs_are_never_averaged_over_machines() -> None:
    made = board([run(0.3), run(0.3, seed=1), run(0.3, seed=2, cores=64)])
    assert [(c.hardware, c.cells) for c in made.tables[0].costs] == [
        ("A Processor, 2 cores", ((95_000, 1.5),)),
        ("A Processor, 64 cores", ((95_000, 3.0),)),
    ]


@pytest.mark.parametrize("format", FORMATS)
def test_what_a_record_says_is_text(format: Any) -> None:
    evil = "=cmd|'/C calc'!A0 [red]x[/red] <script>alert(1)</script> `b` *c* \x1b[31m\n| d |"
    made = board([run(0.3, mixer=evil, source="[b]y[/b] <b>")])
    text = shown(render(made, format), width=300)
    assert "\x1b" not in text
    if format == "table":
        assert "[red]x[/red]" in text
        assert "[b]y[/b]" in text
    elif format == "md":
        assert "<script>" not in text
        assert "<b>" not in text
        rows = [line for line in text.splitlines() if "alert" in line]
        assert all(line.replace(r"\|", "").count("|") == 4 for line in rows)
    elif format == "csv":
        assert csv_records(text)[0]["mixer"].startswith("'=cmd|")
    else:
        assert json.loads(text)["tables"][0]["rows"][0]["label"] == evil


def csv_records(text: str) -> list[dict[str, str]]:
    """Return the lines of the records; those of published figures are in test_board_published.py."""
    return [row for row in csv.DictReader(io.StringIO(text)) if row["origin"] != "published"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", " =", "\t=", "\r@"])
def test_csv_has_no_formulas(start: str) -> None:
    (row,) = csv_records(shown(render(board([run(0.3, message=f"{start}1+1")]), "csv")))
    assert row["message"].startswith("'")


def test_csv_has_one_line_per_record() -> None:
    found = [
        run(0.3),
        run(None, seed=1),
        run(0.4, seed=2, status="truncated", origin="committed"),
        trivial(0.362),
    ]
    rows = csv_records(shown(render(board(found), "csv")))
    assert [(r["origin"], r["kind"], r["status"], r["seed"], r["accuracy"]) for r in rows] == [
        ("yours", "run", "complete", "0", "0.3"),
        ("yours", "run", "diverged", "1", ""),
        ("committed", "run", "truncated", "2", "0.4"),
        ("committed", "floor", "complete", "", "0.362"),
    ]
    assert rows[0]["steps_done"] == rows[0]["steps_planned"] == str(STEPS)


def test_json_is_the_board() -> None:
    (table,) = json.loads(shown(render(board([run(0.3), run(0.4, seed=1)]), "json")))["tables"]
    assert table["label"] == "quick@2"
    assert table["columns"][0]["data_sha256"] == DATA
    assert table["rows"][0]["cells"][0]["accuracies"] == [0.3, 0.4]


@pytest.mark.parametrize("format", ["table", "md"])
def test_an_empty_board_says_how_to_begin(format: Any) -> None:
    assert "run_lra.py train --task listops --mixer cosformer --protocol quick" in shown(render(board([]), format))
    others = [run(0.3, protocol="laptop"), run(0.9, task="pathfinder", protocol="laptop"), run(0.3)]
    assert "there are some of laptop, quick." in shown(render(board(others, "lra"), format))


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_renders_five_tasks(format: Any) -> None:
    found = [run(0.3, task=t, seed=s, mixer=m) for t in LRA_TASKS for s in (0, 1) for m in ("cosformer", "softmax")]
    assert shown(render(board(found), format))


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_number_is_cut_off(width: int) -> None:
    values = {task: [0.4 + 0.01 * i, 0.5 + 0.01 * i] for i, task in enumerate(LRA_TASKS)}
    text = shown(render(board([run(v, task=t, seed=s) for t, vs in values.items() for s, v in enumerate(vs)])), width)
    for some in values.values():
        assert f"{100 * statistics.fmean(some):.1f}±7.1" in text
    assert f"{100 * statistics.fmean(v for vs in values.values() for v in vs):.1f}" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


def test_an_unknown_format_names_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="table, md, csv, json"):
        render(board([]), "xml")  # type: ignore[arg-type]


def test_what_replaces_the_whole_block_is_marked_in_every_format() -> None:
    from models import mixers

    label = mixers.label("mega", {"chunk": 128})
    assert label == "mega(chunk=128) [block]"
    made = board([run(0.4, mixer=label), run(0.3)])
    for form in ("table", "md"):
        text = " ".join(shown(render(made, form)).replace("\\", "").split())
        assert "mega(chunk=128) [block]" in text
        assert "[block]: replaces the whole block, not attention alone." in text
    assert "[block]" not in shown(render(board([run(0.3)]), "table"))


# ---- marks


def test_a_row_not_above_the_best_trivial_baseline_is_marked() -> None:
    found = [run(0.36), run(0.43, mixer="mega"), trivial(0.4, "root operator, digits"), trivial(0.36)]
    cells = {r.label: r.cells[0] for r in board(found).tables[0].rows}
    assert cells["cosformer"].below_baseline
    assert not cells["mega"].below_baseline
    assert "36.0▽" in shown(render(board(found)))


def test_the_share_of_the_best_row_that_a_convolution_of_bounded_length_reaches() -> None:
    found = [run(0.3, mixer="conv"), run(0.2), run(0.4, mixer="softmax"), run(0.35, mixer="conv(kernel=5)")]
    text = " ".join(shown(render(board(found))).split())
    assert "conv, % of the best other row 75" in text
    assert "each layer sees 61 positions" in text
    for without in (found[1:], [found[0], found[3]]):
        assert "% of the best other row" not in shown(render(board(without)))


def test_an_accuracy_has_an_interval_of_its_test_examples() -> None:
    cell = board([run(0.5, count=1_000)]).tables[0].rows[0].cells[0]
    assert cell.interval == pytest.approx((0.4691, 0.5309), abs=1e-4)  # Wilson, 1,000 examples


def test_parameters_unlike_those_of_softmax_are_told() -> None:
    found = [
        run(0.5, mixer="softmax"),
        run(0.4, mixer="lru", parameters=104_000),
        run(0.3, mixer="mega", parameters=190_000),
    ]
    result = shown(render(board(found), "md"))
    assert "190k (2x)" in result
    assert "104k ·" in result
    assert "LRA's 10 %" in result
    assert "(2x)" not in shown(render(board(found[1:]), "md"))


def test_seeds_that_ran_together_share_their_minutes() -> None:
    (cost,) = board([run(0.5, seconds=600.0, seeds_together=5)]).tables[0].costs
    assert cost.cells[0][1] == pytest.approx(2)
