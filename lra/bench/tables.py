"""A benchmark's results as tables, for the terminal and as a Markdown page. Ratios come first: they travel."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from lra.bench.measure import Cell, Speed
from lra.bench.run import Results
from lra.leaderboard.markdown import md, md_grid
from lra.leaderboard.published import Efficiency, Figure
from lra.leaderboard.text import NONE, clean
from lra.record.schema import Environment

REFERENCE = "softmax"
AS_PUBLISHED = (
    "Of other code on other hardware: ratios to the source's own reference row at the same length may be held beside "
    "those above, the figures may not."
)


@dataclasses.dataclass(frozen=True)
class Block:
    """One table. rows: a name and a text for each length."""

    title: str
    lengths: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


# ---- what is told of a cell


def ratios(results: Results) -> list[Block]:
    """Against softmax at the same length; nothing where softmax was not measured."""

    def of(value: Callable[[Cell], float | None]) -> Callable[[Cell], str]:
        base = {c.length: value(c) for c in results.cells if c.mixer == REFERENCE and c.status == "measured"}

        def told(cell: Cell) -> str:
            mine, other = value(cell), base.get(cell.length)
            return NONE if mine is None or other is None else ratio_text(mine / other)

        return told

    if not any(c.mixer == REFERENCE and c.status == "measured" for c in results.cells):
        return []
    return [
        _block(results, f"Training speed, times {REFERENCE}'s", of(training_speed)),
        _block(results, f"Inference speed, times {REFERENCE}'s", of(inference_speed)),
        _block(results, f"Peak memory, times {REFERENCE}'s", of(lambda c: c.peak_bytes)),
    ]


def figures(results: Results) -> list[Block]:
    """Speeds and measured memory as they are."""
    return [
        _block(results, "Training, steps/s (quartiles; steps measured)", lambda c: speed_text(c.training)),
        _block(results, "Inference, steps/s (quartiles; steps measured)", lambda c: speed_text(c.inference)),
        _block(results, "Peak memory, measured", lambda c: bytes_text(c.peak_bytes), memory=True),
    ]


def further(results: Results) -> list[Block]:
    """What is not a headline: the compiler's count of memory, operations, distance from the roofline, compiling."""
    roof = results.setting.roofline

    def achieved(c: Cell) -> float | None:
        return c.flops / c.training.seconds[1] if c.flops and c.training else None

    def utilisation(c: Cell) -> str:
        value = achieved(c)
        return NONE if value is None else f"{value / roof.flops_per_second:.1%}"

    def distance(c: Cell) -> str:
        if c.training is None or c.flops is None or c.moved_bytes is None:
            return NONE
        bound = "memory" if c.moved_bytes / roof.bytes_per_second > c.flops / roof.flops_per_second else "arithmetic"
        return f"{ratio_text(c.training.seconds[1] / roof.bound(c.flops, c.moved_bytes))} {bound}"

    return [
        _block(results, "Memory needed, by the compiler", lambda c: bytes_text(c.needed_bytes)),
        _block(results, "Operations of a training step", lambda c: scale_text(c.flops)),
        _block(results, "Operations a second, training", lambda c: scale_text(achieved(c))),
        _block(results, "Utilisation: of the operations a second of a matrix product", utilisation),
        _block(results, "Training step, times what the roofline allows, and what bounds it", distance),
        _block(results, "Seconds of compiling", lambda c: number_text(c.compile_seconds)),
    ]


def training_speed(cell: Cell) -> float | None:
    return cell.training.per_second if cell.training else None


def inference_speed(cell: Cell) -> float | None:
    return cell.inference.per_second if cell.inference else None


def _block(results: Results, title: str, told: Callable[[Cell], str], *, memory: bool = False) -> Block:
    """One table of all cells: the fastest in training at the longest length first."""
    cells = {(c.mixer, c.length): c for c in results.cells}
    lengths = sorted({length for _, length in cells}, reverse=True)

    def place(mixer: str) -> list[float]:
        return [(training_speed(c) or 0) if (c := cells.get((mixer, n))) else 0 for n in lengths]

    def text(cell: Cell | None) -> str:
        if cell is None:
            return NONE
        if cell.status == "oom":
            needs = memory and cell.needed_bytes
            return f"OOM, needs {bytes_text(cell.needed_bytes)}" if needs else "OOM"
        return told(cell) if cell.status == "measured" else "failed"

    names = sorted(sorted({mixer for mixer, _ in cells}), key=place, reverse=True)
    rows = tuple((name, *(text(cells.get((name, n))) for n in reversed(lengths))) for name in names)
    return Block(title, tuple(f"{n:,}" for n in reversed(lengths)), rows)


def number_text(value: float | None) -> str:
    """Three digits."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def ratio_text(ratio: float) -> str:
    """Two digits: `12x`, `3.4x`, `0.80x`, `0.012x`."""
    if ratio < 0.0995:
        return f"{ratio:.2g}x"
    return f"{ratio:,.{0 if ratio >= 9.95 else 1 if ratio >= 0.995 else 2}f}x"


def speed_text(speed: Speed | None) -> str:
    """`12.3 (12.1–12.6; 40)`: median, quartiles and number of single steps."""
    if speed is None:
        return NONE
    slow, median, fast = (number_text(1 / s) for s in reversed(speed.seconds))
    return f"{median} (one step)" if speed.steps == 1 else f"{median} ({slow}–{fast}; {speed.steps})"


def bytes_text(count: int | None) -> str:
    if count is None:
        return NONE
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"


def scale_text(value: float | None) -> str:
    """`1.23 G`"""
    if value is None:
        return NONE
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{number_text(value / size)} {unit}"
    return number_text(value)


# ---- what is told of all


def heading(results: Results) -> str:
    s = results.setting
    machine = Environment.model_construct(**s.environment).hardware
    sizes = f"batch {s.batch_size}, {s.dtype}, sizes of {s.protocol}"
    return f"byte-level Text, {sizes}, {machine}, jax {s.environment['jax']}"


def remarks(results: Results) -> list[str]:
    """Sentences on the marks that occur, and on cells that have no figures."""
    cells, roof = results.cells, results.setting.roofline
    said = [
        f"The roofline, measured here: {scale_text(roof.flops_per_second)}FLOP/s in a matrix product, "
        f"{scale_text(roof.bytes_per_second)}B/s of memory. Bytes are the compiler's, which counts a loop's body once."
    ]
    if not ratios(results):
        said.append(f"No ratios: {REFERENCE} was not measured here.")
    if any(c.status == "oom" for c in cells):
        said.append("OOM: does not fit into memory at the trainer's own micro-batch; not run, or stopped there.")
    if any(s and s.steps < 5 for c in cells for s in (c.training, c.inference)):
        said.append("Fewer than five steps say little of the spread.")
    said += [f"{c.mixer} at {c.length:,} failed: {c.reason}" for c in cells if c.status == "failed"]
    return said


def as_table(results: Results) -> RenderableType:
    """For rich's `Console.print`."""
    parts: list[RenderableType] = [Text(clean(heading(results)), "dim")]
    for block in (*ratios(results), *figures(results)):
        grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        grid.add_column("mixer", overflow="fold")
        for length in block.lengths:
            grid.add_column(length, justify="right")
        for name, *texts in block.rows:
            grid.add_row(Text(clean(name), "bold" if name == REFERENCE else ""), *map(Text, texts))
        parts += [Text(), Text(block.title, "bold"), grid]
    return Group(*parts, Text(), *(Text(clean(sentence), "dim") for sentence in remarks(results)))


# ---- Markdown


def as_markdown(results: Results, published: Sequence[Efficiency], chart: str) -> str:
    """The page. chart: Markdown of the figure, or the sentence that says why there is none."""
    s = results.setting
    lines = ["# Speed and memory", "", f"{md(heading(results))}. Every example fills the length. Measured by", ""]
    lines += [
        f"    {clean(s.command)}",
        "",
        f"{s.created[:10]}, code `{s.code['sha256'][:8]}`. A step is one batch.",
        "",
    ]
    lines += [f"- {md(sentence)}" for sentence in remarks(results)] + [""]
    sections = {"Ratios": ratios(results), "Figures": figures(results), "Further": further(results)}
    for title, blocks in sections.items():
        if blocks:
            lines += [f"## {title}", ""]
        for block in blocks:
            lines += _markdown(block)
        if title == "Ratios":
            lines += [chart, ""]
    lines += ["## As published", "", AS_PUBLISHED]
    for table in published:
        told = f"*{md(table.source)}.* {md(table.hardware)}; {md(table.setting)}."
        lines += ["", told + (f" {md(table.note)}" if table.note else ""), "", *_markdown(published_block(table))[:-1]]
    return "\n".join(lines) + "\n"


def published_block(table: Efficiency) -> Block:
    """`9.2 · 1.1x`: the figure as published, and its ratio to the reference of the same length."""

    def text(value: Figure, base: Figure) -> str:
        if value is None:
            return "OOM"
        return f"{value:g} · {NONE if base is None else ratio_text(value / base)}"

    bases = table.rows[table.reference]
    rows = ((name, *map(text, row, bases)) for name, row in table.rows.items())
    title = f"{table.quantity[0].upper()}{table.quantity[1:]}, {table.unit} · times {table.reference}'s"
    return Block(title, table.lengths, tuple(rows))


def _markdown(block: Block) -> list[str]:
    rows = [[md(name), *texts] for name, *texts in block.rows]
    return [f"**{md(block.title)}**", "", *md_grid(["mixer", *block.lengths], rows, left=1)]
