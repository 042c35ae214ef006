"""A chart of lines with error bars as SVG, without a graphics library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float, float]
"""x, y and what y varies by on either side."""

COLOURS = ("#1f4e9c", "#c2410c", "#15803d", "#7e22ce")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 360, 64, 16, 36, 48


@dataclass(frozen=True)
class Axes:
    """Where values lie on the sheet: x on a logarithmic axis, y from 0 to ``most``."""

    low: float
    high: float
    most: float

    def x(self, value: float) -> float:
        """Pixels from the left."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        return HEIGHT - BOTTOM - value / self.most * (HEIGHT - TOP - BOTTOM)


def nice(value: float) -> float:
    """The least of 1, 2 or 5 times a power of ten that is not below ``value``, which is above 0."""
    unit = 10.0 ** math.floor(math.log10(value))
    return next(step * unit for step in (1, 2, 5, 10) if step * unit >= value * (1 - 1e-9))


def chart(title: str, across: str, up: str, series: Mapping[str, Sequence[Point]]) -> str:
    """Lines named in a legend over a logarithmic x, whose ticks are the points'; y starts at 0.

    Raises ValueError without at least two different x.
    """
    points = [point for line in series.values() for point in line]
    places = sorted({x for x, _, _ in points})
    if len(places) < 2:
        raise ValueError(f"a chart needs two different x, not {len(places)}")
    step = nice(max(y + e for _, y, e in points) / 5)
    count = math.ceil(max(y + e for _, y, e in points) / step)
    axes = Axes(places[0], places[-1], step * count)
    parts = [_text(WIDTH / 2, 20, title, "middle", 14), _text(WIDTH / 2, HEIGHT - 10, across, "middle")]
    parts.append(f'<g transform="rotate(-90 14 {HEIGHT / 2})">{_text(14, HEIGHT / 2, up, "middle")}</g>')
    for i in range(count + 1):
        y = axes.y(i * step)
        parts += [_line(LEFT, y, WIDTH - RIGHT, y, "#ddd"), _text(LEFT - 6, y + 4, f"{i * step:.4g}", "end")]
    parts += [_text(axes.x(x), HEIGHT - BOTTOM + 18, f"{x:g}", "middle") for x in places]
    for i, (name, line) in enumerate(series.items()):
        parts += _drawn(axes, name, sorted(line), COLOURS[i % len(COLOURS)], i)
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def _drawn(axes: Axes, name: str, line: Sequence[Point], colour: str, place: int) -> list[str]:
    path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y, _ in line)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for x, y, e in line:
        at, low, high = axes.x(x), axes.y(max(0.0, y - e)), axes.y(y + e)
        dot = f'<circle cx="{at:.1f}" cy="{axes.y(y):.1f}" r="3.5" fill="{colour}"/>'
        parts += [_line(at, low, at, high, colour), dot]
    at = HEIGHT - BOTTOM - 14 - 18 * place
    parts += [_line(LEFT + 12, at - 4, LEFT + 36, at - 4, colour), _text(LEFT + 42, at, name, "start")]
    return parts


def _line(x: float, y: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str, size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
