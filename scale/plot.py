"""Curves as one SVG file that needs nothing beside it. Both axes are logarithmic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

_WIDTH: Final = 560
_HEIGHT: Final = 340
_LEFT: Final = 70
_RIGHT: Final = 20
_TOP: Final = 36
_BOTTOM: Final = 50
_LEGEND: Final = 16
_COLUMNS: Final = 2
#: Told apart by those who see no red or green, too (Okabe and Ito's palette).
_COLORS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


@dataclass(frozen=True, slots=True)
class Line:
    """Points to be joined; all coordinates are above 0. ``is_drawn_out``: extrapolated, so dashed."""

    name: str
    points: tuple[tuple[float, float], ...]
    is_drawn_out: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over the same axes. ``y_label`` is the unit."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]


def svg(charts: Sequence[Chart], *, heading: str) -> str:
    """The text of an SVG file with all charts that have a point."""
    drawn = [_drawable(chart) for chart in charts]
    shown = [chart for chart in drawn if chart.lines]
    legend = max((len(_names(chart)) for chart in shown), default=0) * _LEGEND
    cell = _HEIGHT + legend
    rows = -(-len(shown) // _COLUMNS)
    width, height = _WIDTH * _COLUMNS, rows * cell + 40
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
    )
    parts = [
        head,
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="20" y="26" font-size="16">{escape(heading)}</text>',
    ]
    for number, chart in enumerate(shown):
        x, y = number % _COLUMNS * _WIDTH, number // _COLUMNS * cell + 40
        parts.append(f'<g transform="translate({x} {y})">')
        parts += _chart(chart)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _drawable(chart: Chart) -> Chart:
    """Without points that a logarithm does not have."""
    lines = []
    for line in chart.lines:
        points = tuple((x, y) for x, y in line.points if x > 0 and y > 0)
        if points:
            lines.append(Line(line.name, points, line.is_drawn_out))
    return Chart(chart.title, chart.x_label, chart.y_label, tuple(lines))


def _names(chart: Chart) -> list[str]:
    return list(dict.fromkeys(line.name for line in chart.lines))


class _Axis:
    """From values to pixels, from one power of ten to another."""

    def __init__(self, values: Sequence[float], first: float, last: float) -> None:
        self.low = math.floor(math.log10(min(values)))
        self.high = max(math.ceil(math.log10(max(values))), self.low + 1)
        self._first, self._span = first, last - first

    def at(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self._first + share * self._span

    @property
    def ticks(self) -> list[float]:
        return [10.0**power for power in range(self.low, self.high + 1)]


def _chart(chart: Chart) -> list[str]:
    points = [point for line in chart.lines for point in line.points]
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    x_axis = _Axis([x for x, _ in points], _LEFT, right)
    y_axis = _Axis([y for _, y in points], bottom, _TOP)
    parts = [f'<text x="{_LEFT}" y="20" font-size="14">{escape(chart.title)}</text>']
    for value in x_axis.ticks:
        x = x_axis.at(value)
        parts.append(_rule(x, _TOP, x, bottom))
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{_tick(value)}</text>'
        )
    for value in y_axis.ticks:
        y = y_axis.at(value)
        parts.append(_rule(_LEFT, y, right, y))
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_tick(value)}</text>'
        )
    middle = (_LEFT + right) / 2
    parts.append(
        f'<text x="{middle}" y="{bottom + 34}" text-anchor="middle">{escape(chart.x_label)}</text>'
    )
    parts.append(f'<text x="{right}" y="20" text-anchor="end">{escape(chart.y_label)}</text>')
    names = _names(chart)
    for line in chart.lines:
        color = _COLORS[names.index(line.name) % len(_COLORS)]
        parts += _line(line, x_axis, y_axis, color)
    for number, name in enumerate(names):
        y = _HEIGHT + number * _LEGEND
        color = _COLORS[number % len(_COLORS)]
        parts.append(f'<rect x="{_LEFT}" y="{y - 9}" width="10" height="10" fill="{color}"/>')
        parts.append(f'<text x="{_LEFT + 16}" y="{y}">{escape(name)}</text>')
    return parts


def _line(line: Line, x_axis: _Axis, y_axis: _Axis, color: str) -> list[str]:
    places = [(x_axis.at(x), y_axis.at(y)) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dashes = ' stroke-dasharray="5 4"' if line.is_drawn_out else ""
    parts = [f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.8"{dashes}/>']
    fill = "white" if line.is_drawn_out else color
    for (x, y), (value_x, value_y) in zip(places, line.points, strict=True):
        hint = f"{line.name}: {value_x:,.0f}, {value_y:,.3g}"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{fill}" stroke="{color}">'
            f"<title>{escape(hint)}</title></circle>"
        )
    return parts


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'


def _tick(value: float) -> str:
    for unit, one in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= one:
            return f"{value / one:g}{unit}"
    return f"{value:g}"


__all__ = ["Chart", "Line", "svg"]
