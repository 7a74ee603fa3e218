"""Which curves the plot shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from scale.growth import REGION_HOSTS, Curve, curves
from scale.measure import Result
from scale.plot import Chart, Line
from scale.verdict import Results

#: Title of a chart -> the figures in it, which have one unit.
_BY_HOSTS: Final = (
    (
        "A group changes: at the last host",
        ("group change, at the last host", "group change, at the last bare socket"),
    ),
    ("A group changes: bytes sent", ("group change, bytes",)),
    (
        "All hosts start: the last one follows",
        ("cold start, the last host follows", "restart, the last host follows"),
    ),
    ("All hosts start: bytes sent", ("cold start, bytes", "restart, bytes")),
    ("Memory of the origin, for hosts", ("memory of the origin for hosts",)),
    (
        "CPU time of the origin",
        ("cold start, CPU of the origin", "restart, CPU of the origin"),
    ),
)


def charts(results: Results) -> list[Chart]:
    """By the number of hosts, and by the size of the goal state."""
    found = curves(results.by_hosts)
    made = []
    for title, names in _BY_HOSTS:
        chosen = [curve for name in names for curve in found if curve.figure.name == name]
        if chosen:
            lines = [line for curve in chosen for line in _lines(curve, alone=len(names) == 1)]
            made.append(
                Chart(title, "hosts (dashed: extrapolated)", chosen[0].figure.unit, tuple(lines))
            )
    goals = results.by_goal
    made.append(
        _by_goal("A group changes: bytes for each host", goals, lambda r: _each(r, "group"))
    )
    made.append(_by_goal("A host starts: bytes", goals, lambda r: _each(r, "cold")))
    return made


def _lines(curve: Curve, *, alone: bool) -> list[Line]:
    name = curve.contender if alone else f"{curve.contender}: {curve.figure.name}"
    lines = [Line(name, curve.points)]
    beyond = curve.beyond([10_000, 100_000, REGION_HOSTS])
    if beyond:
        last = max(curve.points)
        lines.append(Line(name, (last, *((float(x), y) for x, y in beyond)), is_drawn_out=True))
    return lines


def _each(result: Result, step: str) -> float:
    return result.steps[step].bytes / result.hosts / 1e3


def _by_goal(title: str, results: Sequence[Result], of: Callable[[Result], float]) -> Chart:
    lines = tuple(
        Line(
            contender,
            tuple((float(one.vpc_bytes), of(one)) for one in results if one.contender == contender),
        )
        for contender in dict.fromkeys(one.contender for one in results)
    )
    return Chart(title, "bytes of goal state of the VPC", "kB", lines)
