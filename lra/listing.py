"""What there is: tasks with their cards, mixers with their options, protocols. For rich's `Console.print`."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lra.config import TASKS, Expected, Model, Protocol
from lra.optimizer import peak_rate
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
        "validation": "the checkpoint that is best on validation is tested",
        "last": "the last checkpoint is tested",
    }
    facts = {
        "classes": f"{len(card.classes)}: {', '.join(card.classes)}",
        "tokenizer": read,
        "variants": "\n".join(f"{name}: {variant_text(v)}" for name, v in card.variants.items()),
        "sources": f"{', '.join(card.sources)} (the first that is at hand)",
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
    """Every protocol, task by task."""
    by_name: dict[str, list[Protocol]] = {}
    for task in TASKS:
        for name, protocol in import_module(f"configs.{task}").PROTOCOLS.items():
            by_name.setdefault(name, []).append(protocol)
    parts: list[RenderableType] = [Text("Protocols", "bold underline")]
    for name, found in by_name.items():
        abouts = list(dict.fromkeys(p.about for p in found))
        parts += [Text(), Text.assemble((name, "bold cyan"), f"  {'; '.join(abouts)}"), protocol_table(found)]
    return Group(*parts)


def protocol_table(found: Sequence[Protocol]) -> RenderableType:
    """One line a task; below, what is expected and how long it takes, where that is known."""
    grid = _table("task", "variant", "length", "steps", "batch", "peak rate", "schedule", "model")
    for column in grid.columns[:-1]:
        column.no_wrap = True
    for column in grid.columns[2:6]:
        column.justify = "right"
    for p in found:
        t = p.train
        sizes = (f"{p.max_len:,}", f"{t.steps:,}", f"{t.batch_size}", f"{peak_rate(t):.2g}")
        grid.add_row(*map(Text, (f"{p.task}@{p.version}", p.variant, *sizes, t.schedule, model_text(p.model))))
    notes = [f"  {p.task}: {note}" for p in found for note in (*expected_texts(p.expected), p.minutes) if note]
    return Group(grid, *(Text(note, "dim") for note in notes))


def model_text(model: Model) -> str:
    """`2 x 64, 2 heads, mlp 128, mean, nli`: layers x width, heads, width of the MLP, pooling, how pairs are joined."""
    width = f"{model.d_model}" if model.qkv_dim == model.d_model else f"{model.d_model} (qkv {model.qkv_dim})"
    pair = f", {model.pair}" if model.pair else ""
    return f"{model.layers} x {width}, {model.heads} heads, mlp {model.mlp_dim}, {model.pooling}{pair}"


def expected_texts(expected: Mapping[str, Expected]) -> list[str]:
    return [f"expected of {mixer} {e.score:g} ± {e.tolerance:g} ({e.source})" for mixer, e in expected.items()]


def _table(*columns: str) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in columns:
        grid.add_column(name, overflow="fold")
    return grid
