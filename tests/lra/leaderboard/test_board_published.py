"""Reported figures on the board: what is compared with what, and how Markdown, HTML, CSV and JSON show them."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from typing import Any

import pytest

from lra.leaderboard import published
from lra.leaderboard.build import board, render
from lra.leaderboard.published import export
from lra.leaderboard.reported import reproduced
from lra.record.files import RecordFile
from tasks import load_task
from tests.labels import parsed
from tests.lra.edited import edited
from tests.lra.leaderboard.test_leaderboard import run

OFFICIAL = "official archive"


def full(accuracy: float, label: str, task: str = "listops", protocol: str = "small", **other: Any) -> RecordFile:
    """A record of a mixer with options, tested on all examples of the full task of today's version."""
    name, options = parsed(label)
    card = load_task(task).CARD
    other = {"count": card.variants["full"].sizes["test"], "source": OFFICIAL} | other
    found = run(accuracy, mixer=name, task=task, protocol=protocol, **other)
    places = {"mixer.label": label, "mixer.options": options}
    places |= {"config.mixer_label": label, "config.mixer_options": options}
    return edited(found, places | {"column.task_version": card.version, "config.task_version": card.version})


def text(found: list[RecordFile], format: Any) -> str:
    shown = render(board(found), format)
    assert isinstance(shown, str)
    return shown


def pairs(found: list[RecordFile]) -> list[tuple[str, str, float, float, int]]:
    return [(p.mixer, p.task, p.reported, p.reproduced, p.seeds) for p in reproduced(board(found))]


def test_reported_and_reproduced_are_listed_side_by_side() -> None:
    found = [full(0.38, "softmax", seed=0), full(0.40, "softmax", seed=1)]
    (pair,) = reproduced(board(found))
    assert pair.difference == pytest.approx(39.00 - 38.37)
    page = text(found, "md")
    assert "| softmax | ListOps | small@" in page
    assert "| 38.37 | 39.00 (2) | +0.63 | Skyformer" in page
    assert "Nothing yet" not in page
    assert "Nothing yet" in text([full(0.3, "cosformer")], "md")


@pytest.mark.parametrize(
    ("label", "task", "protocol", "reported"),
    [
        ("performer(kernel=relu, features=0)", "text", "lra", 65.40),
        ("performer(features=2, redraw=True)", "text", "lra", None),  # the form of ListOps
        ("performer", "text", "lra", None),
        ("cosformer", "text", "lra", None),
        ("nystromformer(landmarks=128, taps=None, segments=padded, drop_weights=False)", "listops", "small", 38.51),
        ("nystromformer", "listops", "small", None),
        ("skyformer", "image", "small", 40.77),
        ("skyformer(kind=kernelized)", "image", "small", 41.29),
        ("bigbird(random_span=1024, drop_weights=False)", "text", "small", 63.86),
        ("bigbird(drop_weights=False)", "text", "small", None),
        ("softmax", "listops", "laptop", None),  # follows no source
    ],
)
def test_only_an_equal_form_is_compared(label: str, task: str, protocol: str, reported: float | None) -> None:
    expected = [] if reported is None else [(label, task, reported, pytest.approx(50, abs=0.01), 1)]
    assert pairs([full(0.5, label, task, protocol)]) == expected


@pytest.mark.parametrize(
    "other",
    [
        {"overrides": {"train.steps": 10}},
        {"variant": "copy"},
        {"count": 1_000},  # of a data set of another size
        {"source": "sample"},
        {"limit": 100},
    ],
    ids=lambda other: next(iter(other)),
)
def test_only_the_protocol_on_the_full_task_is_compared(other: dict[str, Any]) -> None:
    assert len(pairs([full(0.4, "softmax")])) == 1
    assert pairs([full(0.4, "softmax", **other)]) == []


@pytest.mark.parametrize("field", ["protocol_version", "task_version"])
def test_results_of_another_version_are_not_compared(field: str) -> None:
    found = full(0.4, "softmax")
    version = getattr(found.record.column, field) + 1
    assert pairs([edited(found, {f"{part}.{field}": version for part in ("column", "config")})]) == []


def test_the_pages_list_all_published_rows() -> None:
    for page in (text([full(0.4, "softmax")], "md"), text([full(0.4, "softmax")], "html")):
        assert "As quoted in a translation of the paper." in page
        assert "Reported elsewhere: no protocol follows it." in page
        assert "37.60±0.65" in page
        assert "the hyper-parameters of this row are not published" in page
        for table in published.accuracy():
            for row in table.rows:
                assert row.name.replace("_", r"\_") in page or row.name in page.replace("&#39;", "'")
    page = text([], "md")
    assert "| SpaceTime | 56.4 | 87.8 | 91.45 | 86.27 | X | X | 70.32 |" in page
    assert "| xLSTM | 41.1 | – | 90.6 | 69.5 | 91.9 | – | – |" in page


# ---- CSV and JSON


def csv_lines(found: list[RecordFile] | None = None) -> list[dict[str, str]]:
    lines = csv.DictReader(io.StringIO(text(found or [], "csv")))
    return [line for line in lines if line["origin"] == "published"]


def test_csv_has_a_line_for_each_figure_and_average() -> None:
    lines = csv_lines([full(0.4, "softmax")])
    tables = published.accuracy()
    values = [value for t in tables for r in t.rows for value in (*r.figures.values(), r.average)]
    assert len(lines) == sum(value != "-" for value in values)
    assert {line["kind"] for line in lines} == {"published"}
    by_row = {(line["source"].partition(" ")[0], line["mixer"], line["task"]): line for line in lines}
    line = by_row["cosFormer", "Performer", "listops"]
    assert (line["accuracy"], line["protocol"], line["form"]) == ("0.1801", "lra", "performer(features=2, redraw=True)")
    assert (line["status"], line["quoted_in"], line["averaging"]) == ("reported", "", "")
    line = by_row["RTF", "SpaceTime", "pathx"]
    assert (line["accuracy"], line["status"], line["form"]) == ("", "failed", "")
    line = by_row["LSSO", "LSSO", "listops"]
    assert (line["accuracy"], line["deviation"]) == ("0.376", "0.0065")
    line = by_row["SPADE", "SPADE", "average"]
    assert (line["accuracy"], line["averaging"]) == ("0.874", "not stated")
    assert line["quoted_in"] == "a page that collects results"
    assert ("xLSTM", "xLSTM", "text") not in by_row


def test_the_columns_of_records_come_first_and_stay() -> None:
    head = text([], "csv").splitlines()[0].split(",")
    assert head[:5] == ["origin", "file", "kind", "status", "id"]
    assert head[-6:] == ["message", "deviation", "form", "quoted_in", "family", "averaging"]


def test_published_text_is_no_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    row = published.Row("=1+1", {"listops": Decimal(1)}, published.Missing.NOT_GIVEN, {}, {"listops": "@a"}, "+1")
    table = published.Accuracy("-1", "\t=1", "not stated", ("listops",), (row,), quoted_in="=2")
    monkeypatch.setattr(export, "accuracy", lambda: (table,))
    (line,) = csv_lines()
    for column in ("mixer", "source", "family", "quoted_in", "form", "message"):
        assert line[column].startswith("'"), column


def test_json_has_the_published_tables() -> None:
    tables = json.loads(text([full(0.4, "softmax")], "json"))["published"]
    assert [t["source"] for t in tables] == [t.source for t in published.accuracy()]
    by_source = {t["source"].partition(" ")[0]: t for t in tables}
    paper = by_source["cosFormer"]
    assert (paper["protocol"], paper["quoted_in"], paper["unit"]) == ("lra", "", "per cent")
    performer = next(row for row in paper["rows"] if row["name"] == "Performer")
    assert performer["figures"]["listops"] == 18.01
    assert performer["average"] == 51.41
    assert performer["labels"]["listops"] == "performer(features=2, redraw=True)"
    assert performer["labels"]["text"] == "performer(kernel=relu, features=0)"
    xlstm = by_source["xLSTM"]["rows"][0]
    assert (xlstm["figures"]["text"], xlstm["average"], xlstm["labels"]) == ("not given", "not given", {})
    assert by_source["RTF"]["rows"][1]["figures"]["pathx"] == "failed"
    assert by_source["LSSO"]["rows"][0]["deviations"]["pathfinder"] == 0.34
