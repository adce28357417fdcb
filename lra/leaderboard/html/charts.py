"""The charts of the page as plain geometry, in the units of an SVG's view box; `page.html` draws them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 36
LETTER, LINE = 5, 9  # width of a letter and height of a line of labels
POINTS = 70  # most points of a drawn curve; longer ones are averaged


@dataclasses.dataclass(frozen=True)
class Tick:
    at: int
    text: str


@dataclasses.dataclass(frozen=True)
class Axes:
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def grid(self) -> str:
        """The path of the grid lines."""
        upright = [f"M{t.at} {self.top}V{self.bottom}" for t in self.x_ticks]
        return "".join(upright + [f"M{self.left} {t.at}H{self.right}" for t in self.y_ticks])


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve. name: of its mixer; kind: a class of page.css; path: a point and the steps to the next ones."""

    name: str
    kind: str
    tooltip: str
    path: str


@dataclasses.dataclass(frozen=True)
class Curves:
    title: str
    axes: Axes
    lines: tuple[Line, ...]


@dataclasses.dataclass(frozen=True)
class Bubble:
    name: str
    kind: str
    x: int
    y: int
    radius: int
    tooltip: str
    label: tuple[int, int] = (0, 0)  # position of its left end


@dataclasses.dataclass(frozen=True)
class Bubbles:
    axes: Axes
    bubbles: tuple[Bubble, ...]


def curves(
    title: str,
    series: Sequence[tuple[str, str, str, Sequence[tuple[float, float]]]],
    y_label: str,
    x_label: str = "step",
) -> Curves | None:
    """Draw curves (name, kind, tooltip, points) in common axes; return None if there is no point."""
    averaged = [_averaged([p for p in points if all(map(math.isfinite, p))]) for *_, points in series]
    if not any(averaged):
        return None
    across = _Scale.of([0.0, *(x for points in averaged for x, _ in points)], LEFT, WIDTH - RIGHT)
    up = _Scale.of([y for points in averaged for _, y in points], HEIGHT - BOTTOM, TOP)
    lines = [
        Line(name, kind, tooltip, _path([(across(x), up(y)) for x, y in points]))
        for (name, kind, tooltip, _), points in zip(series, averaged, strict=True)
        if points
    ]
    return Curves(title, Axes(x_label, y_label, across.ticks(), up.ticks()), tuple(lines))


def bubbles(points: Sequence[tuple[str, str, float, float, float, str]], x_label: str, y_label: str) -> Bubbles:
    """Draw bubbles (name, kind, x > 0, y, size > 0, tooltip): x is logarithmic, and areas are sizes."""
    across = _Scale.of([math.log2(p[2]) for p in points], LEFT + 20, WIDTH - RIGHT - 20, least=2.0)
    up = _Scale.of([p[3] for p in points], HEIGHT - BOTTOM - 20, TOP + 20, least=4.0)
    largest = max(p[4] for p in points)
    drawn = [
        Bubble(name, kind, across(math.log2(x)), up(y), round(9 * math.sqrt(size / largest)), tooltip)
        for name, kind, x, y, size, tooltip in points
    ]
    powers = range(math.floor(across.low), math.ceil(across.high) + 1)
    x_ticks = tuple(Tick(across(p), f"{2.0**p:g}") for p in powers if LEFT <= across(p) <= WIDTH - RIGHT)
    drawn.sort(key=lambda b: -b.radius)  # small ones in front
    return Bubbles(Axes(x_label, y_label, x_ticks, up.ticks()), tuple(_labelled(drawn)))


def _labelled(drawn: Sequence[Bubble]) -> list[Bubble]:
    """Put each label beside its bubble, as near as other labels and bubbles allow."""
    taken = [(b.x - b.radius, b.x + b.radius, b.y, b.radius + LINE // 2) for b in drawn]  # left, right, middle, reach
    placed = []
    for b in drawn:
        width = LETTER * len(b.name)
        places = (
            (x, b.y + sign * step)
            for step in range(0, HEIGHT, 3)
            for sign in (1, -1)
            for x in (b.x + b.radius + 2, b.x - b.radius - 2 - width)
        )
        free = (
            (x, y)
            for x, y in places
            if all(x >= right or x + width <= left or abs(y - middle) >= reach for left, right, middle, reach in taken)
        )
        x, y = next(free, (b.x, b.y))
        taken.append((x, x + width, y, LINE))
        placed.append(dataclasses.replace(b, label=(x, y)))
    return placed


def _averaged(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most `POINTS` points: the means of neighbours, each at the position of the last."""
    size = max(1, math.ceil(len(points) / POINTS))
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def _path(points: Sequence[tuple[int, int]]) -> str:
    steps = " ".join(f"{x1 - x0} {y1 - y0}" for (x0, y0), (x1, y1) in itertools.pairwise(points))
    return f"M{points[0][0]} {points[0][1]}l{steps or '0 0'}".replace(" -", "-")


@dataclasses.dataclass(frozen=True)
class _Scale:
    """Maps a range of values to a range of positions."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def of(cls, values: Sequence[float], start: float, end: float, least: float = 1e-9) -> _Scale:
        low, high = min(values), max(values)
        if high - low < least:
            middle = (low + high) / 2
            low, high = middle - max(least, abs(middle) * 0.05) / 2, middle + max(least, abs(middle) * 0.05) / 2
        return cls(low, high, start, end)

    def __call__(self, value: float) -> int:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start))

    def ticks(self, wanted: int = 5) -> tuple[Tick, ...]:
        """Return ticks at round numbers, 1, 2 or 5 times a power of ten apart."""
        rough = (self.high - self.low) / wanted
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-6)
        last = math.floor(self.high / step + 1e-6)
        return tuple(Tick(self(i * step), _number(i * step)) for i in range(first, last + 1))


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.10g}"
