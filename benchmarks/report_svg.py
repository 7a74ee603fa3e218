"""A panel as one inline SVG: bars, percentiles or lines, each axis labelled with its unit.

Colors come from the page (``.series-ours-0`` and so on set ``--series``), so that one drawing serves a
light and a dark page. Contenders differ by name, dash and mark too, never by color alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

import msgspec

from benchmarks.report_axes import Scale, log_axis, short, steps_from_zero
from benchmarks.suite_results import Panel, Role, Row, Value

WIDTH: Final = 760
_LEFT: Final = 74
_RIGHT: Final = 24
_TOP: Final = 14
_PLOT: Final = 300
_AXIS: Final = 48
_LEGEND: Final = 19
_BAR: Final = 32
_BAR_LEFT: Final = 214
#: Room for the value behind the longest bar.
_BAR_RIGHT: Final = 128
_DASHES: Final[dict[Role, str]] = {"ours": "", "floor": "2 4", "theirs": "7 4"}
ROLE_WORDS: Final[dict[Role, str]] = {"ours": "ours", "floor": "floor", "theirs": "other"}
#: Shares that have a tick; the axis widens the tail: its measure is 1 / (1 - share).
_SHARE_TICKS: Final = (0.0, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)
#: From so many times the least value on, the y axis of lines is logarithmic.
_WIDE: Final = 30
#: So many colors per role (``report_style``).
COLORS: Final = 6


def draw(panel: Panel) -> str:
    """The SVG of a panel; "" when there is nothing to draw."""
    if panel.kind == "bars":
        return _bars(panel)
    if panel.kind == "percentiles":
        return _percentiles(panel)
    if panel.kind != "lines":
        return ""
    if len(panel.columns) == 1:
        # A single place on the x axis makes no line.
        label = f"{panel.y_label}, with {panel.columns[0].name}"
        return _bars(msgspec.structs.replace(panel, x_label=label, y_label="contender"))
    return _lines(panel)


def series_classes(rows: Sequence[Row]) -> list[str]:
    """The class that gives each row its color: different ones of one role, unless they are one series."""
    seen: dict[Role, list[str]] = {}
    classes = []
    for row in rows:
        known = seen.setdefault(row.role, [])
        series = row.series or row.who
        if series not in known:
            known.append(series)
        classes.append(f"series-{row.role}-{known.index(series) % COLORS}")
    return classes


def number(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}"


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img"'
        f' aria-label="{escape(title)}">\n<title>{escape(title)}</title>\n'
        + "\n".join(parts)
        + "\n</svg>"
    )


def _text(x: float, y: float, words: str, *, anchor: str = "start", style: str = "") -> str:
    name = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{name}>{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


# ---------------------------------------------------------------------------------------------- bars


def _bars(panel: Panel) -> str:
    rows = [
        (row, found)
        for row in filter(_is_drawn, panel.rows)
        for found in row.values[:1]
        if found is not None
    ]
    if not rows:
        return ""
    column = panel.columns[0]
    right = WIDTH - _BAR_RIGHT
    ticks = steps_from_zero(max(value.high for _, value in rows))
    scale = (right - _BAR_LEFT) / ticks[-1]
    top, bottom = _TOP + 22, _TOP + 22 + len(rows) * _BAR
    parts = [_text(0, _TOP + 6, panel.y_label, style="axis")]
    for tick in ticks:
        x = _BAR_LEFT + tick * scale
        parts.append(_line(x, top, x, bottom, "grid"))
        parts.append(_text(x, bottom + 17, short(tick), anchor="middle"))
    parts.append(
        _text((_BAR_LEFT + right) / 2, bottom + 38, panel.x_label, anchor="middle", style="axis")
    )
    classes = dict(zip((row.who for row in panel.rows), series_classes(panel.rows), strict=True))
    for place, (row, value) in enumerate(rows):
        middle = top + (place + 0.5) * _BAR
        low, mid, high = (_BAR_LEFT + v * scale for v in (value.low, value.median, value.high))
        hint = f"{row.who}: {_spread(value, column.digits)} {column.unit}"
        parts += [
            f'<g class="{classes[row.who]}"><title>{escape(hint)}</title>',
            (
                f'<rect x="{_BAR_LEFT}" y="{middle - 9:.1f}" width="{max(1.0, mid - _BAR_LEFT):.1f}"'
                ' height="18" rx="2" class="fill"/>'
            ),
            *_whisker(low, high, middle),
            "</g>",
            _text(
                _BAR_LEFT - 10,
                middle + 4,
                row.who,
                anchor="end",
                style="own" if row.role == "ours" else "",
            ),
            _text(
                max(mid, high) + 8, middle + 4, number(value.median, column.digits), style="value"
            ),
        ]
    return _svg(panel.title, bottom + 46, parts)


# --------------------------------------------------------------------------------- curves and points


def _percentiles(panel: Panel) -> str:
    drawn = []
    for row in filter(_is_drawn, panel.rows):
        dots = [
            (column.at, value)
            for column, value in zip(panel.columns, row.values, strict=True)
            if column.at is not None and value is not None and value.low > 0
        ]
        curve = [(share, height) for share, height in row.curve if height > 0]
        points = curve or [(share, value.median) for share, value in dots]
        if points:
            drawn.append((row, points, dots if not curve else []))
    if not drawn:
        return ""
    heights = [y for _, points, _ in drawn for _, y in points]
    heights += [v for _, _, dots in drawn for _, value in dots for v in (value.low, value.high)]
    far = max(share for _, points, _ in drawn for share, _ in points)
    near = min(share for _, points, _ in drawn for share, _ in points)
    ends = (0.0 if near < 0.5 else 0.5, max(far, 0.9))
    x = Scale(1 / (1 - ends[0]), 1 / (1 - ends[1]), _LEFT, WIDTH - _RIGHT, is_log=True)
    y, y_ticks = log_axis(min(heights), max(heights), _TOP + 18 + _PLOT, _TOP + 18)
    ticks = [(x.at(1 / (1 - t)), f"{t * 100:g}%") for t in _SHARE_TICKS if ends[0] <= t <= ends[1]]
    parts = _frame(panel, ticks, [(y.at(t), short(t)) for t in y_ticks])
    classes = dict(zip((row.who for row in panel.rows), series_classes(panel.rows), strict=True))
    legend = []
    for row, points, dots in drawn:
        places = [(x.at(1 / (1 - share)), y.at(height)) for share, height in points]
        marks = [
            (
                x.at(1 / (1 - share)),
                y.at(v.median),
                y.at(v.low),
                y.at(v.high),
                f"{row.who}, {share * 100:g}%: {_spread(v, panel.columns[0].digits)} {panel.columns[0].unit}",
            )
            for share, v in dots
        ]
        parts += _series(classes[row.who], row.role, places, marks)
        legend.append((classes[row.who], row))
    return _finish(panel, parts, legend)


def _lines(panel: Panel) -> str:
    drawn = []
    for row in filter(_is_drawn, panel.rows):
        dots = [
            (column.at, value, column)
            for column, value in zip(panel.columns, row.values, strict=True)
            if column.at is not None and column.at > 0 and value is not None
        ]
        if dots:
            drawn.append((row, dots))
    if not drawn:
        return ""
    across = [at for _, dots in drawn for at, _, _ in dots]
    x, x_ticks = log_axis(min(across), max(across), _LEFT, WIDTH - _RIGHT)
    highest = max(value.high for _, dots in drawn for _, value, _ in dots)
    lowest = min(value.low for _, dots in drawn for _, value, _ in dots)
    if 0 < lowest < highest / _WIDE:
        y, steps = log_axis(lowest, highest, _TOP + 18 + _PLOT, _TOP + 18)
        panel = msgspec.structs.replace(panel, y_label=f"{panel.y_label}, logarithmic")
    else:
        steps = steps_from_zero(highest)
        y = Scale(0.0, steps[-1], _TOP + 18 + _PLOT, _TOP + 18, is_log=False)
    parts = _frame(
        panel,
        [(x.at(t), short(t)) for t in x_ticks],
        [(y.at(t), short(t)) for t in steps],
    )
    classes = dict(zip((row.who for row in panel.rows), series_classes(panel.rows), strict=True))
    legend = []
    has_spread = any(value.low < value.high for _, dots in drawn for _, value, _ in dots)
    for place, (row, dots) in enumerate(drawn):
        # Side by side, so that one spread does not hide another.
        aside = (place - (len(drawn) - 1) / 2) * 4 if has_spread else 0.0
        marks = [
            (
                x.at(at) + aside,
                y.at(v.median),
                y.at(v.low),
                y.at(v.high),
                f"{row.who}, {column.name}: {_spread(v, column.digits)} {column.unit}",
            )
            for at, v, column in dots
        ]
        parts += _series(classes[row.who], row.role, [(m[0], m[1]) for m in marks], marks)
        legend.append((classes[row.who], row))
    return _finish(panel, parts, legend)


def _whisker(low: float, high: float, middle: float) -> list[str]:
    """From the least to the greatest; nothing where there is one repetition only."""
    if low == high:
        return []
    return [
        _line(low, middle, high, middle, "whisker"),
        _line(low, middle - 5, low, middle + 5, "whisker"),
        _line(high, middle - 5, high, middle + 5, "whisker"),
    ]


def _is_drawn(row: Row) -> bool:
    return row.is_drawn


def _series(
    style: str,
    role: Role,
    places: Sequence[tuple[float, float]],
    marks: Sequence[tuple[float, float, float, float, str]],
) -> list[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [f'<g class="{style}">', f'<polyline points="{path}" class="stroke"{_dash(role)}/>']
    for x, mid, low, high, hint in marks:
        parts += [
            f"<g><title>{escape(hint)}</title>",
            _line(x, low, x, high, "reach"),
            f'<circle cx="{x:.1f}" cy="{mid:.1f}" r="3.5" class="fill"/></g>',
        ]
    return [*parts, "</g>"]


def _dash(role: Role) -> str:
    return f' stroke-dasharray="{_DASHES[role]}"' if _DASHES[role] else ""


def _frame(
    panel: Panel, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]]
) -> list[str]:
    top, bottom, right = _TOP + 18, _TOP + 18 + _PLOT, WIDTH - _RIGHT
    parts = [_text(0, _TOP, panel.y_label, style="axis")]
    for y, words in y_ticks:
        parts.append(_line(_LEFT, y, right, y, "grid"))
        parts.append(_text(_LEFT - 8, y + 4, words, anchor="end"))
    for x, words in x_ticks:
        parts.append(_line(x, top, x, bottom, "grid"))
        parts.append(_text(x, bottom + 17, words, anchor="middle"))
    parts.append(
        _text((_LEFT + right) / 2, bottom + 38, panel.x_label, anchor="middle", style="axis")
    )
    return parts


def _finish(panel: Panel, parts: list[str], legend: Sequence[tuple[str, Row]]) -> str:
    first = _TOP + 18 + _PLOT + _AXIS + 14
    for place, (style, row) in enumerate(legend):
        x, y = _LEFT + place % 2 * 340, first + place // 2 * _LEGEND
        words = f"{row.who} ({ROLE_WORDS[row.role]})"
        parts += [
            (
                f'<g class="{style}"><line x1="{x}" y1="{y - 4}" x2="{x + 30}" y2="{y - 4}"'
                f' class="stroke"{_dash(row.role)}/></g>'
            ),
            _text(x + 38, y, words, style="own" if row.role == "ours" else ""),
        ]
    return _svg(panel.title, first + -(-len(legend) // 2) * _LEGEND - 6, parts)


def _spread(value: Value, digits: int) -> str:
    return f"{number(value.median, digits)} ({number(value.low, digits)} to {number(value.high, digits)})"


__all__ = ["COLORS", "ROLE_WORDS", "WIDTH", "draw", "number", "series_classes"]
