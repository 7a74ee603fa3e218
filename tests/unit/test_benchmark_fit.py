"""A line through points, and how sure its slope is."""

from __future__ import annotations

import pytest

from benchmarks.fit import Fit


def test_points_on_a_line_are_met_without_an_error() -> None:
    line = Fit.of([(x, 5.0 + 0.25 * x) for x in (0.0, 10.0, 40.0)])

    assert line.slope == pytest.approx(0.25)
    assert line.intercept == pytest.approx(5.0)
    assert line.residual == pytest.approx(0.0, abs=1e-9)
    assert line.error == pytest.approx(0.0, abs=1e-9)
    assert line.points == 3


def test_errors_are_those_of_least_squares() -> None:
    # Mean x 1; the points are 1/3 above, 2/3 below and 1/3 above the line.
    line = Fit.of([(0.0, 1.0), (1.0, 0.5), (2.0, 2.0)])

    assert line.slope == pytest.approx(0.5)
    assert line.intercept == pytest.approx(2 / 3)
    assert line.residual == pytest.approx((1 / 9 + 4 / 9 + 1 / 9) ** 0.5)
    assert line.error == pytest.approx((6 / 9) ** 0.5 / 2**0.5)


@pytest.mark.parametrize(
    "points",
    [[], [(0.0, 1.0), (1.0, 2.0)], [(3.0, 1.0), (3.0, 2.0), (3.0, 3.0)]],
)
def test_too_few_points_make_no_line(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="3 points at 2 places"):
        Fit.of(points)
