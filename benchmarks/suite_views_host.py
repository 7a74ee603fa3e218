"""Views of ``cold_start`` and ``agent_memory``: what a host sees in a VPC that grows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from benchmarks.suite_results import Column, Panel, Row, Value
from benchmarks.suite_view_parts import Raw, of, value

_MODES: Final = {
    "saved": "finds what it had saved, and its rules",
    "fresh": "finds its rules only",
    "boot": "finds neither, as after a reboot",
}


def cold_start(results: Sequence[Raw]) -> list[Panel]:
    ordered = sorted(results, key=lambda one: one["parameters"]["neighbors"])
    sizes = [one["parameters"]["neighbors"] for one in ordered]
    kinds = list(dict.fromkeys(s["source"] for one in ordered for s in one["sources"]))

    def panel(title: str, y_label: str, unit: str, digits: int, field: str) -> Panel:
        rows = [
            Row(
                f"{kind}, {mode}",
                "ours",
                [_starts(one, kind, mode, field) for one in ordered],
            )
            for kind, mode in itertools.product(kinds, _MODES)
        ]
        return Panel(
            title=title,
            kind="lines",
            x_label="neighbors in the VPC (ports)",
            y_label=y_label,
            repetitions=str(ordered[0]["parameters"]["repetitions"]),
            columns=[
                Column(f"{size:,} neighbors", unit, digits=digits, at=float(size)) for size in sizes
            ],
            rows=rows,
            note="; ".join(f"{mode}: {words}" for mode, words in _MODES.items()) + ".",
        )

    return [
        panel(
            "From the start of the process to the first new flow served",
            *("time (s)", "s", 2, "served_s"),
        ),
        panel(
            "Memory of the agent when all is judged",
            *("resident memory (MiB)", "MiB", 0, "rss_mib"),
        ),
    ]


def _starts(result: Raw, kind: str, mode: str, field: str) -> Value | None:
    found = [
        start[field]
        for source in result["sources"]
        if source["source"] == kind
        for start in source["starts"]
        if start["mode"] == mode
    ]
    return of(found) if found else None


def memory(results: Sequence[Raw]) -> list[Panel]:
    [result] = results
    samples = sorted(result["samples"], key=lambda one: one["neighbors_in_store"])
    sizes = sorted({one["neighbors_in_store"] for one in samples})
    used = sorted({one["neighbors_in_use"] for one in samples})
    at = {(one["neighbors_in_use"], one["neighbors_in_store"]): one for one in samples}

    def cell(count: int, size: int) -> Value | None:
        one = at.get((count, size))
        return None if one is None else value(one["spread"])

    return [
        Panel(
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
    ]


__all__ = ["cold_start", "memory"]
