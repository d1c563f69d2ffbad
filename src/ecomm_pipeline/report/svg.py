"""Charts as inline SVG. Pure; nothing in it runs, and nothing is fetched.

A chart is drawn in a box of `WIDTH` × `HEIGHT` that the page stretches to whatever width there is
(`preserveAspectRatio="none"`; strokes keep their width), so it holds no text: labels are HTML beside it, and stay
legible on a phone. Each day has an invisible band with a `<title>`, which browsers show as a tooltip and screen readers
read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from decimal import Decimal

__all__ = ["Chart", "Series", "chart", "nice_ceiling"]

WIDTH: Final = 1000
HEIGHT: Final = 100
_GRID: Final = 4
_BAR_SHARE: Final = 0.72
"""Share of a day's width that its bar takes."""


@dataclass(frozen=True, slots=True)
class Series:
    """Values a day, None where there are none; `kind` is `bar` or `line`, `style` the class that the page colours."""

    values: Sequence[Decimal | None]
    kind: str
    style: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, and the values at its bottom and top, for the labels beside it."""

    svg: Markup
    bottom: float
    top: float


def nice_ceiling(value: float) -> float:
    """Give the next larger number of the form 1, 1.5, 2, 3, 4, 5, 6 or 8 × 10ⁿ."""
    if value <= 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(value))
    step = next((one for one in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if value <= one * power * (1 + 1e-9)), 10)
    return step * power


def chart(series: Sequence[Series], titles: Sequence[str], label: str) -> Chart:
    """Draw series over the same days; `titles` tells a day in words, `label` the chart as a whole."""
    numbers = [float(value) for one in series for value in one.values if value is not None]
    top, bottom = nice_ceiling(max(numbers, default=0.0)), 0.0 - nice_ceiling(-min([*numbers, 0.0]))
    if top == bottom:
        top = bottom + 1
    scale = _Scale(bottom, top, max(1, len(titles)))
    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img"',
        f' aria-label="{escape(label)}">',
        *(f'<line class="grid" x1="0" x2="{WIDTH}" y1="{y}" y2="{y}"/>' for y in _grid()),
        *(mark for one in series for mark in (_bars(one, scale) if one.kind == "bar" else _line(one, scale))),
        f'<line class="zero" x1="0" x2="{WIDTH}" y1="{scale.y(0)}" y2="{scale.y(0)}"/>',
        *(_band(day, title, scale) for day, title in enumerate(titles)),
        "</svg>",
    ]
    return Chart(Markup("").join(map(Markup, parts)), bottom, top)


@dataclass(frozen=True, slots=True)
class _Scale:
    bottom: float
    top: float
    days: int

    @property
    def day(self) -> float:
        return WIDTH / self.days

    def x(self, day: int) -> float:
        """The middle of a day."""
        return round((day + 0.5) * self.day, 2)

    def y(self, value: float) -> float:
        return round(HEIGHT * (self.top - value) / (self.top - self.bottom), 2)


def _grid() -> Iterator[float]:
    return (HEIGHT * part / _GRID for part in range(_GRID + 1))


def _bars(series: Series, scale: _Scale) -> Iterator[str]:
    width = round(scale.day * _BAR_SHARE, 2)
    zero = scale.y(0)
    for day, value in enumerate(series.values):
        if value:
            y = scale.y(float(value))
            x, height = round(scale.x(day) - width / 2, 2), round(abs(zero - y), 2)
            yield f'<rect class="{series.style}" x="{x}" y="{min(y, zero)}" width="{width}" height="{height}"/>'


def _line(series: Series, scale: _Scale) -> Iterator[str]:
    """A path for each stretch of days with values; a day alone is a short stroke, so that it is seen."""
    for stretch in _stretches(series.values):
        points = [(scale.x(day), scale.y(float(value))) for day, value in stretch]
        if len(points) == 1:
            (x, y), half = points[0], round(scale.day / 4, 2)
            points = [(x - half, y), (x + half, y)]
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        yield f'<polyline class="{series.style}" points="{path}"/>'


def _stretches(values: Sequence[Decimal | None]) -> Iterator[list[tuple[int, Decimal]]]:
    stretch: list[tuple[int, Decimal]] = []
    for day, value in enumerate(values):
        if value is not None:
            stretch.append((day, value))
        elif stretch:
            yield stretch
            stretch = []
    if stretch:
        yield stretch


def _band(day: int, title: str, scale: _Scale) -> str:
    x, width = round(day * scale.day, 2), round(scale.day, 2)
    return f'<rect class="band" x="{x}" y="0" width="{width}" height="{HEIGHT}"><title>{escape(title)}</title></rect>'
