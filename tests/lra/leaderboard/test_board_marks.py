"""The marks of the board: in every format, judged today, whatever a record says of itself."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from typing import Any

import numpy as np
import pytest

from lra.leaderboard.build import board, render
from lra.leaderboard.text import numbers_text
from lra.leaderboard.types import LeaderboardCell
from lra.record import facts as record_facts
from lra.record.files import RecordFile, pack
from tasks import LRA_TASKS
from tests.lra.edited import edited
from tests.lra.leaderboard.test_leaderboard import run, shown, trivial

TEXTS = ("table", "md", "latex", "html")


def plain(found: list[RecordFile], format: Any) -> str:
    """A rendered board with its entities, tags and LaTeX commands undone."""
    text = " ".join(re.sub(r"<small>.*?</small>|<[a-z/][^>]*>", " ", shown(render(board(found), format), 160)).split())
    for entity, character in (("&lt;", "<"), (r"\approx", "≈"), (r"\equiv", "≡"), (r"\triangledown", "▽")):
        text = text.replace(entity, character)
    for command, character in ((r"\dagger", "†"), (r" $\pm$ ", "±"), ("$^{", ""), ("}$", ""), (r"\textbf", "")):
        text = text.replace(command, character)
    return re.sub(r"[{}$]", "", text)


def csv_rows(found: list[RecordFile]) -> list[dict[str, str]]:
    """Of records; published figures follow them."""
    rows = csv.DictReader(io.StringIO(shown(render(board(found), "csv"))))
    return [row for row in rows if row["origin"] != "published"]


def cells(found: list[RecordFile]) -> dict[str, LeaderboardCell]:
    return {r.label: r.cells[0] for t in board(found).tables for r in t.rows if r.cells[0]}


def with_test(f: RecordFile, **changes: Any) -> RecordFile:
    """The same record with other parts of its test."""
    return edited(f, {f"test.{name}": value for name, value in changes.items()})


# ---- chance


def constant(seed: int = 0, mixer: str = "cosformer") -> RecordFile:
    """Names the class that has 505 of 1,000 test examples; in train the other one is the more frequent by a few."""
    f = run(0.505, mixer=mixer, seed=seed, task="pathfinder", majority=0.495)
    return with_test(f, confusion=[[505, 0], [495, 0]], at_chance=False)


def test_a_constant_prediction_of_the_larger_test_class_is_at_chance() -> None:
    """Two standard errors above the majority class of train it would not be, and its record says that it is not."""
    cell = cells([constant()])["cosformer"]
    assert (cell.at_chance, cell.one_class) == ((True,), (True,))
    for format in TEXTS:
        assert "50.5≡" in plain([constant()], format), format
        assert "≡: the model predicts the same class" in plain([constant()], format), format
    (row,) = csv_rows([constant()])
    assert (row["at_chance"], row["one_class"], row["chance"]) == ("True", "True", "0.505")
    (table,) = json.loads(shown(render(board([constant()]), "json")))["tables"]
    assert (table["rows"][0]["cells"][0]["at_chance"], table["rows"][0]["cells"][0]["one_class"]) == ([True], [True])
    assert (table["columns"][0]["chance"], table["baselines"][0]["accuracies"]) == (0.505, [0.495])


def test_chance_is_judged_again_for_records_of_an_earlier_rule() -> None:
    """17.45 % is above 15.8 %, the majority class of train, and not above 16.95 %, the largest class of test."""
    f = run(0.1745, count=2_000, majority=0.1695, majority_accuracy=0.158)
    stale = with_test(f, at_chance=False)
    assert cells([stale])["cosformer"].at_chance == (True,)
    assert "17.4≈" in plain([stale], "md")
    above = with_test(run(0.30, count=2_000, majority=0.1695, majority_accuracy=0.158), at_chance=True)
    assert cells([above])["cosformer"].at_chance == (False,)


def test_stopped_runs_have_the_marks_of_chance_too() -> None:
    f = edited(constant(), {"status": "truncated", "steps.done": 120})
    for format in ("table", "md", "html"):
        assert "50.5≡" in plain([f], format)
    (table,) = json.loads(shown(render(board([f]), "json")))["tables"]
    stopped = table["truncated"][0]
    assert (stopped["at_chance"], stopped["one_class"], stopped["chance"]) == (True, True, 0.505)


def test_of_several_seeds_it_is_said_how_many_are_at_chance() -> None:
    some = [run(0.9, task="pathfinder", majority=0.505, seed=s) for s in range(2)]
    some += [run(0.51, task="pathfinder", majority=0.505, seed=2), constant(3)]
    assert "(4, 1≈, 1≡)" in plain(some, "md")
    assert "(4, 1≈, 1≡)" in plain(some, "latex")
    both = [run(0.51, task="pathfinder", majority=0.505, seed=0), constant(1)]
    assert "50.8±0.4 (2, 1≡)≈" in plain(both, "md")


# ---- the comparison with the best row


def seeds_of(
    mixer: str, rates: list[float], first: int = 0, origin: Any = "yours", count: int = 4_000
) -> list[RecordFile]:
    """Records whose test examples are right at random."""
    found = []
    for seed, rate in enumerate(rates, first):
        bits = np.random.RandomState(100 * len(mixer) + seed).rand(count) < rate
        f = run(float(bits.mean()), mixer=mixer, seed=seed, origin=origin, count=count)
        found.append(with_test(f, correct_bits=pack(np.packbits(bits))))
    return found


def compared() -> list[RecordFile]:
    return [
        *seeds_of("fnet", [0.8] * 5),
        *seeds_of("lru", [0.795] * 5),
        *seeds_of("linear", [0.5] * 5),
        *seeds_of("local", [0.6] * 3, first=4),
        *seeds_of("sparse", [0.9]),
    ]


def test_marks_of_the_comparison_are_three_and_stand_in_every_format() -> None:
    verdicts = {name: cell.comparison.verdict for name, cell in cells(compared()).items()}
    assert verdicts == {
        "fnet": "best",
        "lru": "not significantly different",
        "linear": "significantly worse",
        "local": "not compared",
        "sparse": "not compared",  # one seed, which the missing deviation shows
    }
    for format in TEXTS:
        text = plain(compared(), format)
        assert re.search(r"80\.\d±\d\.\d \(5\)(?![=<?])", text), format
        assert re.search(r"79\.\d±\d\.\d \(5\)=", text), format
        assert re.search(r"50\.\d±\d\.\d \(5\)<", text), format
        assert re.search(r"59\.\d±\d\.\d \(seeds 4-6\)\?", text), format
        assert re.search(r"(89|90)\.\d(?![=<?±\d])", text), format
        assert "= not significantly different; < significantly worse; ? not compared" in text, format
    (table,) = json.loads(shown(render(board(compared()), "json")))["tables"]
    standing = {row["label"]: row["cells"][0]["comparison"] for row in table["rows"]}
    assert standing["linear"]["verdict"] == "significantly worse"
    assert standing["linear"]["p_value"] < 0.05
    assert standing["linear"]["difference"]["mean"] == pytest.approx(-0.3, abs=0.02)
    assert standing["sparse"]["reason"] == "one seed"
    assert standing["sparse"]["difference"]["p_value"] is None


def test_one_seed_each_is_no_comparison() -> None:
    one_each = [run(0.5), run(0.2, mixer="lru")]
    assert cells(one_each)["lru"].comparison.reason == "one seed"
    for format in TEXTS:
        text = plain(one_each, format)
        assert "Every number is one seed, so rows are not compared with each other." in text
        assert "significantly worse" not in text


def test_origins_have_a_best_row_each() -> None:
    found = [*seeds_of("fnet", [0.8] * 5), *seeds_of("lru", [0.5] * 5, origin="committed")]
    assert {name: cell.comparison.verdict for name, cell in cells(found).items()} == {"fnet": "best", "lru": "best"}


def test_latex_is_bold_for_the_best_of_each_origin_and_its_equals() -> None:
    committed = [dataclasses.replace(f, origin="committed") for f in compared()]
    made = shown(render(board([*seeds_of("mega", [0.3] * 5), *committed]), "latex"))
    rows = [line.strip() for line in made.splitlines() if "&" in line]
    assert [row.split(" &")[0] for row in rows if "textbf" in row] == ["mega", "fnet", "lru"]
    assert [line.strip() for line in made.splitlines() if "multicolumn" in line] == [
        r"\multicolumn{2}{l}{yours} \\",
        r"\multicolumn{2}{l}{committed} \\",
    ]
    assert "Bold: the best row of a column" in made
    assert "not compared" in made
    (stopped,) = [row for row in rows if row.startswith("local")]
    assert stopped.endswith(r"(seeds 4-6)$^{?}$ \\")


def test_damaged_bits_are_not_compared() -> None:
    found = [*seeds_of("fnet", [0.8] * 5), *[with_test(f, correct_bits="x") for f in seeds_of("lru", [0.5] * 5)]]
    assert cells(found)["lru"].comparison.verdict == "not compared"


# ---- which seeds, which code, which data


def test_seeds_that_are_not_the_first_ones_are_named() -> None:
    for seeds, text in (((7,), "40.0 (seed 7)"), ((1, 4), "40.0±0.0 (seeds 1, 4)"), ((0, 2), "(seeds 0, 2)")):
        found = [run(0.4, seed=s) for s in seeds]
        assert cells(found)["cosformer"].other_seeds
        for format in TEXTS:
            assert text in plain(found, format), format
            assert "(seeds 1, 4): the seeds, where they are not the first ones" in plain(found, format)
    usual = [run(0.4), run(None, seed=1), run(0.4, seed=2)]  # one of the first three diverged
    assert not cells(usual)["cosformer"].other_seeds
    assert "40.0±0.0 (2, 1 diverged)" in plain(usual, "md")
    assert numbers_text([1, 4, 5, 7, 8, 9]) == "1, 4, 5, 7-9"


def test_seeds_of_other_code_or_hardware_are_marked() -> None:
    code = {"sha256": 64 * "1", "git_commit": None, "git_clean": None}
    same, other = 64 * "a", 64 * "b"
    files = {"files": {"a.py": same}}
    computing = [run(0.4, code=code | {"computing": {"sha256": same, **files}})]
    for found, mixed in (
        ([run(0.4), run(0.4, seed=1)], (False, False)),
        ([run(0.4), run(0.4, seed=1, code=code)], (True, False)),
        ([run(0.4), run(0.4, seed=1, cores=64)], (False, True)),
        ([run(0.4), run(None, seed=1, code=code)], (True, False)),
        # What computes is the same, whatever else of the suite has changed; a record without it has all of its code.
        (
            [*computing, run(0.4, seed=1, code={**code, "sha256": other, "computing": {"sha256": same, **files}})],
            (False, False),
        ),
        ([*computing, run(0.4, seed=1, code={**code, "computing": {"sha256": other, **files}})], (True, False)),
        ([*computing, run(0.4, seed=1, code={**code, "sha256": other})], (True, False)),
        ([*computing, run(0.4, seed=1, code=code)], (False, False)),
    ):
        # Of one's own runs of several codes, those of one code are shown; committed ones are shown together.
        found = [dataclasses.replace(f, origin="committed") for f in found]
        cell = cells(found)["cosformer"]
        assert (cell.mixed_code, cell.mixed_hardware) == mixed, found
        for format in TEXTS:
            assert ("†" in plain(found, format)) == any(mixed)
            assert ("different code or on different hardware" in plain(found, format)) == any(mixed)


def test_a_copy_of_another_size_is_named_and_is_in_no_mean() -> None:
    five = [run(0.1 * (i + 1), task=task) for i, task in enumerate(LRA_TASKS)]
    assert board(five).tables[0].rows[0].mean == pytest.approx(0.3)
    official = {"source": "official archive"}
    for small in ({"count": 508, **official}, {"variant": "copy", **official}):
        found = [run(0.3, task="retrieval", **small) if f.record.column.task == "retrieval" else f for f in five]
        (table,) = board(found).tables
        assert [c.copy for c in table.columns] == [c.task == "retrieval" for c in table.columns]
        assert table.rows[0].mean is None
        assert all(b.mean is None for b in table.baselines)
        assert "copy: a data set with other numbers of examples than LRA's" in plain(found, "md")
    assert "cut-copy" in plain([run(0.3, task="retrieval", count=508, **official)], "md")


# ---- versions


def retired() -> list[RecordFile]:
    task, protocol, mixer = run(0.4), run(0.4, seed=1), run(0.4, seed=2, origin="committed")
    return [
        edited(task, {"column.task_version": 99}),
        edited(protocol, {"column.protocol_version": 99}),
        edited(mixer, {"mixer.version": 99}),
    ]


def test_records_of_earlier_versions_are_counted_and_not_shown() -> None:
    old_baseline = edited(trivial(0.9), {"column.task_version": 99})
    found = [run(0.3), *retired(), old_baseline]
    made = board(found)
    assert [r.label for t in made.tables for r in t.rows] == ["cosformer"]
    assert (len(made.runs), len(made.baselines)) == (1, 0)
    assert made.tables[0].rows[0].cells[0].accuracies == (0.3,)
    line = "4 records of earlier versions are not shown; they are in results/ and runs/, see docs/versions.md."
    for format in TEXTS:
        assert line in plain(found, format).replace("\\", ""), format
        assert "40.0" not in plain(found, format)
        assert "docs/versions.md" not in plain([run(0.3)], format)
        assert "1 record of an earlier version is not shown; it is in runs/" in plain(retired()[:1], format)
    assert json.loads(shown(render(made, "json")))["retired"] == 4
    assert len(csv_rows(found)) == 1
    assert len(board(found, "quick").retired) == 3  # trivial baselines have no protocol
    assert len(board(found, "small").retired) == 0


def test_a_mixer_without_a_version_is_of_its_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_facts, "mixer_version", {"cosformer": 2, "linear": 1}.get)
    record = run(0.4).record
    assert record_facts.retired(record) == ["mixer cosformer version 1, today's is 2"]
    assert record_facts.retired(edited(record, {"mixer.version": 2})) == []
    assert record_facts.retired(run(0.4, mixer="linear").record) == []
    assert (
        record_facts.retired(edited(record, {"mixer.sha256": 64 * "0"})) == []
    )  # a file of one's own has a hash instead
