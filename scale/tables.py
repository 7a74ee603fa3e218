"""Results as plain text tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from scale.growth import REGION_HOSTS, Curve
from scale.measure import Result, Step

#: A process's CPU time comes in steps of this (sysconf(3), SC_CLK_TCK).
_TICK_S: Final = 0.01

_STEPS: Final = {
    "cold": "cold start",
    "group": "group change (all)",
    "port": "port change (one)",
    "move": "neighbor moves (few)",
    "idle": "idle, each second",
    "restart": "restart of all",
    "rolling": "rolling restart",
}


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Lines of columns: the first ``left`` to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return lines


def step_table(results: Sequence[Result], cpus: int) -> list[str]:
    """A line for each step of each result; ``busy`` is the share of all processors' time."""
    head = (
        "hosts",
        "each",
        "contender",
        "step",
        "p50",
        "p99",
        "last",
        "messages",
        "bytes",
        "origin CPU",
        "hosts' CPU",
        "busy",
        "origin RSS",
    )
    rows = []
    for result in results:
        for name, step in result.steps.items():
            rows.append(_row(result, _STEPS[name], step, cpus, is_rate=name == "idle"))
        if result.bare is not None:
            rows.append(_row(result, "group, bare sockets", result.bare, cpus))
    return text_table(head, rows, left=4)


def _row(
    result: Result, title: str, step: Step, cpus: int, *, is_rate: bool = False
) -> tuple[str, ...]:
    times = step.times
    spent = ("", "", "") if is_rate else tuple(map(seconds, (times.p50, times.p99, times.last)))
    spent_s = step.origin_cpu_s + step.driver_cpu_s
    busy = spent_s / (1 if is_rate else max(step.wall_s, 1e-9)) / cpus
    is_known = spent_s * step.repeats >= 10 * _TICK_S
    return (
        f"{result.hosts:,}",
        size(result.goal_bytes),
        result.contender,
        title,
        *spent,
        f"{step.messages:,.0f}",
        size(step.bytes),
        _cpu(step.origin_cpu_s, step),
        _cpu(step.driver_cpu_s, step),
        f"{busy:.0%}" if is_known else "",
        size(step.origin_rss),
    )


def _cpu(value: float, step: Step) -> str:
    """CPU time, which is told in ticks."""
    return seconds(value) if value else f"< {seconds(_TICK_S / step.repeats)}"


def growth_table(curves: Sequence[Curve], wanted: int) -> list[str]:
    """Measured points, and beyond them what the line says, marked with a tilde."""
    counts = sorted({int(x) for curve in curves for x, _ in curve.points})
    beyond = sorted({*([wanted] if wanted > counts[-1] else []), REGION_HOSTS})
    head = (
        "figure",
        "contender",
        "unit",
        *(f"{count:,}" for count in counts),
        *(f"~{count:,}" for count in beyond),
        "r2",
    )
    rows = []
    for curve in curves:
        measured = {int(x): y for x, y in curve.points}
        drawn = dict(curve.beyond(beyond))
        rows.append(
            (
                curve.figure.name,
                curve.contender,
                curve.figure.unit,
                *(number(measured[count]) if count in measured else "" for count in counts),
                *(f"~{number(drawn[count])}" if count in drawn else "" for count in beyond),
                "" if curve.line is None else f"{curve.line.r2:.3f}",
            )
        )
    return text_table(head, rows, left=3)


def goal_table(results: Sequence[Result]) -> list[str]:
    """What a host costs, by the size of its goal state; everything for each host."""
    head = (
        "in the VPC",
        "hosts",
        "contender",
        "held",
        "cold start",
        "bytes",
        "group change",
        "bytes",
        "move",
        "bytes",
        "restart",
        "bytes",
        "origin RSS",
    )
    rows = []
    for result in results:
        cells: list[str] = []
        for name in ("cold", "group", "move", "restart"):
            step = result.steps.get(name)
            if step is None:
                cells += ["", ""]
                continue
            receivers = step.times.count / step.repeats
            cells += [seconds(step.times.p50), size(step.bytes / max(1.0, receivers))]
        rss = max(step.origin_rss for step in result.steps.values())
        row = (
            size(result.vpc_bytes),
            str(result.hosts),
            result.contender,
            size(result.goal_bytes),
            *cells,
        )
        rows.append((*row, size(rss)))
    return text_table(head, rows, left=3)


def seconds(value: float) -> str:
    """A duration in the unit that suits it."""
    if value >= 10:
        return f"{value:.1f} s"
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.1f} ms" if value < 0.1 else f"{value * 1e3:.0f} ms"


def size(count: float) -> str:
    """Bytes in the decimal unit that suits them."""
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= one:
            return (
                f"{count / one:.3g} {unit}" if count < 1000 * one else f"{count / one:,.0f} {unit}"
            )
    return f"{count:.0f} B"


def number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


__all__ = ["goal_table", "growth_table", "number", "seconds", "size", "step_table", "text_table"]
