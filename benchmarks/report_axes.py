"""Axes of a plot: from values to pixels, and where the ticks are."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to pixels; on a logarithmic axis values are above 0."""

    low: float
    high: float
    first: float
    last: float
    is_log: bool

    def at(self, value: float) -> float:
        low, high = self.low, self.high
        if self.is_log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return self.first + (value - low) / (high - low) * (self.last - self.first)


def log_axis(low: float, high: float, first: float, last: float) -> tuple[Scale, list[float]]:
    """An axis just wider than its values, with ticks at 1, 2 and 5 times the powers of ten."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    wide = high / low > 2000
    marks = [step * 10.0**power for power in powers for step in ((1,) if wide else (1, 2, 5))]
    start = max(mark for mark in marks if mark <= low * 1.0001)
    end = min(mark for mark in marks if mark >= high * 0.9999 and mark > start)
    return (
        Scale(start, end, first, last, is_log=True),
        [mark for mark in marks if start <= mark <= end],
    )


def steps_from_zero(high: float) -> list[float]:
    """Round numbers from 0 to at least ``high``, four to eight of them."""
    if high <= 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(high / 4))
    step = next(one * power for one in (1, 2, 5, 10) if high / (one * power) <= 7)
    return [number * step for number in range(math.ceil(high / step - 1e-9) + 1)]


def short(value: float) -> str:
    for unit, one in (("M", 1e6), ("k", 1e3)):
        if value >= one * (10 if unit == "k" else 1):
            return f"{value / one:g}{unit}"
    return f"{value:,g}" if value < 1000 else f"{value:,.0f}"


__all__ = ["Scale", "log_axis", "short", "steps_from_zero"]
