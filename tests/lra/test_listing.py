from __future__ import annotations

import dataclasses
import io
from typing import Literal

import pytest
from rich.console import Console

from lra import catalog as listing
from lra import config as cfg
from lra import protocol_tables
from models import mixers
from tasks import load_task


def shown(made: object, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(made)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("task", cfg.TASKS)
def test_a_card_is_shown_whole(task: str) -> None:
    card = load_task(task).CARD
    text = " ".join(shown(listing.card_table(card), 1_000).split())
    for fact in (card.title, card.tokenizer, card.obtain, card.licence, card.citation, *card.classes, *card.sources):
        assert " ".join(fact.split()) in text
    for name, variant in card.variants.items():
        assert f"{name}: {variant.about}" in text
        assert all(f"{count:,} {split}" in text for split, count in variant.sizes.items())


def test_square_brackets_of_a_card_are_text() -> None:
    """`[MIN [MAX` is ListOps' language and rich's markup."""
    assert "[MIN [MAX [MED [SM" in shown(listing.card_table(load_task("listops").CARD))


def test_every_mixer_has_its_options_and_growth() -> None:
    text = shown(listing.mixer_table(), 300)
    for name in mixers.available():
        found = mixers.resolve(name)
        (line,) = [line for line in text.splitlines() if line.split()[:1] == [name]]
        assert found.complexity is None or f"O({found.complexity[0]})" in line
        for option, (_, default) in mixers.options(found.cls).items():
            assert f"{option}={default}" in text


def test_an_option_names_its_choices() -> None:
    assert listing.option_text("kind", mixers.Option(Literal["a", "b"], "a")) == "kind=a (a, b)"
    assert listing.option_text("window", mixers.Option(int, 64)) == "window=64"


@pytest.mark.parametrize("width", [80, 100, 140])
def test_every_protocol_is_shown_with_every_number(width: int) -> None:
    text = shown(listing.protocols(), width)
    for name in cfg.PROTOCOLS:
        assert f"\n{name}  " in text
    assert max(map(len, text.splitlines())) <= width


def test_list_and_page_show_the_same_numbers() -> None:
    page = protocol_tables.PAGE.read_text("utf-8")
    assert page == protocol_tables.rewritten(page), "run `python -m lra.protocol_tables` and review the page"
    for name in cfg.PROTOCOLS:
        lines = shown(listing.protocol_table(cfg.protocols_named(name)), 400).splitlines()
        for field, values in protocol_tables.fields(cfg.protocols_named(name)):
            assert f"| `{field}` | {' | '.join(values)} |" in page
            assert any(line.split() == f"{field} {' '.join(values)}".split() for line in lines), field


def test_a_new_protocol_is_added_to_the_page() -> None:
    page = protocol_tables.rewritten("# Protocols\n")
    assert [line for line in page.splitlines() if line.startswith("#")] == [
        "# Protocols",
        *(f"## {name}" for name in cfg.PROTOCOLS),
    ]
    assert protocol_tables.rewritten(page) == page


def test_the_tables_have_every_field_that_is_hashed() -> None:
    """A field that affects a result cannot be left out of the page."""
    base = cfg.protocol("image", "lra")
    listed = {name for name, _ in protocol_tables.fields([base])}
    for part in ("model", "train"):
        assert {f"{part}.{name}" for name in cfg.hashed_fields(getattr(base, part))} <= listed


def test_what_is_expected_is_said() -> None:
    base = cfg.protocol("listops", "small")
    message = dataclasses.replace(base, expected={"cosformer": cfg.Expected(38.2, 1.0, "[a] paper")}, minutes="9 min")
    text = shown(listing.protocol_table([message]))
    assert "cosformer 38.2 ± 1 ([a] paper)" in text
    assert "listops: 9 min" in text
