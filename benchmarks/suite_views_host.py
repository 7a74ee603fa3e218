"""Views of ``cold_start`` and ``agent_memory``: what a host sees in a VPC that grows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from benchmarks.suite_results import Column, Panel, Row, Value
from benchmarks.suite_view_parts import Raw, of, value

_MODES: Final = {
    "boot": "ovs-vswitchd is new and without rules, nothing is saved",
    "saved": "only the agent is new; it finds what it had saved, and its rules",
    "fresh": "only the agent is new; it finds its rules",
}
_EXPANDED_NOTE: Final = (
    "expanded: a model, made here, of an agent that preloads: its ports' rules, then one for each neighbor, "
    "OpenFlow messages in bundles of 10,000 from a file made beforehand. It has no process of its own that would "
    "have to start, receive neighbors, or take memory."
)

#: What one start tells, None where it has no such thing.
Field = Callable[[Raw], float | None]


def cold_start(results: Sequence[Raw]) -> list[Panel]:
    starts = list(_starts(results))
    preloaded = [one for result in results for one in result.get("expanded", ())]
    sizes = sorted({size for _, size, _ in starts} | {one["neighbors"] for one in preloaded})
    loads = list(dict.fromkeys((source, mode) for source, _, found in starts for mode in found))
    left_out = [
        f"expanded, {one['neighbors']:,} neighbors: {one['reason']}"
        for result in results
        for one in result.get("left_out", ())
    ]

    def agents(
        name: str, field: Field, modes: Iterable[str] = _MODES, *, drawn: Iterable[str] = _MODES
    ) -> list[Row]:
        rows = []
        for source, mode in loads:
            if mode in modes:
                cells = [_cell(starts, source, mode, size, field) for size in sizes]
                row = Row(f"{name}{source}, {mode}", "ours", cells, is_drawn=mode in drawn)
                rows.append(row)
        return [row for row in rows if any(row.values)]

    def theirs(name: str, field: Field) -> list[Row]:
        cells = [_of([field(one) for one in preloaded if one["neighbors"] == n]) for n in sizes]
        return [Row(name, "theirs", cells)] if any(cells) else []

    def panel(title: str, y_label: str, unit: str, digits: int, rows: list[Row]) -> Panel:
        return Panel(
            title=title,
            kind="lines",
            x_label="neighbors in the VPC (ports)",
            y_label=y_label,
            repetitions=f"{results[0]['parameters']['repetitions']} (expanded: 1 from 500,000 on)",
            columns=[
                Column(f"{size:,} neighbors", unit, digits=digits, at=float(size)) for size in sizes
            ],
            rows=rows,
            unsupported=left_out,
            note="; ".join(f"{mode}: {words}" for mode, words in _MODES.items())
            + f". {_EXPANDED_NOTE if preloaded else ''}".rstrip(),
        )

    panels = [
        panel(
            "From the start to the first packet of a new flow served",
            *("time (s)", "s", 2),
            [*agents("", _get("served_s")), *theirs("expanded", _get("served_s"))],
        ),
        panel(
            "From the start of the host to full service: all neighbors in use have answered",
            *("time (s)", "s", 2),
            [*agents("", _get("full_s")), *theirs("expanded", _get("full_s"))],
        ),
        panel(
            "Memory of the host in service: the agent, and what ovs-vswitchd grew by",
            *("resident memory (MiB)", "MiB", 0),
            [
                *agents("agent, ", _get("rss_mib"), drawn=["boot"]),
                *agents("agent and ovs-vswitchd, ", _both_mib, ["boot"]),
                *theirs("ovs-vswitchd, expanded", _grown_mib),
            ],
        ),
        panel(
            "Rules in the switch in full service",
            *("rules (count)", "", 0),
            [*agents("", _get("rules"), ["boot"]), *theirs("expanded", _get("rules"))],
        ),
    ]
    return [one for one in panels if one.rows]


def _starts(results: Sequence[Raw]) -> Iterable[tuple[str, int, dict[str, list[Raw]]]]:
    """Source, neighbors, starts by mode."""
    for result in results:
        for source in result["sources"]:
            by_mode: dict[str, list[Raw]] = {}
            for start in source["starts"]:
                by_mode.setdefault(start["mode"], []).append(start)
            yield (
                source["source"],
                source["neighbors"],
                by_mode,
            )


def _cell(
    starts: Sequence[tuple[str, int, dict[str, list[Raw]]]],
    source: str,
    mode: str,
    size: int,
    field: Field,
) -> Value | None:
    found = [one for s, n, by in starts if (s, n) == (source, size) for one in by.get(mode, ())]
    return _of([field(one) for one in found])


def _of(values: Sequence[float | None]) -> Value | None:
    found = [one for one in values if one is not None]
    return of(found) if found else None


def _get(name: str) -> Field:
    return lambda start: start.get(name)


def _grown_mib(start: Raw) -> float | None:
    """What ovs-vswitchd grew by."""
    if "switch_rss_mib" not in start:
        return None
    grown: float = start["switch_rss_mib"] - start["switch_before_mib"]
    return grown


def _both_mib(start: Raw) -> float | None:
    grown = _grown_mib(start)
    return None if grown is None else grown + start["rss_mib"]


def memory(results: Sequence[Raw]) -> list[Panel]:
    [result] = results
    return [_by_store(result), *_slopes(result)]


def _by_store(result: Raw) -> Panel:
    samples = sorted(result["samples"], key=lambda one: one["neighbors_in_store"])
    sizes = sorted({one["neighbors_in_store"] for one in samples})
    used = sorted({one["neighbors_in_use"] for one in samples})
    at = {(one["neighbors_in_use"], one["neighbors_in_store"]): one for one in samples}

    def cell(count: int, size: int) -> Value | None:
        one = at.get((count, size))
        return None if one is None else value(one["spread"])

    return Panel(
        title="Resident memory of one agent, all modules loaded",
        kind="lines",
        x_label="neighbors in the store (ports)",
        y_label="resident memory (MiB)",
        repetitions=str(result["parameters"]["repetitions"]),
        columns=[Column(f"{n:,} in the store", "MiB", digits=1, at=float(n)) for n in sizes],
        rows=[
            Row(f"agent, {count:,} neighbors in use", "ours", [cell(count, n) for n in sizes])
            for count in used
        ],
        note=(
            f"Each neighbor in use has {result['parameters']['flows_per_neighbor']} flows: as many "
            "verdict rules, and one location rule."
        ),
    )


def _slopes(result: Raw) -> list[Panel]:
    slopes = result.get("slopes", ())
    if not slopes:
        return []
    return [
        Panel(
            title="What one of a kind takes in an agent",
            kind="table",
            x_label="",
            y_label="",
            repetitions=str(result["parameters"]["repetitions"]),
            columns=[
                Column("each, with its standard error", "B", digits=1),
                Column("residual of a process", "MiB", digits=2),
            ],
            rows=[
                Row(
                    f"{one['what']}, {one['low']:,} to {one['high']:,}",
                    "ours",
                    [
                        Value(
                            one["each_bytes"],
                            one["each_bytes"] - one["error_bytes"],
                            one["each_bytes"] + one["error_bytes"],
                        ),
                        Value(*[one["residual_mib"]] * 3),
                    ],
                )
                for one in slopes
            ],
            note=(
                "The slope of a straight line through the resident memory of processes with less and more of a "
                "kind. Of a neighbor that is held, the rules that come with it are taken away."
            ),
        )
    ]


__all__ = ["cold_start", "memory"]
