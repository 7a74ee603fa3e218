"""From a benchmark's own result to the panels of the report.

A view takes the results of all runs of one benchmark. A contender whose answers were wrong or whose
frames were lost has no row, and no ratio is made of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from benchmarks.suite_results import Column, Panel, Row, Value
from benchmarks.suite_view_parts import Raw, View, value
from benchmarks.suite_views_change import change, provision
from benchmarks.suite_views_host import cold_start, memory
from benchmarks.suite_views_latency import first_packet
from benchmarks.suite_views_setup import setup
from benchmarks.suite_views_tcp import tcp_crr
from benchmarks.suite_views_traffic import traffic


def record_decode(results: Sequence[Raw]) -> list[Panel]:
    [result] = results
    own = "msgpack + msgspec, array"
    return [
        Panel(
            title="Decoding and checking one record of 7 fields",
            kind="bars",
            x_label="time for a record (us)",
            y_label="decoder",
            repetitions=str(result["parameters"]["rounds"]),
            columns=[Column("time", "us", digits=2)],
            rows=[
                Row(
                    one["name"] + (" (the codec's way)" if one["name"] == own else ""),
                    "ours" if one["name"] == own else "theirs",
                    [value(one["us_spread"])],
                )
                for one in result["rows"]
            ],
            note="All of them refuse the same seven bad records.",
        )
    ]


def slice_source(results: Sequence[Raw]) -> list[Panel]:
    [result] = results
    titles = list(result["seconds"])
    questions = list(dict.fromkeys(what for taken in result["seconds"].values() for what in taken))

    def cell(title: str, what: str) -> Value | None:
        said = result["seconds"][title].get(what)
        if said is None:
            return None
        return Value(said["median"] * 1e3, said["low"] * 1e3, said["high"] * 1e3)

    return [
        Panel(
            title=f"Questions to a store of {result['parameters']['neighbors']:,} neighbors",
            kind="table",
            x_label="",
            y_label="",
            repetitions=f"{result['parameters']['asked']} (what is asked of all neighbors: once)",
            columns=[Column(title, "ms", digits=2) for title in titles],
            rows=[Row(what, "ours", [cell(t, what) for t in titles]) for what in questions],
        )
    ]


def plain(results: Sequence[Raw]) -> list[Panel]:
    """Every median with its spread that the results hold, by its place in them."""
    rows = [
        Row(" / ".join(path), "ours", [found])
        for result in results
        for path, found in _spreads(result, ())
    ]
    if not rows:
        return []
    return [
        Panel(
            title="Medians",
            kind="table",
            x_label="",
            y_label="",
            repetitions="as its parameters say",
            columns=[Column("median", "", digits=3)],
            rows=rows,
        )
    ]


def _spreads(found: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Value]]:
    if isinstance(found, dict):
        if {"median", "low", "high"} <= found.keys():
            yield path, value(found)
            return
        for name, inner in found.items():
            if name not in ("machine", "parameters"):
                yield from _spreads(inner, (*path, str(name)))
    elif isinstance(found, list):
        for number, inner in enumerate(found):
            label = _label(inner) or str(number)
            yield from _spreads(inner, (*path, label))


def _label(found: Any) -> str:
    """What an element of a list calls itself."""
    if not isinstance(found, dict):
        return ""
    named = (found.get(name) for name in ("name", "who", "what", "ours", "theirs", "path"))
    return ", ".join(word for word in named if isinstance(word, str))


#: By the benchmark's module; what is not here is shown by ``plain``.
VIEWS: Final[Mapping[str, View]] = {
    "setup_rate": setup,
    "first_packet": first_packet,
    "cold_start": cold_start,
    "change": change,
    "provision": provision,
    "agent_memory": memory,
    "record_decode": record_decode,
    "slice_source": slice_source,
    "tcp_crr": tcp_crr,
    "traffic": traffic,
}


def panels(stem: str, results: Sequence[Raw]) -> list[Panel]:
    return VIEWS.get(stem, plain)(results)
