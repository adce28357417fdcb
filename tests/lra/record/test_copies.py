"""Files whose split sizes differ from the task's are a data set of their own: `copy`, in no mean over tasks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from lra import api, finished
from lra.data.prepare import prepare
from lra.data.verify import verify
from lra.leaderboard.build import board, render
from lra.paths import results_directory
from lra.record import baselines
from lra.record import files as rec
from lra.record.facts import reported_variant
from lra.record.files import RecordFile, find
from lra.record.schema import RunRecord
from lra.record.validate import validate
from lra.sweep import plan as sweep
from lra.training import trainer as train
from tasks import LRA_TASKS, image, load_task, retrieval, text
from tasks.core import Built, Prepared, Split, base_variant, copy_name, has_other_sizes, is_copy
from tasks.prepared import read_prepared, write_prepared
from tests.lra.edited import edited
from tests.lra.leaderboard.test_leaderboard import run

SMALL = {"model.layers": 1, "model.d_model": 16, "model.qkv_dim": 16, "model.mlp_dim": 16, "train.batch_size": 2}
COMMITTED = sorted(results_directory().rglob("retrieval-*.json"))


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with six pairs of papers in LRA's layout; runs and prepared data in the test's directory."""
    folder = tmp_path / "data" / "aan"
    folder.mkdir(parents=True)
    for name, count in (("train", 4), ("eval", 2), ("test", 2)):
        rows = (f"{i % 2}.0\tA\tB\tb'{name} {i} one'\tb'{name} {i} two'\n" for i in range(count))
        (folder / f"new_aan_pairs.{name}.tsv").write_text("".join(rows))
    monkeypatch.setenv("LRA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LRA_PREPARED", str(tmp_path / "prepared"))
    monkeypatch.setenv("LRA_RUNS", str(tmp_path / "runs"))
    return tmp_path


def test_names_of_copies() -> None:
    assert [copy_name(v) for v in ("full", "cut", "32-easy")] == ["copy", "cut-copy", "32-easy-copy"]
    assert [base_variant(v) for v in ("copy", "cut-copy", "full", "16")] == ["full", "cut", "full", "16"]
    assert [is_copy(v) for v in ("copy", "cut-copy", "full", "16", "photocopy")] == [True, True, False, False, False]


@pytest.mark.parametrize("task", ["listops", "text", "retrieval", "image", "pathfinder"])
def test_any_size_that_differs_makes_a_copy_and_equal_sizes_never_do(task: str) -> None:
    card = load_task(task).CARD
    for variant, about in card.variants.items():
        sizes = dict(about.sizes)
        assert not has_other_sizes(card, variant, "unrecognised copy 12345678", sizes)  # of unknown content, but whole
        assert not has_other_sizes(card, variant, "official archive", sizes)
        for split in sizes:
            other = {**sizes, split: sizes[split] - 1}
            assert has_other_sizes(card, variant, "unrecognised copy 12345678", other)
            assert has_other_sizes(card, variant, "official archive", other)
            assert not has_other_sizes(card, variant, "sample, seed 1", other)
            assert not has_other_sizes(card, variant, "generated, seed 1", other)


@pytest.mark.parametrize(("variant", "reported"), [("full", "copy"), ("cut", "cut-copy")])
def test_official_files_with_other_counts_are_a_copy_that_verify_explains(
    pairs: Path, variant: str, reported: str
) -> None:
    data = prepare("retrieval", variant)
    assert (data.variant, data.column_variant) == (variant, reported)
    report = verify(data, retrieval.CARD)
    assert report.ok
    assert report.variant == reported
    [note] = [n for n in report.notes if n.startswith("a copy")]
    wanted = retrieval.CARD.variants[variant].sizes
    assert f"train has 4 examples, the task's has {wanted['train']:,}" in note
    assert f"test has 2 examples, the task's has {wanted['test']:,}" in note
    assert f"reported as {reported}, not as {variant}, and no mean over tasks counts them" in note


@pytest.mark.parametrize("task", ["text", "image"])
def test_unknown_copies_with_all_examples_stay_what_they_are(task: str, tmp_path: Path) -> None:
    """As of tensorflow-datasets' reviews, or an archive that was packed again: read back from disk."""
    card = {"text": text.CARD, "image": image.CARD}[task]
    counts = card.variants["full"].sizes
    document = b"abcd" if task == "text" else bytes(1024)
    splits = [
        Built(name, Split.from_documents([document], [0] * n, [0] * n), "unrecognised copy 12345678")
        for name, n in counts.items()
    ]
    write_prepared(tmp_path / "whole", card, "full", iter(splits))
    assert read_prepared(tmp_path / "whole", card).column_variant == "full"
    fewer = dataclasses.replace(splits[-1], examples=Split.from_documents([document], [0], [0]))
    write_prepared(tmp_path / "part", card, "full", iter([*splits[:-1], fewer]))
    assert read_prepared(tmp_path / "part", card).column_variant == "copy"


def test_a_run_on_a_copy_says_so_in_its_record_its_name_and_its_baselines(
    pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRA_RESULTS", str(pairs / "results"))
    overrides = {**SMALL, "max_len": 16, "train.steps": 2, "model.head": ()}
    config = api.configure("retrieval", "linear", protocol="laptop", overrides=overrides)
    record = api.run_config(config)
    assert record.column.variant == "copy"
    assert record.config.variant == config.variant == "full"
    assert record.id.startswith("retrieval-copy-laptop-linear-s0-")
    assert [path.name for path in (pairs / "runs").iterdir()] == [record.id]
    (report,) = validate([pairs / "runs" / record.id])
    assert report.problems == ()
    assert finished.evaluate_run(record.id)[1] == record.test
    data = prepare("retrieval", "full")
    for path in baselines.write_baselines(data, retrieval.CARD):
        assert path.name.startswith("retrieval-copy-")
    assert [r.problems for r in validate([pairs / "runs"])] == [()] * 3
    # Again, by way of a sweep: nothing is left to do.
    monkeypatch.setattr(train, "train_steps", None)
    monkeypatch.setattr(sweep, "configure", lambda *_, **__: config)
    wanted = sweep.Sweep(["retrieval"], ["linear"], protocol="laptop")
    assert sweep.make_plan(wanted, sweep.prepare_data(wanted)).jobs == []
    assert api.run_config(config) == record


def test_validation_refuses_a_copy_as_full(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the number of test examples where the data are unknown, and by the data where they are at hand."""
    monkeypatch.setenv("LRA_RESULTS", str(pairs / "results"))
    overrides = {**SMALL, "max_len": 16, "train.steps": 2}
    record = api.run("retrieval", "linear", protocol="laptop", limit=2, overrides=overrides)
    assert record.column.variant == "copy"
    false = json.loads(
        json.dumps(record.as_json()).replace("retrieval-copy-", "retrieval-full-").replace('"copy"', '"full"')
    )
    place = pairs / f"{false['id']}.json"
    place.write_text(json.dumps(false))
    (report,) = validate([place])
    assert report.problems == ("column.variant is full, the data are copy",)
    long = (
        json.dumps(record.as_json()).replace("retrieval-copy-", "retrieval-long-copy-").replace('"copy"', '"long-copy"')
    )
    wrong = json.loads(long)
    place = pairs / f"{wrong['id']}.json"
    place.write_text(json.dumps(wrong))
    (report,) = validate([place])
    assert report.problems == ("column.variant: retrieval has full, cut",)


# ---- records from before copies had a name


def old(count: int, data: str = "b" * 64, **other: Any) -> RecordFile[RunRecord]:
    source = "unrecognised copy 12345678"
    return run(0.5, task="retrieval", protocol="laptop", source=source, count=count, data=data, **other)


def test_an_old_record_is_told_by_its_number_of_test_examples() -> None:
    assert old(17_437).record.column.variant == "full"
    assert reported_variant(old(17_437).record) == "full"
    assert reported_variant(old(508).record) == "copy"
    assert reported_variant(old(508, overrides={"variant": "cut"}).record) == "cut-copy"
    assert reported_variant(old(508, limit=1_000).record) == "copy"  # fewer than the limit: all there are
    assert reported_variant(old(508, limit=508).record) == "full"  # a part of them: who knows
    assert reported_variant(run(0.5, task="retrieval", source="sample", count=508).record) == "cut"
    retired = old(508).record
    retired = edited(retired, {"column.task_version": retired.column.task_version + 1})
    assert reported_variant(retired) == "full"  # the sizes of another version are not known


def test_the_board_shows_copies_as_copies_and_counts_them_in_no_mean() -> None:
    others = [run(0.4, task=task, protocol="laptop") for task in LRA_TASKS if task != "retrieval"]
    (table,) = board([*others, old(17_437)]).tables
    assert table.rows[0].mean == pytest.approx((4 * 0.4 + 0.5) / 5, abs=1e-3)
    made = board([*others, old(508)])
    (table,) = made.tables
    assert [c.variant for c in table.columns if c.task == "retrieval"] == ["copy"]
    assert table.rows[0].mean is None
    assert {f.mean for f in table.baselines} == {None}
    own_tables = str(render(made, "md")).partition("### Reported")[0].splitlines()
    assert not any("5-task mean" in line for line in own_tables if line.startswith("|"))
    assert "Retrieval (AAN)<br>copy" in str(render(made, "md"))
    rows = str(render(made, "csv")).splitlines()
    lines = [line for line in rows if ",retrieval," in line and "published" not in line]
    assert len(lines) == 1
    assert ",retrieval,copy," in lines[0]


def test_a_copy_stands_beside_other_data_of_its_task_in_a_table_of_its_own() -> None:
    """And the mean is that of the task's own data, as if there were no copy."""
    others = [run(0.4, task=task, protocol="laptop") for task in LRA_TASKS if task != "retrieval"]
    tables = board([*others, old(17_437, data="a" * 64), old(508)]).tables
    assert [[c.variant for c in t.columns if c.task == "retrieval"] for t in tables] == [["full"], ["copy"]]
    assert [t.rows[0].mean is None for t in tables] == [False, True]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: p.stem)
def test_committed_pairs_are_copies_where_they_are_not_the_sample(path: Path) -> None:
    record = rec.read(path)
    assert is_copy(reported_variant(record)) == (record.column.source != "sample")


def test_no_committed_mean_counts_a_copy() -> None:
    made = board(find([(results_directory(), "committed")]))
    for table in made.tables:
        with_copy = any(is_copy(c.variant) for c in table.columns)
        assert not (with_copy and any(row.mean is not None for row in (*table.rows, *table.baselines)))


@pytest.mark.slow
def test_real_copies(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRA_PREPARED", str(tmp_path))
    found: dict[str, Prepared] = {task: prepare(task, "full") for task in ("text", "retrieval", "image")}
    assert {task: data.column_variant for task, data in found.items()} == {
        "text": "full",
        "retrieval": "copy",
        "image": "full",
    }
