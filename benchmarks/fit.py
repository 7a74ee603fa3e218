"""A straight line through what was measured, and how well it fits."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fit:
    """Least squares: y = ``intercept`` + ``slope`` * x.

    Attributes:
        slope: y for one x.
        intercept: y at 0.
        error: standard error of the slope; the true one is within twice that, 19 times of 20.
        residual: standard deviation of the points from the line, in y.
        points: how many there were.
    """

    slope: float
    intercept: float
    error: float
    residual: float
    points: int

    @classmethod
    def of(cls, points: Sequence[tuple[float, float]]) -> Fit:
        """Of at least three points, with two different x.

        Raises:
            ValueError: there are not that many.
        """
        if len(points) < 3 or len({x for x, _ in points}) < 2:
            raise ValueError(f"a line with its errors wants 3 points at 2 places, not {points}")
        xs, ys = [x for x, _ in points], [y for _, y in points]
        slope, intercept = statistics.linear_regression(xs, ys)
        squares = sum((y - intercept - slope * x) ** 2 for x, y in points)
        residual = math.sqrt(squares / (len(points) - 2))
        mean = statistics.fmean(xs)
        error = residual / math.sqrt(sum((x - mean) ** 2 for x in xs))
        return cls(slope, intercept, error, residual, len(points))
