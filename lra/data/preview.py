"""A picture of prepared data: images by class, or the beginnings of documents with their labels.

matplotlib is used without pyplot, so there is no window and no global state, and equal data give an equal file.
"""

from __future__ import annotations

import functools
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lra.data.prepare import class_names, image_side
from tasks.core import Card, Prepared, Split
from tasks.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SPLIT = "train"
_PER_ROW = 8  # images of a class
_EXCERPTS, _LINES, _COLUMNS, _GAP = 6, 6, 112, 4  # documents; lines and characters of each; characters between a pair
_DPI = 150
_IMAGE, _LINE, _CHARACTER = 0.92, 0.17, 13 / _DPI  # inches; a character at 10 points is 13 whole pixels wide
_MARGIN, _LEFT, _HEAD = 0.3, 1.6, 0.9  # inches
_SANS, _MONO = "DejaVu Sans", "DejaVu Sans Mono"  # part of matplotlib
_BLACK, _GRAY = "#1f2328", "#6e7781"
_LABELS = ("#0969da", "#cf222e", "#1a7f37", "#9a6700", "#8250df", "#bf3989", "#0a7ea4", "#953800", "#57606a", "#116329")


def show(prepared: Prepared, card: Card, path: Path) -> Path:
    """Write a PNG of the first training examples of each class, and return its path.

    Raises:
      DataError: there are no examples, images are not square, or the file cannot be written.
    """
    split = prepared.splits.get(_SPLIT)
    if split is None or not len(split):
        raise DataError(f"{card.name}: the split {_SPLIT} has no examples to show")
    figure = (_images if card.images else _excerpts)(card, split, class_names(prepared, card))
    width, height = figure.get_size_inches()
    facts = f"{len(split):,} examples in {_SPLIT}  ·  {prepared.source}  ·  sha256 {prepared.sha256[:8]}"
    title: dict[str, Any] = {"fontsize": 13, "fontweight": "bold", "color": _BLACK}
    note: dict[str, Any] = {"fontsize": 9, "color": _GRAY}
    for text, below, style in ((f"{card.title}, {prepared.column_variant}", 0.35, title), (facts, 0.6, note)):
        figure.text(_MARGIN / width, 1 - below / height, text, va="center", family=_SANS, parse_math=False, **style)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    except OSError as error:
        raise DataError(f"{path}: cannot write the picture ({error}); give another path") from error
    return path


def _panels(rows: int, columns: int, width: float, height: float, **spacing: float) -> tuple[Figure, np.ndarray]:
    """Return a figure and its panels [rows, columns], which together have a width and height in inches."""
    from matplotlib.figure import Figure

    total = _LEFT + width + _MARGIN, _HEAD + height + _MARGIN
    figure = Figure(total)
    edges = {"left": _LEFT / total[0], "right": 1 - _MARGIN / total[0]}
    edges |= {"bottom": _MARGIN / total[1], "top": 1 - _HEAD / total[1]}
    panels = figure.subplots(rows, columns, squeeze=False, gridspec_kw={**edges, **spacing})
    for panel in panels.flat:
        panel.set_axis_off()
    return figure, panels


def _label(panel: Any, text: str, color: str, note: str = "") -> None:
    """Write a text, and below it a note, to the left of a panel."""
    style: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "va": "top", "family": _SANS}
    panel.annotate(text, (0, 1), (-10, 0), color=color, fontsize=10, fontweight="bold", **style)
    panel.annotate(note, (0, 1), (-10, -16), color=_GRAY, fontsize=8, **style)


def _images(card: Card, split: Split, names: tuple[str, ...]) -> Figure:
    """Draw a row of images per class; three rows where there are few classes."""
    side, lines = image_side(split), 1 if len(names) > 4 else 3
    rows = lines * len(names)
    figure, panels = _panels(rows, _PER_ROW, _PER_ROW * _IMAGE, rows * _IMAGE, wspace=0.06, hspace=0.06)
    for label, name in enumerate(names):
        block = panels[label * lines : (label + 1) * lines]
        _label(block[0, 0], textwrap.fill(name, 13), _BLACK)
        for panel, i in zip(block.flat, np.flatnonzero(split.labels == label), strict=False):
            pixels = np.frombuffer(split.document(int(split.items[i])), np.uint8).reshape(side, side)
            panel.imshow(pixels[..., None].repeat(3, -1), interpolation="nearest")  # RGB: a colour map rounds
            panel.set_axis_off()
    return figure


def _excerpts(card: Card, split: Split, names: tuple[str, ...]) -> Figure:
    """Draw the label of each example, and the beginnings of its document or two documents in a fixed-width font."""
    documents = split.items.reshape(len(split), -1)
    count = documents.shape[1]
    columns = (_COLUMNS - (count - 1) * _GAP) // count
    chosen = _choose(split.labels, len(names))
    texts = [[_lines(card, split.document(d), columns) for d in documents[i]] for i in chosen]
    most = max(2, *(len(lines) for example in texts for lines in example))  # lines; one is between two examples
    width, height = _COLUMNS * _CHARACTER, (len(chosen) * (most + 1) - 1) * _LINE
    figure, panels = _panels(len(chosen), count, width, height, wspace=_GAP / columns, hspace=1 / most)
    for i, example, row in zip(chosen, texts, panels, strict=True):
        label = int(split.labels[i])
        size = " + ".join(f"{n:,}" for n in np.atleast_1d(split.lengths[i])) + " B"
        _label(row[0], names[label], _LABELS[label % len(_LABELS)], size)
        for panel, lines in zip(row, example, strict=True):
            style: dict[str, Any] = {"fontsize": 10, "color": _BLACK, "family": _MONO, "linespacing": 1.2}
            panel.text(0, 1, "\n".join(lines), va="top", parse_math=False, **style)
    return figure


def _choose(labels: np.ndarray, classes: int) -> list[int]:
    """Return indices of examples: the first of each class, then the second of each class, and so on."""
    indices = [np.flatnonzero(labels == c).tolist() for c in range(classes)]
    rounds = range(_EXCERPTS)
    return [of_class[turn] for turn in rounds for of_class in indices if turn < len(of_class)][:_EXCERPTS]


def _lines(card: Card, document: bytes, columns: int) -> list[str]:
    """Return the beginning of a document as lines that fit, with ... where it continues."""
    beginning = document[: columns * _LINES * 4]
    text = card.to_text(beginning) if card.to_text else beginning.decode("utf-8", "replace")
    text = "".join(c if c in _glyphs() else "\ufffd" for c in text.replace("\n", "\u21b5"))
    lines = textwrap.wrap(text, columns) or ["(blank)"]
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], lines[_LINES - 1][: columns - 4].rstrip() + " ..."]
    return lines


@functools.cache
def _glyphs() -> frozenset[str]:
    """Return the characters of the font of the excerpts."""
    from matplotlib import font_manager

    font: Any = font_manager.get_font(font_manager.findfont(_MONO))
    return frozenset(c for c in map(chr, font.get_charmap()) if c.isprintable())
