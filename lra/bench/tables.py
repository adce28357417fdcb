"""The results of a benchmark as tables, for the terminal and as a Markdown page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.console import Group, RenderableType
from rich.text import Text

from lra.bench.measure import BenchResult, Speed
from lra.bench.run import Results
from lra.leaderboard.markdown import md, md_grid
from lra.leaderboard.published import Efficiency, Figure
from lra.leaderboard.text import NONE, clean
from lra.plain_table import plain_table
from lra.record.schema import Environment
from models import mixers

T = TypeVar("T")
REFERENCE = "softmax"
AS_PUBLISHED = (
    "These figures are of other code on other hardware. Their ratios to the source's own reference row at the same "
    "length can be compared with the ratios above; the figures themselves cannot."
)


@dataclasses.dataclass(frozen=True)
class TextTable:
    """A table of texts. rows: the name of a mixer, and a text for each column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def ratios(results: Results) -> list[TextTable]:
    """Return speeds and memory relative to softmax at the same length; no tables if softmax was not measured."""
    reference = {c.length: c for c in results.cells if c.mixer == REFERENCE and c.status == "measured"}
    if not reference:
        return []

    def table(title: str, value: Callable[[BenchResult], float | None]) -> TextTable:
        def ratio(cell: BenchResult) -> float | None:
            base = value(reference[cell.length]) if cell.length in reference else None
            own = value(cell)
            return None if own is None or base is None else own / base

        return _table(results, f"{title} relative to {REFERENCE}", ratio, ratio_text)

    return [
        table("Training speed", training_speed),
        table("Inference speed", lambda c: c.inference.per_second if c.inference else None),
        table("Peak memory", lambda c: c.peak_bytes),
    ]


def figures(results: Results) -> list[TextTable]:
    """Return measured speeds and memory."""
    return [
        _table(results, "Training, steps/s (quartiles; steps measured)", lambda c: c.training, speed_text),
        _table(results, "Inference, steps/s (quartiles; steps measured)", lambda c: c.inference, speed_text),
        _table(results, "Peak memory, measured", lambda c: c.peak_bytes, bytes_text, memory=True),
    ]


def further(results: Results) -> list[TextTable]:
    """Return exponents, the compiler's count of memory, operations, distance from the roofline, compilation."""
    roof = results.setting.roofline

    def achieved(c: BenchResult) -> float | None:
        return c.flops / c.training.seconds[1] if c.flops and c.training else None

    def utilisation(c: BenchResult) -> float | None:
        return speed / roof.flops_per_second if (speed := achieved(c)) else None

    def distance(c: BenchResult) -> str | None:
        if c.training is None or c.flops is None or c.moved_bytes is None:
            return None
        bound = "memory" if c.moved_bytes / roof.bytes_per_second > c.flops / roof.flops_per_second else "arithmetic"
        return f"{ratio_text(c.training.seconds[1] / roof.bound(c.flops, c.moved_bytes))} {bound}"

    share = "Utilisation: share of the operations per second of a matrix product"
    return [
        *exponents(results),
        _table(results, "Memory needed, by the compiler", lambda c: c.needed_bytes, bytes_text),
        _table(results, "Operations of a training step", lambda c: c.flops, scale_text),
        _table(results, "Operations per second, training", achieved, scale_text),
        _table(results, share, utilisation, "{:.1%}".format),
        _table(results, "Training step relative to the roofline, and which bound is active", distance, str),
        _table(results, "Compilation, seconds", lambda c: c.compile_seconds, number_text),
    ]


def exponents(results: Results) -> list[TextTable]:
    """Return the exponents p of costs ~ L^p between the two longest lengths, and what the mixers' files claim."""
    measured = {(c.mixer, c.length): c for c in results.cells if c.status == "measured"}
    lengths = sorted({length for _, length in measured})[-2:]
    if len(lengths) < 2:
        return []

    def exponent(mixer: str, cost: Callable[[BenchResult], float | None]) -> str:
        cells = (measured[mixer, length] for length in lengths if (mixer, length) in measured)
        values = [value for cell in cells if (value := cost(cell))]
        return f"{math.log(values[1] / values[0], lengths[1] / lengths[0]):.2f}" if len(values) == 2 else NONE

    def row(mixer: str) -> tuple[str, ...]:
        claim = mixers.resolve(mixer).complexity if mixer in mixers.available() else None
        time = exponent(mixer, lambda c: c.training.seconds[1] if c.training else None)
        memory = exponent(mixer, lambda c: c.needed_bytes / c.micro_batch if c.needed_bytes and c.micro_batch else None)
        return mixer, time, memory, exponent(mixer, lambda c: c.flops), *(claim or (NONE, NONE))

    title = f"Exponents p of cost ~ L^p from {lengths[0]:,} to {lengths[1]:,} tokens, and what the file claims"
    columns = ("training time", "memory per example", "operations", "claimed time", "claimed memory")
    return [TextTable(title, columns, tuple(map(row, _mixers(results))))]


def training_speed(cell: BenchResult) -> float | None:
    """Return training steps per second."""
    return cell.training.per_second if cell.training else None


def _mixers(results: Results) -> list[str]:
    """Return the labels, fastest in training at the longest length first."""
    speeds = {(c.mixer, c.length): training_speed(c) or 0 for c in results.cells}
    lengths = sorted({length for _, length in speeds}, reverse=True)
    names = sorted({mixer for mixer, _ in speeds})
    return sorted(names, key=lambda name: [speeds.get((name, n), 0) for n in lengths], reverse=True)


def _table(
    results: Results,
    title: str,
    value: Callable[[BenchResult], T | None],
    text: Callable[[T], str],
    *,
    memory: bool = False,
) -> TextTable:
    """Return a table with a column for each length. memory: an OOM names the bytes needed."""
    cells = {(c.mixer, c.length): c for c in results.cells}
    lengths = sorted({length for _, length in cells})

    def cell_text(cell: BenchResult | None) -> str:
        if cell is not None and cell.status == "oom":
            return f"OOM, needs {bytes_text(cell.needed_bytes)}" if memory and cell.needed_bytes else "OOM"
        if cell is not None and cell.status == "failed":
            return "failed"
        content = None if cell is None else value(cell)
        return NONE if content is None else text(content)

    rows = tuple((name, *(cell_text(cells.get((name, n))) for n in lengths)) for name in _mixers(results))
    return TextTable(title, tuple(f"{n:,}" for n in lengths), rows)


def number_text(value: float) -> str:
    """Return a number with three digits."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def ratio_text(ratio: float) -> str:
    """Return a ratio with two digits: `12x`, `3.4x`, `0.80x`, `0.012x`."""
    if ratio < 0.0995:
        return f"{ratio:.2g}x"
    return f"{ratio:,.{0 if ratio >= 9.95 else 1 if ratio >= 0.995 else 2}f}x"


def speed_text(speed: Speed) -> str:
    """Return median, quartiles and number of single steps: `12.3 (12.1–12.6; 40)`."""
    slow, median, fast = (number_text(1 / s) for s in reversed(speed.seconds))
    return f"{median} (one step)" if speed.steps == 1 else f"{median} ({slow}–{fast}; {speed.steps})"


def bytes_text(count: int) -> str:
    """Return bytes in GiB or MiB."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"


def scale_text(value: float) -> str:
    """Return a number with a prefix of the SI, as in `1.23 G`."""
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{number_text(value / size)} {unit}"
    return number_text(value)


def heading(results: Results) -> str:
    """Return the setting of all results in one line."""
    s = results.setting
    machine = Environment.model_construct(**s.environment).hardware
    sizes = f"batch {s.batch_size}, {s.dtype}, sizes of {s.protocol}"
    return f"byte-level Text, {sizes}, {machine}, jax {s.environment['jax']}"


def remarks(results: Results) -> list[str]:
    """Return sentences that explain the roofline, the marks that occur, and results without figures."""
    cells, roof = results.cells, results.setting.roofline
    sentences = [
        f"The roofline, measured: {scale_text(roof.flops_per_second)}FLOP/s in a matrix product, "
        f"{scale_text(roof.bytes_per_second)}B/s of memory. Bytes moved are the compiler's count, which takes the body "
        "of a loop once."
    ]
    if not any(c.mixer == REFERENCE and c.status == "measured" for c in cells):
        sentences.append(f"There are no ratios, because {REFERENCE} was not measured.")
    implementations = dict.fromkeys(c.implementation for c in cells if c.implementation)
    sentences += [f"Implementation of softmax attention: {text}." for text in implementations]
    if any(c.status == "oom" for c in cells):
        sentences.append("OOM: the trainer's micro-batch does not fit into memory; not run, or an allocation failed.")
    if any(s and s.steps < 5 for c in cells for s in (c.training, c.inference)):
        sentences.append("Quartiles of fewer than five steps are unreliable.")
    return sentences + [f"{c.mixer} at {c.length:,} failed: {c.reason}" for c in cells if c.status == "failed"]


def as_table(results: Results) -> RenderableType:
    """Return ratios and figures for rich's `Console.print`."""
    parts: list[RenderableType] = [Text(clean(heading(results)), "dim")]
    for table in (*ratios(results), *figures(results), *exponents(results)):
        grid = plain_table()
        grid.add_column("mixer", overflow="fold")
        for column in table.columns:
            grid.add_column(column, justify="right")
        for name, *texts in table.rows:
            grid.add_row(Text(clean(name), "bold" if name == REFERENCE else ""), *map(Text, texts))
        parts += [Text(), Text(table.title, "bold"), grid]
    return Group(*parts, Text(), *(Text(clean(sentence), "dim") for sentence in remarks(results)))


def as_markdown(results: Results, published: Sequence[Efficiency], chart: str) -> str:
    """Return the page.

    Args:
      chart: Markdown of the figure, or the sentence that says why there is none
    """
    s = results.setting
    lines = ["# Speed and memory", "", f"{md(heading(results))}. Every example fills the length. Measured by", ""]
    lines += [f"    {clean(s.command)}", ""]
    lines += [f"{s.created[:10]}, code `{s.code['sha256'][:8]}`. A step is one batch.", ""]
    lines += [f"- {md(sentence)}" for sentence in remarks(results)] + [""]
    for title, tables in {"Ratios": ratios(results), "Figures": figures(results), "Further": further(results)}.items():
        lines += [f"## {title}", ""] * bool(tables)
        for table in tables:
            lines += _markdown(table)
        lines += [chart, ""] * (title == "Ratios")
    lines += ["## As published", "", AS_PUBLISHED]
    for source in published:
        text = f"*{md(source.source)}.* {md(source.hardware)}; {md(source.setting)}."
        note = f" {md(source.note)}" if source.note else ""
        lines += ["", text + note, "", *_markdown(published_table(source))[:-1]]
    return "\n".join(lines) + "\n"


def published_table(table: Efficiency) -> TextTable:
    """Return published figures, each with its ratio to the source's reference at the same length: `9.2 · 1.1x`."""

    def text(value: Figure, base: Figure) -> str:
        if value is None:
            return "OOM"
        return f"{value:g} · {NONE if base is None else ratio_text(value / base)}"

    rows = ((name, *map(text, row, table.rows[table.reference])) for name, row in table.rows.items())
    title = f"{table.quantity[0].upper()}{table.quantity[1:]}, {table.unit} · relative to {table.reference}"
    return TextTable(title, table.lengths, tuple(rows))


def _markdown(table: TextTable) -> list[str]:
    rows = [[md(name), *texts] for name, *texts in table.rows]
    return [f"**{md(table.title)}**", "", *md_grid(["mixer", *table.columns], rows, left=1)]
