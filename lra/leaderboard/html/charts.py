"""The charts of the page as plain geometry, in the units of an SVG's view box; `page.html` draws them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 36
STYLES = 24  # of lines and marks: eight colours, three dashes (page.css); a style is one of 0 to 23


@dataclasses.dataclass(frozen=True)
class Tick:
    at: float
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


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve. style: its colour and dash."""

    name: str
    style: int
    points: str


@dataclasses.dataclass(frozen=True)
class Curves:
    title: str
    axes: Axes
    lines: tuple[Line, ...]


@dataclasses.dataclass(frozen=True)
class Bubble:
    name: str
    style: int
    x: float
    y: float
    radius: float
    tooltip: str


@dataclasses.dataclass(frozen=True)
class Bubbles:
    axes: Axes
    bubbles: tuple[Bubble, ...]


def curves(
    title: str, series: Sequence[tuple[str, int, Sequence[tuple[float, float]]]], y_label: str, x_label: str = "step"
) -> Curves | None:
    """Draw curves (name, style, points) in common axes; return None if there is no point."""
    points = [p for *_, ps in series for p in ps if all(map(math.isfinite, p))]
    if not points:
        return None
    across = _Scale.of([0.0, *(x for x, _ in points)], LEFT, WIDTH - RIGHT)
    up = _Scale.of([y for _, y in points], HEIGHT - BOTTOM, TOP)
    lines = []
    for name, style, ps in series:
        drawn = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in ps if math.isfinite(x) and math.isfinite(y))
        lines.append(Line(name, style, drawn))
    return Curves(title, Axes(x_label, y_label, across.ticks(), up.ticks()), tuple(lines))


def bubbles(points: Sequence[tuple[str, int, float, float, float, str]], x_label: str, y_label: str) -> Bubbles | None:
    """Draw bubbles (name, style, x > 0, y, size > 0, tooltip): x is logarithmic, and areas are sizes."""
    points = [p for p in points if p[2] > 0 and p[4] > 0 and all(map(math.isfinite, p[2:5]))]
    if not points:
        return None
    across = _Scale.of([math.log2(p[2]) for p in points], LEFT + 20, WIDTH - RIGHT - 20, least=2.0)
    up = _Scale.of([p[3] for p in points], HEIGHT - BOTTOM - 24, TOP + 24, least=4.0)
    largest = max(p[4] for p in points)
    drawn = [
        Bubble(name, style, across(math.log2(x)), up(y), 22 * math.sqrt(size / largest), tooltip)
        for name, style, x, y, size, tooltip in points
    ]
    powers = range(math.floor(across.low), math.ceil(across.high) + 1)
    x_ticks = tuple(Tick(across(p), f"{2.0**p:g}") for p in powers if LEFT <= across(p) <= WIDTH - RIGHT)
    drawn.sort(key=lambda b: -b.radius)  # small ones in front
    return Bubbles(Axes(x_label, y_label, x_ticks, up.ticks()), tuple(drawn))


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

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

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
