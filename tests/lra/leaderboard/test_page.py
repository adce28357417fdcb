"""The page of the board: what it says, and that no text of a record becomes markup."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import html
import io
import itertools
import json
import re
import shlex
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

import run_lra
from lra import api
from lra import config as cfg
from lra.config import RunConfig
from lra.leaderboard import build as leaderboard
from lra.leaderboard.html import as_html
from lra.leaderboard.html.charts import Curves, curves
from lra.leaderboard.html.rerun_command import command
from lra.paths import results_directory
from lra.record import files as record
from lra.record.facts import retired
from lra.record.field_types import Part
from lra.record.files import RecordFile, of_kind
from lra.record.schema import RunRecord
from tests.lra.edited import edited
from tests.lra.leaderboard.test_leaderboard import run, trivial

if TYPE_CHECKING:
    pass

HOSTILE = "x\"><script>document.title='pwned'</script><img src=x onerror=alert(1)>'; rm -rf / #{{ 7*7 }}"


def found() -> list[RecordFile]:
    committed = record.find([(results_directory(), "committed")])
    return [f for f in committed if f.record.column.protocol in ("laptop", None)]


class Tags(HTMLParser):
    """Tags with their attributes, and all ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def ids(self) -> list[str]:
        return [a["id"] or "" for _, a in self.tags if "id" in a]


def test_a_number_of_the_board_stands_on_the_page_with_its_interval_and_run() -> None:
    text = as_html(leaderboard.board([run(0.38, seed=0), run(0.40, seed=1), run(0.35, mixer="softmax"), trivial(0.36)]))
    row = re.search(r'<tr data-mixer="cosformer".*?</tr>', text, re.S)
    assert row is not None
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row[0]))
    assert "39.0±1.4 (2)" in plain
    assert "36.0 to 42.1" in plain  # of 1,000 examples, by Wilson
    runs = re.findall(r'href="#(run-\d+)">s(\d)', row[0])
    assert [seed for _, seed in runs] == ["0", "1"]
    for place, seed in runs:
        section = re.search(rf'<div class="detail" id="{place}">.*?</p>', text, re.S)
        assert section is not None
        assert f"seed {seed}" in section[0]


def test_a_cell_has_its_difference_from_the_best_row() -> None:
    text = as_html(leaderboard.board([run(0.4), run(0.3, mixer="softmax")]))
    low, high = -0.1 - 1.96 * 0.3 / 1000**0.5, -0.1 + 1.96 * 0.3 / 1000**0.5  # one in ten is right in the best alone
    (found,) = re.findall(r'<small class="difference">−(\d+\.\d) \(−(\d+\.\d) to −(\d+\.\d)\)</small>', text)
    assert [float(x) for x in found] == pytest.approx([10.0, -100 * low, -100 * high], abs=0.15)


def test_memory_of_other_measures_is_not_mixed() -> None:
    """Earlier records have the memory of the process, half a gigabyte of it the interpreter's."""

    def of(mixer: str, mib: int, **other: Any) -> RecordFile:
        return run(0.4, mixer=mixer, peak_bytes=mib * 2**20, **other)

    new = {"chance": 0.2}
    earlier = [of("softmax", 600), of("cosformer", 550), of("linear", 500)]
    later = [of("softmax", 80, seed=1, **new), of("cosformer", 20, seed=1, **new), of("linear", 10, seed=1, **new)]
    unknown = [run(0.4, mixer="lru", peak_bytes=None, chance=0.2)]
    text = as_html(leaderboard.board(earlier))
    assert "The area is the peak memory of the whole process, interpreter and compiler included." in text
    assert text.count("<small>process</small>") == 3
    mixed = leaderboard.board([*earlier, *later, *unknown])
    rows = csv.DictReader(io.StringIO(str(leaderboard.render(mixed, "csv"))))
    assert [row["peak_of_process"] for row in rows if row["origin"] == "yours"] == ["True"] * 3 + ["False"] * 4
    text = as_html(mixed)
    assert "The area is the peak memory of training steps, without the interpreter and the compiler." in text
    assert re.findall(r"steps/s, (\d+) MiB", text) == ["80", "20", "10"]
    assert "Not every task was run there by lru." in text
    assert len(re.findall(r'<td class="number">–</td><td>A Processor', text)) == 1


def test_each_run_has_one_section_and_each_link_an_end() -> None:
    tags = Tags(as_html(leaderboard.board(found())))
    ids = tags.ids()
    assert len(ids) == len(set(ids))
    targets = [str(a["href"])[1:] for tag, a in tags.tags if tag == "a"]
    assert len(targets) > 8
    assert set(targets) <= set(ids)
    runs = [f for f in of_kind(found(), RunRecord) if not retired(f.record)]
    assert sum(i.startswith("run-") for i in ids) == len(runs)


def test_a_second_run_of_a_seed_is_shown_and_does_not_count() -> None:
    again = run(0.5, created="2026-02-01T00:00:00+00:00")
    again = edited(again, {"id": f"{again.record.id}-again"})
    text = as_html(leaderboard.board([run(0.4), again]))
    assert len(re.findall(r'<details class="run"', text)) == 2
    assert len(re.findall("an earlier run of this seed counts", text)) == 1
    assert re.findall(r'data-sort="0.[45]">[^<]*<small>', text) == ['data-sort="0.4">40.0<small>']


def test_runs_that_do_not_count_keep_their_order() -> None:
    """Whatever Python's hashes of texts are in this process."""
    again = [run(0.5, created=f"2026-02-{day:02}T00:00:00+00:00") for day in range(1, 13)]
    again = [edited(f, {"id": f"{f.record.id}-again{n:02}"}) for n, f in enumerate(again)]
    text = as_html(leaderboard.board([run(0.4), *again]))
    assert re.findall(r"again(\d\d);", text) == [f"{n:02}" for n in range(12)]


def hostile() -> list[RecordFile]:
    """Records all of whose texts are an attack, also those that the schema would refuse."""

    def poisoned(value: Any) -> Any:
        if isinstance(value, Part):
            return value.model_copy(update={k: poisoned(v) for k, v in value})
        if isinstance(value, dict):
            return {k: poisoned(v) for k, v in value.items()}
        if isinstance(value, list):
            return [poisoned(v) for v in value]
        return HOSTILE if isinstance(value, str) else value

    made = []
    for seed, f in enumerate([run(0.4), run(0.3, mixer="softmax"), trivial(0.36)]):
        r, evil = f.record, poisoned(f.record)
        kept: dict[str, Any] = {k: getattr(r, k) for k in ("kind", "status", "test", "created")}
        # Nothing else is read as a record.
        kept["column"] = evil.column.model_copy(update={k: getattr(r.column, k) for k in ("task", "protocol")})
        kept["code"] = evil.code.model_copy(update={"git_commit": "0" * 40})
        if isinstance(r, RunRecord):
            kept["config"] = evil.config.model_copy(update={"train": r.config.train})
            named = {"name": HOSTILE, "label": HOSTILE + str(seed), "options": {HOSTILE: HOSTILE}, "sha256": None}
            kept["mixer"] = r.mixer.model_copy(update=named)
        made.append(dataclasses.replace(f, record=evil.model_copy(update={**kept, "id": f"{HOSTILE}{seed}"})))
    return made


def test_nothing_of_a_record_becomes_markup_address_or_id() -> None:
    text = as_html(leaderboard.board(hostile()))
    assert html.escape("<img src=x") in text  # it is there, as text
    tags = Tags(text)
    assert [tag for tag, _ in tags.tags].count("script") == 1
    assert {tag for tag, _ in tags.tags} & {"img", "iframe", "object", "base", "link"} == set()
    assert not [a for _, a in tags.tags for name in a if name.startswith("on") or name in ("style", "src", "srcdoc")]
    assert all(re.fullmatch(r"#[a-z]+(-\d+)?", str(a["href"])) for _, a in tags.tags if "href" in a)
    assert all(re.fullmatch(r"[a-z]+(-\d+)?", i) for i in tags.ids())
    assert "49" not in re.findall(r"#\{\{ 7\*7 \}\}|#49", text)
    assert "#49" not in text  # no second round through the template


def test_the_policy_names_the_page_s_own_style_and_script() -> None:
    text = as_html(leaderboard.board(found()))
    policy = next(a["content"] or "" for _, a in Tags(text).tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        inside = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        assert inside is not None
        digest = base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_a_board_without_records_says_how_to_begin() -> None:
    text = as_html(leaderboard.board([]))
    assert "python run_lra.py train --task listops" in text


def test_the_command_of_every_committed_run_gives_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the command line's own parser, to the settings of what would be run."""
    made = {}

    def configured(config: Any, **_: Any) -> None:
        made["config"] = json.loads(json.dumps(cfg.hashed_fields(config)))

    monkeypatch.setattr(api, "run_config", configured)
    monkeypatch.setattr(api, "summary", lambda _: "")
    committed = record.find([(results_directory(), "committed")])
    runs = [f.record for f in of_kind(committed, RunRecord) if not retired(f.record)]
    some = {(r.mixer.label, r.column.task, r.column.modified): r for r in runs}
    for r in [r for i, r in enumerate(some.values()) if i % 5 == 0 or r.column.modified]:
        words = shlex.split(command(r))
        run_lra.main(words[2:])
        recorded = cfg.hashed_fields(
            RunConfig.from_text(json.dumps({"mixer": r.mixer.name, **r.config.as_json()}))
        )  # with fields of later versions
        assert made["config"] == json.loads(json.dumps(recorded)), command(r)


def test_changes_of_every_kind_are_in_the_command() -> None:
    config = api.configure(
        "listops",
        "local",
        protocol="quick",
        options=("window=8",),
        seed=3,
        limit=50,
        overrides={"model.bias": False, "model.head": (8, 4), "train.learning_rate": 0.5, "max_len": 64},
    )
    changed = {
        "column.protocol_version": config.protocol_version,
        "mixer": {"name": "local", "label": "local(window=8)", "options": {"window": 8}, "sha256": None},
        "seed": 3,
        "config": json.loads(json.dumps(cfg.hashed_fields(config))),
    }
    assert command(edited(run(0.3).record, changed)) == (
        "python run_lra.py train --task listops --mixer local --protocol quick --seed 3 --max-len 64 --limit 50 "
        "--model.head 8 4 --model.no-bias --train.learning-rate 0.5 --mixer-options window=8"
    )


@pytest.mark.parametrize(
    ("task", "source", "flag"),
    [
        ("listops", "generated, seed 1804", None),  # the default of a task that is generated
        ("listops", "sample, seed 1805", "sample"),
        ("listops", "official", "official"),
        ("image", "official", None),
        ("image", "sample", "sample"),
    ],
)
def test_the_command_names_a_source_that_is_not_the_default(task: str, source: str, flag: str | None) -> None:
    words = shlex.split(command(run(0.3, task=task, source=source).record))
    assert (words[words.index("--source") + 1] if "--source" in words else None) == flag


def drawn(made: Curves) -> list[tuple[int, int]]:
    """The points of the first curve: its path has steps."""
    numbers = list(map(int, re.findall(r"-?\d+", made.lines[0].path)))
    return list(zip(itertools.accumulate(numbers[::2]), itertools.accumulate(numbers[1::2]), strict=True))


def test_curves_end_where_their_values_are_and_leave_out_what_is_no_number() -> None:
    made = curves("", [("a", "other", "", [(0, 10.0), (50, float("nan")), (100, 20.0)])], "%")
    assert made is not None
    first, last = drawn(made)
    a = made.axes
    assert (first, last) == ((a.left, a.bottom), (a.right, a.top))
    assert {t.text: t.at for t in a.x_ticks}["100"] == a.right
    assert curves("", [("a", "other", "", [])], "%") is None


def test_a_long_curve_is_averaged_to_at_most_seventy_points() -> None:
    made = curves("", [("a", "other", "", [(i + 1, float(i % 3)) for i in range(198)])], "%")
    assert made is not None
    points = drawn(made)
    assert len(points) == 66
    assert len({y for _, y in points}) == 1
    assert points[-1][0] == made.axes.right


# ---- what a reader sees first, and how much there is


def page_of_all_records() -> str:
    """Return the page of all committed records, also those of earlier versions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaderboard, "retired", lambda _: [])
        return as_html(leaderboard.board(record.find([(results_directory(), "committed")])))


@pytest.fixture(scope="module")
def committed() -> str:
    return page_of_all_records()


def test_the_page_of_the_committed_records_is_below_one_megabyte() -> None:
    page = as_html(leaderboard.board(record.find([(results_directory(), "committed")])))
    assert len(page.encode()) < 1_000_000


@pytest.mark.parametrize(
    ("protocol", "origin", "drawn"), [("quick", "committed", 0), ("quick", "yours", 2), ("laptop", "committed", 2)]
)
def test_a_committed_smoke_test_is_shown_without_its_curves(protocol: str, origin: str, drawn: int) -> None:
    page = as_html(leaderboard.board([run(0.4, protocol=protocol, origin=origin)]))
    (detail,) = re.findall(r'<details class="run".*?</details>', page, re.S)
    assert len(re.findall("<figcaption>(?:Accuracy|Loss)", detail)) == drawn
    assert "<figcaption>Confusion" in detail


def test_headings_are_unique(committed: str) -> None:
    data = [run(0.4), run(0.3, seed=1, data="f" * 64), run(0.2, seed=2, data="e" * 64)]  # of equal sources
    for text in (committed, as_html(leaderboard.board(data))):
        headings = [" ".join(re.sub("<[^>]+>", " ", h).split()) for h in re.findall(r"<h\d>(.*?)</h\d>", text, re.S)]
        assert len(headings) > 3
        assert len(set(headings)) == len(headings)


def test_the_strongest_table_is_first_and_quick_is_last_and_folded(committed: str) -> None:
    labels = re.findall(r'data-protocol="([^"]+)"', committed)
    assert labels[0].startswith("laptop@")
    quick = committed.index('<details class="quick">')
    assert committed.rindex("<h2>") == committed.index("<h2>", quick)
    above = set(re.findall(r'data-protocol="([^"]+)"', committed[:quick]))
    assert above == {label for label in labels if not label.startswith("quick@")} < set(labels)
    protocols = ("laptop", "small", "laptop+shuffle", "quick")
    several = [run(0.4, mixer=name, protocol=p) for name in ("softmax", "lru") for p in protocols]
    text = as_html(leaderboard.board([*several, run(0.4, protocol="lra")]))
    assert [label.split("@")[0] for label in re.findall(r'data-protocol="([^"]+)"', text)] == [
        *("small", "laptop", "lra", "laptop+shuffle", "quick")  # one mixer under lra is no comparison
    ]
    assert '<details class="quick" open>' in as_html(leaderboard.board([run(0.4)]))


def scores_of(text: str) -> list[tuple[str, str]]:
    """The numbers of each table of scores as one text, and its legend."""
    found = []
    for table, legend in re.findall(
        r'<table>((?:(?!<table>).)*?)</table>\s*</div>\s*<p class="legend">(.*?)</p>', text, re.S
    ):
        cells = re.findall(r'<td class="number"[^>]*>(.*?)(?:<small|</td>)', table, re.S)
        found.append(("\n".join(html.unescape(re.sub("<[^>]+>", "", cell)) for cell in cells), html.unescape(legend)))
    return found


def test_a_number_has_at_most_two_marks_and_the_legend_explains_those_that_occur(committed: str) -> None:
    marks = "≈≡▽=<?†"
    mixed = [run(0.2, seed=s, mixer=m, cores=s + 1) for m in ("lru", "softmax") for s in range(3)]
    mixed += [run(0.5, seed=s, mixer="fnet") for s in range(3)]
    tables = [*scores_of(committed), *scores_of(as_html(leaderboard.board([*mixed, trivial(0.3)])))]
    assert len(tables) >= 4
    for numbers, legend in tables:
        assert max(sum(c in marks for c in number) for number in numbers.splitlines()) <= 2
        explained = {mark for mark in marks if re.search(rf"(?:^|[ ;]){re.escape(mark)}:? ", legend)}
        assert {c for c in numbers if c in marks} <= explained
        runs_have = {"≈", "≡"}  # the list of runs has these two of its own
        assert explained - runs_have <= set(numbers)
    assert {"≈", "<"} <= set(tables[-1][0])
    assert "▽" not in tables[-1][0]


def test_the_best_of_each_column_is_bold_and_the_sorted_column_is_marked() -> None:
    made = [("cosformer", "listops", 0.4), ("softmax", "listops", 0.3), ("lru", "text", 0.9)]
    runs = [run(accuracy, mixer=mixer, task=task, protocol="laptop") for mixer, task, accuracy in made]
    text = as_html(leaderboard.board(runs))
    assert re.findall("<b>([^<]*)</b>", text.split("</table>")[0]) == ["40.0"]  # a single number is not the best of any
    assert re.findall(r'aria-sort="(\w+)"><button[^>]*>(\w+)', text) == [("descending", "ListOps")]
    assert re.findall(r'<tr data-mixer="(\w+)" data-origin="yours">\s*<th', text)[:2] == ["cosformer", "softmax"]


def test_published_rows_stand_in_the_table_of_their_mixers() -> None:
    runs = [run(0.4, protocol="laptop", mixer=name) for name in ("cosformer", "softmax")]
    text = as_html(leaderboard.board(runs)).split("</table>")[0]
    rows = re.findall(r'<tr data-mixer="([^"]+)">\s*<th[^>]*>.*?</th>\s*<td[^>]*>([^<]*)<', text, re.S)
    assert ("cosFormer", "37.90") in rows
    assert ("Transformer", "36.37") in rows
    assert "Linformer" not in dict(rows)
    other = as_html(leaderboard.board([run(0.9, task="pathfinder", protocol="laptop")])).split("</table>")[0]
    assert "70.33" not in other  # of 32 x 32 pixels, and these have 16 x 16
    small = as_html(leaderboard.board([run(0.4, protocol="small", mixer="softmax")])).split("</table>")[0]
    assert "Skyformer (Chen et al., 2021)" in small  # the source that this protocol follows
    assert "cosFormer" not in small


def test_a_chart_of_speed_that_lacks_records_is_a_sentence(committed: str) -> None:
    text = as_html(leaderboard.board([run(0.4), run(0.3, mixer="softmax")]))
    assert 'class="bubble"' not in text
    assert "needs 3 mixers that ran every task on the same hardware, and there are 2." in text
    assert committed.count("records have no accuracy by length") == committed.count('class="speed"') > 1
