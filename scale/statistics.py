"""Samples summed up, and lines fitted through points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds until something had happened at each host: median, 99th percentile, last."""

    p50: float
    p99: float
    last: float
    count: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Times:
        """Of at least one sample."""
        ordered = sorted(samples)
        return cls(percentile(ordered, 50), percentile(ordered, 99), ordered[-1], len(ordered))

    def as_json(self) -> dict[str, float]:
        return asdict(self)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The least value below or at which ``percent`` of the samples lie (nearest rank)."""
    if not ordered:
        raise ValueError("a percentile of no samples")
    rank = math.ceil(percent / 100 * len(ordered))
    return ordered[min(max(rank, 1), len(ordered)) - 1]


@dataclass(frozen=True, slots=True)
class Line:
    """``base + slope * x``, and r2: how much of the variance it explains (1: all)."""

    base: float
    slope: float
    r2: float

    def at(self, x: float) -> float:
        return self.base + self.slope * x


def fit_line(points: Sequence[tuple[float, float]]) -> Line | None:
    """The line of least squares; None with fewer than two different x.

    A base below 0 is no time and no size, so the line then goes through the origin.
    """
    if len({x for x, _ in points}) < 2:
        return None
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum(
        (x - mean_x) ** 2 for x, _ in points
    )
    base = mean_y - slope * mean_x
    if base < 0:
        base = 0.0
        slope = sum(x * y for x, y in points) / sum(x * x for x, _ in points)
    total = sum((y - mean_y) ** 2 for _, y in points)
    missed = sum((y - base - slope * x) ** 2 for x, y in points)
    return Line(base, slope, 1.0 if total == 0 else 1 - missed / total)


__all__ = ["Line", "Times", "fit_line", "percentile"]
