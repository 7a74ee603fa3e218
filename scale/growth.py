"""How figures grow with the number of hosts, and what that means for numbers that were not measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from scale.measure import Result, Step
from scale.statistics import Line, fit_line

#: Hosts for which the lines are drawn out, beside the number that was asked for.
REGION_HOSTS: Final = 1_000_000
FIT: Final = "base + slope * hosts, least squares over the measured numbers of hosts"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a result. ``scale`` brings it into ``unit``."""

    name: str
    unit: str
    scale: float
    of: Callable[[Result], float | None]


@dataclass(frozen=True, slots=True)
class Curve:
    """A figure of a contender: what was measured at how many hosts, and the line through it."""

    contender: str
    figure: Figure
    points: tuple[tuple[float, float], ...]
    line: Line | None

    @property
    def largest(self) -> float:
        """The most hosts that were measured."""
        return max(x for x, _ in self.points)

    def beyond(self, wanted: Sequence[int]) -> list[tuple[int, float]]:
        """What the line says of numbers of hosts above the measured ones; [] without a line."""
        if self.line is None:
            return []
        return [(hosts, self.line.at(hosts)) for hosts in wanted if hosts > self.largest]


def _step(name: str, value: Callable[[Step], float]) -> Callable[[Result], float | None]:
    def of(result: Result) -> float | None:
        step = result.steps.get(name)
        return None if step is None else value(step)

    return of


def _bare(value: Callable[[Step], float]) -> Callable[[Result], float | None]:
    return lambda result: None if result.bare is None else value(result.bare)


FIGURES: Final = (
    Figure("group change, at the last host", "ms", 1e3, _step("group", lambda s: s.wall_s)),
    Figure("group change, at the last bare socket", "ms", 1e3, _bare(lambda s: s.wall_s)),
    Figure("group change, bytes", "kB", 1e-3, _step("group", lambda s: s.bytes)),
    Figure("group change, CPU of the origin", "ms", 1e3, _step("group", lambda s: s.origin_cpu_s)),
    Figure("cold start, the last host follows", "s", 1, _step("cold", lambda s: s.wall_s)),
    Figure("cold start, bytes", "MB", 1e-6, _step("cold", lambda s: s.bytes)),
    Figure("cold start, CPU of the origin", "s", 1, _step("cold", lambda s: s.origin_cpu_s)),
    Figure("restart, the last host follows", "s", 1, _step("restart", lambda s: s.wall_s)),
    Figure("restart, bytes", "MB", 1e-6, _step("restart", lambda s: s.bytes)),
    Figure("restart, CPU of the origin", "s", 1, _step("restart", lambda s: s.origin_cpu_s)),
    Figure(
        "memory of the origin for hosts",
        "MB",
        1e-6,
        lambda result: max(s.origin_rss for s in result.steps.values()) - result.base_rss,
    ),
    Figure("idle, messages a second", "", 1, _step("idle", lambda s: s.messages)),
    Figure("idle, bytes a second", "kB", 1e-3, _step("idle", lambda s: s.bytes)),
    Figure("idle, CPU of the origin a second", "ms", 1e3, _step("idle", lambda s: s.origin_cpu_s)),
)


def curves(results: Sequence[Result]) -> list[Curve]:
    """All figures of all contenders that have them at least once."""
    found = []
    for figure in FIGURES:
        for contender in dict.fromkeys(result.contender for result in results):
            points = tuple(
                (float(result.hosts), value * figure.scale)
                for result in results
                if result.contender == contender and (value := figure.of(result)) is not None
            )
            if points:
                found.append(Curve(contender, figure, points, fit_line(points)))
    return found


__all__ = ["FIGURES", "FIT", "REGION_HOSTS", "Curve", "Figure", "curves"]
