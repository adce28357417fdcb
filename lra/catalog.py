"""Tables of tasks with their cards, mixers with their options, and protocols, for rich's `Console.print`."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lra import protocol_tables
from lra.config import PROTOCOLS, RECIPES, TASKS, Expected, Protocol, protocols_named, recipes
from lra.plain_table import plain_table
from models import mixers
from tasks import load_task
from tasks.core import Card, Variant


def everything() -> Iterator[RenderableType]:
    """All three parts, one after the other."""
    yield from (tasks(), mixer_table(), protocols())


# ---- tasks


def tasks() -> RenderableType:
    """The card of every task."""
    parts: list[RenderableType] = [Text("Tasks", "bold underline")]
    for name in TASKS:
        parts += [Text(), card_table(load_task(name).CARD)]
    return Group(*parts, Text())


def card_table(card: Card) -> RenderableType:
    """What a card says."""
    read = f"{card.tokenizer}; {card.vocab_size} ids" + ("; pairs of documents" if card.pairs else "")
    rule = {
        "validation": "the checkpoint that is best on validation is tested, unless the protocol tests the last one",
        "last": "the last checkpoint is tested, because there is no validation split",
    }
    facts = {
        "classes": f"{len(card.classes)}: {', '.join(card.classes)}",
        "tokenizer": read,
        "variants": "\n".join(f"{name}: {variant_text(v)}" for name, v in card.variants.items()),
        "sources": f"{', '.join(card.sources)} (the first that is available)",
        "selection": rule[card.selection],
        "obtain": card.obtain,
        "licence": card.licence,
        "cite": card.citation,
    }
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", min_width=9)
    grid.add_column(overflow="fold")
    for name, fact in facts.items():
        grid.add_row(Text(f"  {name}"), Text(fact))
    title = Text.assemble((card.name, "bold cyan"), f"  {card.title}, version {card.version}: {card.about}")
    return Group(title, grid)


def variant_text(variant: Variant) -> str:
    sizes = ", ".join(f"{count:,} {split}" for split, count in variant.sizes.items())
    return f"{variant.about}; {sizes}; at most {variant.max_bytes:,} bytes"


# ---- mixers


def mixer_table() -> RenderableType:
    """The mixers of `models/mixers/`: growth of time and memory as their files claim it, options with defaults."""
    grid = _table("mixer", "time", "memory", "options", "about")
    for name in mixers.available():
        found = mixers.resolve(name)
        time, memory = (f"O({growth})" for growth in found.complexity) if found.complexity else ("–", "–")
        module = import_module(found.cls.__module__)
        about = (module.__doc__ or "").strip().partition("\n")[0]
        options = [option_text(*o) for o in mixers.options(found.cls).items()]
        grid.add_row(Text(name, "bold cyan"), time, memory, Text("\n".join(options) or "–"), Text(about))
    note = f"{mixers.FORMS.format(names='these')}; options as in --mixer-options name=value"
    return Group(
        Text("Mixers", "bold underline"), Text(), grid, Text(), Text(note[0].upper() + note[1:], "dim"), Text()
    )


def option_text(name: str, option: mixers.Option) -> str:
    """`window=64`, with the choices where the annotation lists them."""
    choices = typing.get_args(option.annotation) if typing.get_origin(option.annotation) is typing.Literal else ()
    return f"{name}={option.default}" + (f" ({', '.join(map(str, choices))})" if choices else "")


# ---- protocols


def protocols() -> RenderableType:
    """Return a table of every number for each protocol."""
    parts: list[RenderableType] = [Text("Protocols", "bold underline")]
    for name in PROTOCOLS:
        found = protocols_named(name)
        abouts = list(dict.fromkeys(p.about for p in found))
        parts += [Text(), Text.assemble((name, "bold cyan"), f"  {'; '.join(abouts)}"), protocol_table(found)]
    return Group(*parts, Text(), recipe_table())


def recipe_table() -> RenderableType:
    """Return which tasks have which recipe, and what it does."""
    grid = _table("recipe", "tasks", "what it does")
    for name in RECIPES:
        found = {task: recipes(task)[name] for task in TASKS if name in recipes(task)}
        grid.add_row(Text(f"+{name}", "bold cyan"), Text(", ".join(found)), Text(next(iter(found.values())).about))
    return Group(Text("Recipes, as in --protocol small+shuffle (docs/recipes.md)", "bold underline"), grid)


def protocol_table(found: Sequence[Protocol]) -> RenderableType:
    """Return one column for each task; below, the forms of mixers, expected scores and measured times."""
    grid = _table("field", *(p.task for p in found))
    for name, values in protocol_tables.fields(found):
        grid.add_row(Text(name), *map(Text, values))
    parts: list[RenderableType] = [grid]
    if forms := protocol_tables.forms(found):
        grid = _table("mixer", "tasks", "options", "replaced fields")
        for mixer, tasks, options, replaced, _ in forms:
            grid.add_row(Text(mixer), Text(tasks), Text(options), Text(replaced))
        parts += [Text("  without options, these mixers run as the protocol's source ran them:", "dim"), grid]
    notes = [f"  {p.task}: {note}" for p in found for note in (*expected_texts(p.expected), p.minutes) if note]
    return Group(*parts, *(Text(note, "dim") for note in notes))


def expected_texts(expected: Mapping[str, Expected]) -> list[str]:
    return [f"expected of {mixer} {e.score:g} ± {e.tolerance:g} ({e.source})" for mixer, e in expected.items()]


def _table(*columns: str) -> Table:
    grid = plain_table()
    for name in columns:
        grid.add_column(name, overflow="fold")
    return grid
