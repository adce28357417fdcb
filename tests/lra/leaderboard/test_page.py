"""The page of the board: what it says, that nothing on it comes alive, and that it works in a browser."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import html
import io
import json
import re
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import run_lra
from lra import api
from lra import config as cfg
from lra.config_file import from_json
from lra.leaderboard import build as leaderboard
from lra.leaderboard.html import as_html
from lra.leaderboard.html.charts import curves
from lra.leaderboard.html.repeat import command
from lra.paths import results_directory
from lra.record import files as record
from lra.record.facts import retired
from lra.record.files import Found
from tests.chromium import CHROMIUM, Page, page
from tests.lra.leaderboard.test_leaderboard import floor, run

HOSTILE = "x\"><script>document.title='pwned'</script><img src=x onerror=alert(1)>'; rm -rf / #{{ 7*7 }}"


def found() -> list[Found]:
    committed = record.find([(results_directory(), "committed")])
    return [f for f in committed if f.record["column"]["protocol"] in ("laptop", None)]


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
    text = as_html(leaderboard.board([run(0.38, seed=0), run(0.40, seed=1), run(0.35, mixer="softmax"), floor(0.36)]))
    row = re.search(r'<tr data-mixer="cosformer".*?</tr>', text, re.S)
    assert row is not None
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row[0]))
    assert "39.0±1.4 (2)" in plain
    assert "36.0 to 42.1" in plain  # of 1,000 examples, by Wilson
    runs = re.findall(r'href="#(run-\d+)">s(\d)', row[0])
    assert [seed for _, seed in runs] == ["0", "1"]
    for place, seed in runs:
        section = re.search(rf'<details class="run" id="{place}".*?</summary>', text, re.S)
        assert section is not None
        assert f"seed {seed}" in section[0]


def test_a_cell_has_its_difference_from_the_best_row() -> None:
    text = as_html(leaderboard.board([run(0.4), run(0.3, mixer="softmax")]))
    low, high = -0.1 - 1.96 * 0.3 / 1000**0.5, -0.1 + 1.96 * 0.3 / 1000**0.5  # one in ten is right in the best alone
    (found,) = re.findall(r"<small>−(\d+\.\d) \(−(\d+\.\d) to −(\d+\.\d)\)</small>", text)
    assert [float(x) for x in found] == pytest.approx([10.0, -100 * low, -100 * high], abs=0.15)


def test_memory_of_other_measures_is_not_mixed() -> None:
    """Earlier records have the memory of the process, half a gigabyte of it the interpreter's."""

    def of(mixer: str, mib: int, **other: Any) -> Found:
        return run(0.4, mixer=mixer, peak_bytes=mib * 2**20, **other)

    new = {"chance": 0.2}
    earlier = [of("softmax", 600), of("cosformer", 550)]
    later = [of("softmax", 80, seed=1, **new), of("cosformer", 20, seed=1, **new)]
    unknown = [run(0.4, mixer="lru", peak_bytes=None, chance=0.2)]
    text = as_html(leaderboard.board(earlier))
    assert "the area is the peak memory of the whole process, interpreter and compiler included." in text
    assert text.count("<small>process</small>") == 2
    mixed = leaderboard.board([*earlier, *later, *unknown])
    rows = csv.DictReader(io.StringIO(str(leaderboard.render(mixed, "csv"))))
    assert [row["peak_of_process"] for row in rows if row["origin"] == "yours"] == ["True"] * 2 + ["False"] * 3
    text = as_html(mixed)
    assert "the area is the peak memory of training steps, without the interpreter and the compiler." in text
    assert re.findall(r"speed, (\d+) MiB", text) == ["80", "20"]
    assert len(re.findall(r'<td class="number">–</td><td>A Processor', text)) == 1


def test_each_run_has_one_section_and_each_link_an_end() -> None:
    tags = Tags(as_html(leaderboard.board(found())))
    ids = tags.ids()
    assert len(ids) == len(set(ids))
    targets = [str(a["href"])[1:] for tag, a in tags.tags if tag == "a"]
    assert len(targets) > 8
    assert set(targets) <= set(ids)
    runs = [f for f in found() if f.record["kind"] == "run" and not retired(f.record)]
    assert sum(i.startswith("run-") for i in ids) == len(runs)


def test_a_second_run_of_a_seed_is_shown_and_does_not_count() -> None:
    again = run(0.5, created="2026-02-01T00:00:00+00:00")
    again.record["id"] += "-again"
    text = as_html(leaderboard.board([run(0.4), again]))
    assert len(re.findall(r'<details class="run"', text)) == 2
    assert len(re.findall("an earlier run of this seed counts", text)) == 1
    assert re.findall(r'data-sort="0.[45]">[^<]*<small>', text) == ['data-sort="0.4">40.0<small>']


def test_runs_that_do_not_count_keep_their_order() -> None:
    """Whatever Python's hashes of texts are in this process."""
    again = [run(0.5, created=f"2026-02-{day:02}T00:00:00+00:00") for day in range(1, 13)]
    for n, f in enumerate(again):
        f.record["id"] += f"-again{n:02}"
    text = as_html(leaderboard.board([run(0.4), *again]))
    assert re.findall(r"again(\d\d);", text) == [f"{n:02}" for n in range(12)]


def hostile() -> list[Found]:
    """Records all of whose texts are an attack."""

    def poisoned(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: poisoned(v) for k, v in value.items()}
        if isinstance(value, list):
            return [poisoned(v) for v in value]
        return HOSTILE if isinstance(value, str) else value

    made = []
    for seed, f in enumerate([run(0.4), run(0.3, mixer="softmax"), floor(0.36)]):
        r = json.loads(json.dumps(f.record))
        kept = {k: r[k] for k in ("kind", "status", "test", "created")}
        config, numbers = r.get("config"), {"commit": "0" * 40}
        named = {k: r["column"][k] for k in ("task", "protocol")}  # nothing else is read as a record
        r = poisoned(r) | kept | ({"config": poisoned(config) | {"train": config["train"]}} if config else {})
        r["column"] |= named
        r["id"], r["code"]["git_commit"] = f"{HOSTILE}{seed}", numbers["commit"]
        if r["kind"] == "run":
            r["mixer"] = {"name": HOSTILE, "label": HOSTILE + str(seed), "options": {HOSTILE: HOSTILE}, "sha256": None}
        made.append(dataclasses.replace(f, record=r))
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

    def configured(config: Any, *_: Any, **__: Any) -> list[Any]:
        made["config"] = json.loads(json.dumps(cfg.meaning(config)))
        return []

    monkeypatch.setattr(api, "run_seeds", configured)
    committed = record.find([(results_directory(), "committed")])
    runs = [f.record for f in committed if f.record["kind"] == "run" and not retired(f.record)]
    some = {(r["mixer"]["label"], r["column"]["task"], r["column"]["modified"]): r for r in runs}
    for r in [r for i, r in enumerate(some.values()) if i % 5 == 0 or r["column"]["modified"]]:
        words = shlex.split(command(r))
        run_lra.main(words[2:])
        recorded = cfg.meaning(from_json({"mixer": r["mixer"]["name"], **r["config"]}))  # with fields of later versions
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
    made = run(0.3)
    changed = {"task": "listops", "protocol": "quick", "protocol_version": config.protocol_version}
    r = made.record | {
        "column": made.record["column"] | changed,
        "mixer": {"name": "local", "label": "local(window=8)", "options": {"window": 8}, "sha256": None},
        "seed": 3,
        "config": json.loads(json.dumps(cfg.meaning(config))),
    }
    assert command(r) == (
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


def test_curves_end_where_their_values_are_and_leave_out_what_is_no_number() -> None:
    made = curves("", [("a", 0, [(0, 10.0), (50, float("nan")), (100, 20.0)])], "%")
    assert made is not None
    first, last = ([float(x) for x in p.split(",")] for p in made.lines[0].points.split())
    a = made.axes
    assert (first, last) == ([a.left, a.bottom], [a.right, a.top])
    assert {t.text: round(t.at) for t in a.x_ticks}["100"] == a.right
    assert curves("", [("a", 0, [])], "%") is None


# ---- in a browser


@pytest.fixture(scope="module")
def shown() -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium: Debian's package is called chromium")
    with page() as opened:
        yield opened


@pytest.fixture
def board_file(tmp_path: Path) -> Path:
    file = tmp_path / "board.html"
    file.write_text(as_html(leaderboard.board(found())))
    return file


def names(shown: Page, where: str) -> list[str]:
    rows = f"[...document.querySelectorAll('{where} > .scroll tbody tr')].filter(r => r.offsetParent !== null)"
    return list(shown.value(f"{rows}.map(r => r.dataset.mixer)"))


@pytest.mark.parametrize("size", [(1280, 900), (360, 740)])
def test_opens_without_a_word_in_the_console_and_fits(shown: Page, board_file: Path, size: tuple[int, int]) -> None:
    shown.said.clear()
    shown.open(board_file, *size)
    assert shown.value("document.querySelectorAll('svg').length") > 10
    assert shown.value("document.documentElement.scrollWidth") <= size[0]
    assert shown.said == []


def test_sorts_by_number_and_by_name(shown: Page, board_file: Path) -> None:
    shown.open(board_file)
    head = "document.querySelectorAll('#table-1 thead .sort')"
    values = "[...document.querySelectorAll('#table-1 > .scroll tbody tr')].map(r => r.cells[2].dataset.sort)"
    shown.value(f"{head}[2].click()")
    down = shown.value(values)
    assert [float(v) for v in down if v is not None] == sorted((float(v) for v in down if v is not None), reverse=True)
    assert shown.value(f"{head}[2].closest('th').getAttribute('aria-sort')") == "descending"
    shown.value(f"{head}[2].click()")
    up = [float(v) for v in shown.value(values) if v is not None]
    assert up == sorted(up)
    assert len(set(up)) > 2
    shown.value(f"{head}[0].click()")
    assert names(shown, "#table-1") == sorted(names(shown, "#table-1"))


def test_filters_rows_runs_and_protocols(shown: Page, board_file: Path) -> None:
    shown.open(board_file)
    before = names(shown, "#table-1")
    assert {"cosformer", "linear", "majority class"} <= set(before)
    change = "dispatchEvent(new Event('input', {bubbles: true}))"
    shown.value(f"filter.value = 'COSf'; filter.{change}; baselines.checked = false; baselines.{change}")
    assert set(names(shown, "#table-1")) == {"cosformer"}
    faded = "[...document.querySelectorAll('.faded')].map(d => d.dataset.name)"
    assert any("linear" in name for name in shown.value(faded))
    assert not any("cosformer" in name or name in ("training", "validation") for name in shown.value(faded))
    visible = "[...document.querySelectorAll('.run')].filter(r => !r.hidden).map(r => r.dataset.mixer)"
    assert set(shown.value(visible)) == {"cosformer"}
    shown.value(f"filter.value = ''; filter.{change}; baselines.checked = true; baselines.{change}")
    assert names(shown, "#table-1") == before


def test_a_link_opens_its_run_and_the_theme_changes(shown: Page, board_file: Path) -> None:
    shown.open(board_file)
    shown.value("document.querySelector('#table-1 tbody a').click()")
    shown.value("new Promise(done => setTimeout(done, 200))")
    place = shown.value("location.hash.slice(1)")
    assert shown.value(f"document.getElementById('{place}').open") is True
    paper = "getComputedStyle(document.body).backgroundColor"
    before = shown.value(paper)
    shown.value("document.getElementById('theme').click()")
    assert shown.value(paper) != before


def test_hostile_records_stay_text(shown: Page, tmp_path: Path) -> None:
    file = tmp_path / "hostile.html"
    file.write_text(as_html(leaderboard.board(hostile())))
    shown.said.clear()
    shown.open(file)
    assert shown.value("document.title") == "Long-Range Arena: leaderboard"
    assert shown.said == []


def test_dark_text_is_readable(shown: Page, board_file: Path) -> None:
    """Contrast of text and paper, by WCAG's formula, in both schemes: at least 7 to 1."""

    def luminance(rgb: str) -> float:
        channels = np.array([int(c) for c in re.findall(r"\d+", rgb)[:3]]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for dark in (False, True):
        shown.open(board_file, dark=dark)
        style = "getComputedStyle(document.body)"
        light = sorted(luminance(shown.value(f"{style}.{name}")) for name in ("color", "backgroundColor"))
        assert (light[1] + 0.05) / (light[0] + 0.05) >= 7
