"""The protocols as tables with every number, for `run_lra.py list` and docs/protocols.md.

`python -m lra.protocol_tables` rewrites the tables of the page between its markers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lra.config import PROTOCOLS, Form, Model, Protocol, Train, protocols_named
from lra.paths import ROOT
from lra.training.optimizer import peak_rate

PAGE = ROOT / "docs" / "protocols.md"
TOP = ("version", "variant", "max_len")


def fields(protocols: Sequence[Protocol]) -> list[tuple[str, list[str]]]:
    """Return every field that affects a result, by its dotted name, with its value for each protocol."""
    names = [*TOP, *_counted("model", Model), *_counted("train", Train)]
    rows = [(name, [text(_value(protocol, name)) for protocol in protocols]) for name in names]
    peaks = [f"{peak_rate(protocol.train):.3g}" for protocol in protocols]
    return [*rows, ("peak learning rate", peaks)]


def forms(protocols: Sequence[Protocol]) -> list[tuple[str, str, str, str, str]]:
    """Return mixer, tasks, options, replaced fields and source of every form; equal forms of several tasks are one."""
    tasks: dict[tuple[str, str, str, str], list[str]] = {}
    for protocol in protocols:
        for mixer, form in protocol.forms.items():
            tasks.setdefault((mixer, text(form.options), _replaced(form), form.source), []).append(protocol.task)
    by_form: dict[tuple[str, str, str], tuple[list[str], list[str]]] = {}
    for (mixer, options, replaced, source), names in tasks.items():
        where, sources = by_form.setdefault((mixer, options, replaced), ([], []))
        where += names
        sources += [source] if source else []
    return [
        (mixer, ", ".join(where), options, replaced, "; ".join(dict.fromkeys(sources)))
        for (mixer, options, replaced), (where, sources) in sorted(by_form.items())
    ]


def text(value: Any) -> str:
    """Return a value as the page prints it: `4,000`, `0.0001`, `512, 256`, `rank=1024 init=xavier`, `none`."""
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={text(one).replace(',', '')}" for name, one in value.items())  # as it can be typed
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def markdown(name: str) -> str:
    """Return the tables of one protocol as Markdown."""
    protocols = protocols_named(name)
    lines = _grid(["field", *(p.task for p in protocols)], [[f"`{field}`", *row] for field, row in fields(protocols)])
    if found := forms(protocols):
        lines += ["", *_grid(["mixer", "tasks", "options", "replaced fields", "source"], found)]
    return "\n".join(lines)


def rewritten(page: str) -> str:
    """Return a page with the tables between `<!-- NAME -->` and `<!-- /NAME -->` as the configurations have them.

    A protocol that the page does not have is added at its end.
    """
    for name in PROTOCOLS:
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        page += "" if start in page else f"\n## {name}\n\n{start}{end}\n"
        before, rest = page.split(start)
        page = f"{before}{start}\n\n{markdown(name)}\n\n{end}{rest.split(end)[1]}"
    return page


def _counted(part: str, kind: type) -> list[str]:
    return [f"{part}.{f.name}" for f in dataclasses.fields(kind) if not f.metadata.get("unhashed")]


def _value(protocol: Protocol, name: str) -> Any:
    value: Any = protocol
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _replaced(form: Form) -> str:
    model = {f"model.{name}": value for name, value in form.model.items()}
    return text({**model, **{f"train.{name}": value for name, value in form.train.items()}})


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    ruler = [":--"] * len(head)
    return ["| " + " | ".join(row) + " |" for row in (head, ruler, *rows)]


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text("utf-8")), "utf-8")
