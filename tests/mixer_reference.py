"""docs/mixer-reference.md: a section for each mixer, from its file.

`python -m tests.mixer_reference` writes it; a test compares.
"""

from __future__ import annotations

import inspect
from importlib import import_module

from lra.catalog import option_text
from lra.contract.report import parameter_ratios
from lra.paths import ROOT
from models import mixers

PAGE = ROOT / "docs" / "mixer-reference.md"
INTRODUCTION = """# Reference of the mixers

The equation, the growth and the options of each mixer, as in its file in `models/mixers/`, which
also has the initialisation, the treatment of padding and the deviations from the authors' code.
[mixers.md](mixers.md) says which published rows they belong to. Letters: L sequence length, D model
width, K width of a head, i, j and t positions. `python run_lra.py check` tests the growth.

Parameters are those of the whole model under `small` relative to softmax attention, over the tasks.
Tay et al. (2020, section 3.2) compare models that differ by at most 10 %; others are marked with !.

`python -m tests.mixer_reference` writes this page.
"""


def section(name: str) -> str:
    """Return the section of a mixer: first sentence and equation of its file, growth, parameters and options."""
    found = mixers.resolve(name)
    about, *blocks = (inspect.getdoc(import_module(found.cls.__module__)) or "").split("\n\n")
    equation = next(block for block in blocks if block.startswith("    "))
    assert found.complexity is not None
    time, memory = found.complexity
    ratios = parameter_ratios(found, {}).values()
    low, high = f"{min(ratios):.2f}", f"{max(ratios):.2f}"
    mark = " !" if any(abs(ratio - 1) > 0.1 for ratio in ratios) else ""
    lines = [
        f"## `{name}`",
        about.replace("\n", " "),
        equation,
        f"Time O({time}), memory O({memory}), parameters {low if low == high else f'{low} to {high}'}{mark}.",
    ]
    if options := mixers.options(found.cls):
        described = "\n".join((inspect.getdoc(found.cls) or "").split("\n")[1:]).strip()
        values = "\n".join(f"    {option_text(*option)}" for option in options.items())
        lines += ["Options with their defaults:", values]
        if described:
            lines.append("\n".join(f"    {line}".rstrip() for line in described.split("\n")))
    return "\n\n".join(lines)


def page() -> str:
    return "\n\n".join([INTRODUCTION.strip(), *map(section, mixers.available())]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
