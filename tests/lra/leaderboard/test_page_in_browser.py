"""The page of the leaderboard in a browser."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from lra import config as cfg
from lra.leaderboard import build as leaderboard
from lra.leaderboard.html import as_html
from tests.chromium import browser, missing
from tests.lra.leaderboard.test_leaderboard import run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

from tests.lra.leaderboard.test_page import found, hostile, page_of_all_records

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if reason := missing():
        pytest.skip(reason)
    with browser() as opened:
        yield opened


@dataclasses.dataclass
class Opened:
    """A page, and what its console and its network have shown."""

    page: Page
    events: list[str]


def open_page(chromium: Browser, path: Path, size: tuple[int, int] = (1280, 900), scheme: str = "light") -> Opened:
    page = chromium.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    opened = Opened(page, [])
    page.on("console", lambda message: opened.events.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: opened.events.append(f"uncaught: {error}"))
    page.on("request", lambda request: opened.events.append(request.url))
    page.goto(path.as_uri())
    opened.events.remove(path.as_uri())
    return opened


@pytest.fixture
def board_path(tmp_path: Path) -> Path:
    path = tmp_path / "board.html"
    path.write_text(as_html(leaderboard.board(found())))
    return path


@pytest.fixture
def page(chromium: Browser, board_path: Path) -> Iterator[Page]:
    opened = open_page(chromium, board_path).page
    yield opened
    opened.close()


def row_names(page: Page, section: str, group: str = "") -> list[str]:
    rows = page.locator(f"{section} > .scroll tbody{group} tr[data-mixer]").filter(visible=True)
    return list(rows.evaluate_all("rows => rows.map(row => row.dataset.mixer)"))


@pytest.mark.parametrize("size", [(1280, 900), (360, 740)])
def test_the_page_fits_and_neither_its_console_nor_its_network_shows_anything(
    chromium: Browser, board_path: Path, size: tuple[int, int]
) -> None:
    opened = open_page(chromium, board_path, size)
    assert opened.page.locator("svg").count() > 10
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert opened.events == []


def test_the_events_of_a_page_would_show_an_error_and_a_request(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("<script>setTimeout(() => { throw Error('no') })</script><img src='file:///no.png'>")
    opened = open_page(chromium, path)
    opened.page.wait_for_timeout(200)
    assert any("uncaught: no" in event for event in opened.events)
    assert "file:///no.png" in opened.events


def test_a_heading_sorts_each_group_by_number_and_by_name(page: Page) -> None:
    head = page.locator("#table-1 thead .sort")
    cells = page.locator("#table-1 .committed tr > td:nth-child(2)")

    def values() -> list[float]:
        numbers = cells.evaluate_all("cells => cells.map(cell => cell.dataset.sort)")
        return [float(number) for number in numbers if number is not None]

    assert values() == sorted(values(), reverse=True)  # as the page says before anything is clicked
    assert page.locator("#table-1 thead th").nth(1).get_attribute("aria-sort") == "descending"
    head.nth(1).click()
    assert values() == sorted(values())
    assert page.locator("#table-1 thead th").nth(1).get_attribute("aria-sort") == "ascending"
    assert len(set(values())) > 2
    head.nth(0).click()
    assert page.locator("#table-1 thead [aria-sort]").count() == 1
    for group in (".committed", ".baseline"):
        names = row_names(page, "#table-1", group)
        assert names == page.evaluate("names => names.toSorted((a, b) => a.localeCompare(b))", sorted(names))
    assert page.locator("#table-1 tbody tr:first-child.group").count() == 3


def test_rows_runs_and_protocols_are_filtered(page: Page) -> None:
    before = row_names(page, "#table-1")
    assert {"cosformer", "linear", "majority class"} <= set(before)
    matching = [name for name in row_names(page, "#table-1", ".committed") if "cosf" in name.lower()]
    page.fill("[name=mixer]", "COSf")
    page.uncheck("[name=baselines]")
    assert row_names(page, "#table-1", ".committed") == matching
    assert "majority class" not in row_names(page, "#table-1")
    runs = page.locator("#table-1 .run:not([hidden])").evaluate_all("runs => runs.map(run => run.dataset.mixer)")
    assert set(runs) == set(matching)
    page.fill("[name=mixer]", "")
    page.check("[name=baselines]")
    assert row_names(page, "#table-1") == before
    page.check("[name=differences]")
    assert page.locator("#table-1 .difference").first.is_visible()


def test_a_protocol_is_selected(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "two.html"
    path.write_text(as_html(leaderboard.board([run(0.4), run(0.4, protocol="laptop")])))
    page = open_page(chromium, path).page
    assert not page.locator("#quick-1").is_visible()
    page.select_option("[name=protocol]", f"quick@{cfg.protocol('listops', 'quick').version}")
    assert page.locator("#quick-1").is_visible()
    assert not page.locator("#table-1").is_visible()


def test_a_selected_mixer_stands_out_in_the_charts(page: Page) -> None:
    for name in ("lru", "linear"):
        page.locator(f'#table-1 .pick[data-name="{name}"]').click()
        picked = page.locator("#table-1 svg .picked").evaluate_all("shapes => shapes.map(shape => shape.dataset.name)")
        assert set(picked) == {name}
    page.locator('#table-1 .pick[data-name="linear"]').click()
    assert page.locator("#table-1 svg .picked").count() == 0


def test_a_run_opens_below_its_row_and_closes_again(page: Page) -> None:
    link = page.locator("#table-1 .committed a").first
    row = page.locator("#table-1 .committed tr[data-mixer]").first
    link.click()
    opened = page.locator("#table-1 .committed tr.opened")
    assert opened.locator("code").first.is_visible()
    assert row.evaluate("row => row.nextElementSibling.className") == "opened"
    link.click()
    assert opened.count() == 0


def test_an_address_with_a_run_reveals_its_section_and_the_theme_changes(chromium: Browser, board_path: Path) -> None:
    page = open_page(chromium, board_path).page
    assert not page.locator("#run-3").is_visible()
    page.evaluate("location.hash = 'run-3'")
    page.wait_for_selector("#run-3", state="visible")
    colour = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(colour)
    page.click("#theme")
    assert page.evaluate(colour) != before


def test_heads_and_names_stay_in_view_on_a_phone(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "committed.html"
    path.write_text(page_of_all_records())
    page = open_page(chromium, path, (400, 800)).page
    number = page.locator("td.number").first.bounding_box()
    assert number is not None
    assert number["y"] + number["height"] < 800
    page.evaluate("location.hash = 'quick'")
    page.wait_for_selector("#quick-1", state="visible")
    boxes = page.locator("[id^=quick-] > .scroll")
    heights = boxes.evaluate_all("boxes => boxes.map(box => box.scrollHeight)")
    box = boxes.nth(int(np.argmax(heights)))  # the table with the most rows
    box.evaluate("box => { box.scrollIntoView(); box.scrollTo(150, 300) }")
    seen = box.evaluate("""box => {
      const rectangle = e => { const r = e.getBoundingClientRect(); return [r.left, r.top] };
      const corner = box.querySelector("thead th"), other = box.querySelector("thead th:nth-child(3)");
      const middle = box.getBoundingClientRect().top + 300;
      const names = [...box.querySelectorAll("tbody th[scope=row]")];
      const name = names.find(e => e.getBoundingClientRect().top > middle);
      const at = e => {
        const r = e.getBoundingClientRect();
        return e.contains(document.elementFromPoint(r.right - 4, r.top + 4));
      };
      return {box: rectangle(box), scrolled: [box.scrollLeft, box.scrollTop], corner: rectangle(corner),
        other: rectangle(other), name: rectangle(name), front: [at(corner), at(name)],
        colours: [corner, name].map(e => getComputedStyle(e).backgroundColor)};
    }""")
    left, top = seen["box"][0] + 1, seen["box"][1] + 1  # inside the border
    assert seen["scrolled"] == [150, 300]
    assert seen["corner"] == pytest.approx([left, top], abs=1)
    assert seen["other"][1] == pytest.approx(top, abs=1)
    assert seen["name"][0] == pytest.approx(left, abs=1)
    assert seen["front"] == [True, True]
    assert all("rgba" not in colour for colour in seen["colours"])


def test_the_tables_are_read_without_scripts(chromium: Browser, board_path: Path) -> None:
    page = chromium.new_context(java_script_enabled=False).new_page()
    page.goto(board_path.as_uri())
    assert page.locator("#table-1 > .scroll td.number").first.is_visible()


def test_hostile_records_stay_text(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    path.write_text(as_html(leaderboard.board(hostile())))
    opened = open_page(chromium, path)
    assert opened.page.title() == "Long-Range Arena: leaderboard"
    assert opened.events == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_schemes(chromium: Browser, board_path: Path, scheme: str) -> None:
    """The contrast of text and background by WCAG's formula is at least 7 to 1."""

    def luminance(rgb: str) -> float:
        channels = np.array([int(c) for c in re.findall(r"\d+", rgb)[:3]]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    page = open_page(chromium, board_path, scheme=scheme).page
    colours = page.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    text, background = map(luminance, colours)
    darker, lighter = sorted((text, background))
    assert (lighter + 0.05) / (darker + 0.05) >= 7
    assert (text > background) == (scheme == "dark")
