"""A picture of prepared data: a contact sheet of images, or excerpts of texts with their labels.

matplotlib is used through its objects, without pyplot: no window, no global state, the same bytes every time.
"""

from __future__ import annotations

import functools
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lra.data.prepare import class_names, image_side
from tasks import load_task
from tasks.core import Card, Prepared, Split
from tasks.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SPLIT = "train"
_PER_CLASS = 8  # pictures
_EXCERPTS, _ROWS, _COLUMNS = 6, 6, 112  # texts, and the lines and characters of each
_DPI = 150
_LINE, _CHARACTER, _MARGIN = 0.2, 13 / _DPI, 0.3  # inches; a character at 10 points is 13 whole pixels wide
_SANS, _MONO = "DejaVu Sans", "DejaVu Sans Mono"  # come with matplotlib
_INK, _FAINT, _BAR = "#1f2328", "#6e7781", "#d8dee4"
_LABELS = ("#0969da", "#cf222e", "#1a7f37", "#9a6700", "#8250df", "#bf3989", "#0a7ea4", "#953800", "#57606a", "#116329")


def show(task: str, prepared: Prepared, card: Card, path: Path) -> Path:
    """Writes a PNG of the first examples of every class in the training split.

    Returns:
      the path

    Raises:
      DataError: nothing to show, pictures that are not square, or a path that cannot be written.
    """
    split = prepared.splits.get(_SPLIT)
    if split is None or not len(split):
        raise DataError(f"{task}: the split {_SPLIT} has no examples to show")
    names = class_names(prepared, card)
    figure = _sheet(split, names) if card.pictures else _excerpts(task, split, names)
    width, height = figure.get_size_inches()
    facts = f"{len(split):,} examples in {_SPLIT}  ·  {prepared.source}  ·  sha256 {prepared.sha256[:8]}"
    title: dict[str, Any] = {"fontsize": 13, "fontweight": "bold", "color": _INK}
    note: dict[str, Any] = {"fontsize": 9, "color": _FAINT}
    for words, down, style in ((f"{card.title}, {prepared.column_variant}", 0.35, title), (facts, 0.6, note)):
        figure.text(_MARGIN / width, 1 - down / height, words, va="center", family=_SANS, parse_math=False, **style)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    except OSError as error:
        raise DataError(f"{path}: cannot write the picture ({error}); give another path") from error
    return path


def _sheet(split: Split, names: tuple[str, ...]) -> Figure:
    """A row of pictures a class; three rows where there are few classes."""
    from matplotlib.figure import Figure

    side = image_side(split)
    lines = 1 if len(names) > 4 else 3
    cell, gap, left, top = 0.92, 0.08, 1.4, 0.9
    figure = Figure((left + _PER_CLASS * cell + _MARGIN, top + len(names) * (lines * cell + gap) + 0.2))
    width, height = figure.get_size_inches()
    for label, name in enumerate(names):
        y = height - top - label * (lines * cell + gap)
        words = "\n".join(textwrap.wrap(name, 13))
        middle = (y - lines * cell / 2) / height
        figure.text(_MARGIN / width, middle, words, va="center", fontsize=10, color=_INK, family=_SANS)
        for place, i in enumerate(np.flatnonzero(split.labels == label)[: lines * _PER_CLASS]):
            row, column = divmod(place, _PER_CLASS)
            box = (left + column * cell, y - (row + 1) * cell, cell - gap / 2, cell - gap / 2)
            axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
            axes.set_axis_off()
            pixels = np.frombuffer(split.document(int(split.items[i])), np.uint8).reshape(side, side)
            axes.imshow(pixels[..., None].repeat(3, -1), interpolation="nearest")  # as colours: no map that rounds
    return figure


def _excerpts(task: str, split: Split, names: tuple[str, ...]) -> Figure:
    """Labels to the left, the beginning of each text (side by side for pairs) in a fixed-width font to the right."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    pairs = split.items.ndim == 2
    columns = _COLUMNS // 2 - 2 if pairs else _COLUMNS
    chosen = _choose(split.labels, len(names))
    blocks = [[_lines(task, split.document(d), columns) for d in np.atleast_1d(split.items[i])] for i in chosen]
    heights = [max(2, *map(len, block)) * _LINE for block in blocks]
    gap, top, bar = 0.3, 0.95, 1.6 if pairs else 1.1
    figure = Figure((bar + 0.2 + _COLUMNS * _CHARACTER + _MARGIN, top + sum(heights) + gap * len(blocks)))
    width, height = figure.get_size_inches()

    def put(x: float, y: float, words: str, **style: Any) -> None:
        figure.text(x / width, y / height, words, va="center", parse_math=False, **style)

    y = height - top
    for i, block, tall in zip(chosen, blocks, heights, strict=True):
        label = int(split.labels[i])
        size = " + ".join(f"{n:,}" for n in np.atleast_1d(split.lengths[i])) + " B"
        colour = _LABELS[label % len(_LABELS)]
        put(_MARGIN, y - 0.5 * _LINE, names[label], fontsize=11, color=colour, fontweight="bold", family=_SANS)
        put(_MARGIN, y - 1.5 * _LINE, size, fontsize=8, color=_FAINT, family=_SANS)
        figure.add_artist(Rectangle((bar / width, (y - tall) / height), 0.04 / width, tall / height, color=_BAR))
        for place, lines in enumerate(block):
            x = bar + 0.2 + place * (columns + 4) * _CHARACTER
            for row, line in enumerate(lines):
                put(x, y - (row + 0.5) * _LINE, line, fontsize=10, color=_INK, family=_MONO)
        y -= tall + gap
    return figure


def _choose(labels: np.ndarray, classes: int) -> list[int]:
    """Places of examples, the classes taking turns, in their order of appearance within a class."""
    places = [np.flatnonzero(labels == c).tolist() for c in range(classes)]
    turns = [(turn, c) for turn in range(_EXCERPTS) for c in range(classes) if turn < len(places[c])]
    return [places[c][turn] for turn, c in turns[:_EXCERPTS]]


def _lines(task: str, document: bytes, columns: int) -> list[str]:
    """The beginning of a document as lines that fit; ... where more follows."""
    if task == "listops":
        text = load_task(task).decode(document[: columns * _ROWS])
    else:
        text = document[: columns * _ROWS * 4].decode("utf-8", "replace").replace("\n", "\u21b5")
        text = "".join(c if c in _glyphs() else "\ufffd" for c in text)
    lines = textwrap.wrap(text, columns) or ["(blank)"]
    if len(lines) > _ROWS:
        lines = [*lines[: _ROWS - 1], lines[_ROWS - 1][: columns - 4].rstrip() + " ..."]
    return lines


@functools.cache
def _glyphs() -> frozenset[str]:
    """The characters that the font of the excerpts has."""
    from matplotlib import font_manager

    font: Any = font_manager.get_font(font_manager.findfont(_MONO))
    return frozenset(c for c in map(chr, font.get_charmap()) if c.isprintable())
