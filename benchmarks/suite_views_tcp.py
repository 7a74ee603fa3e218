"""View of ``tcp_crr``: connections a second, throughput, and what a connection takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.suite_results import Column, Panel, Ratio, Role, Row, Value
from benchmarks.suite_view_parts import PATHS, Raw, ratios, value

_ROLES: Final[Mapping[str, Role]] = {"preloaded": "floor", "NORMAL bridge": "theirs"}
_NAMES: Final = {
    "agents, service": "on demand, match by service",
    "agents, connection": "on demand, match by connection",
    "preloaded": "same rules as by service, preloaded",
    "NORMAL bridge": "learning bridge, no policy, no conntrack",
}
_COSTS: Final = (
    ("switches_us", "ovs-vswitchd", "us", 0),
    ("agents_us", "agents", "us", 0),
    ("packets", "packets", "", 1),
    ("lookups", "lookups in the datapath", "", 1),
    ("upcalls", "upcalls", "", 2),
    ("packet_ins", "packet-ins", "", 2),
)


def tcp_crr(results: Sequence[Raw]) -> list[Panel]:
    [result] = results
    return [
        *(_rates(result, path) for path in PATHS),
        *(_throughput(result, path) for path in PATHS),
        *(_costs(result, path) for path in PATHS),
    ]


def _rates(result: Raw, path: str) -> Panel:
    parallel = sorted(result["parameters"]["parallel"], reverse=True)
    found = {(one["who"], one["parallel"]): one for one in result["results"] if one["path"] == path}
    ends = [one for one in result["loopback"] if one["parallel"] == parallel[0]]
    rows = [
        _row(
            who,
            [
                *(_of(found.get((who, count)), "rate_per_s") for count in parallel),
                *(_of(found.get((who, count)), "p50_us") for count in reversed(parallel)),
                *(_of(found.get((who, count)), "p99_us") for count in reversed(parallel)),
            ],
        )
        for who in dict.fromkeys(one["who"] for one in result["results"] if one["path"] == path)
    ]
    metered = "".join(
        f" The meter of the port, which protects an agent, dropped {one['over_meter']:,} of "
        f"{one['packet_ins']:,} packet-ins of {_NAMES.get(who, who)}, {count} at once."
        for (who, count), one in found.items()
        if one["over_meter"]
    )
    bound = ", ".join(f"{one['rate_per_s']['median']:,.0f}" for one in ends)
    return Panel(
        title=f"Connect, request, close: {PATHS[path]}",
        kind="bars",
        x_label=f"connections per second, {parallel[0]} at once (1/s)",
        y_label="contender",
        repetitions=_repetitions(result, "seconds"),
        columns=[
            *(Column(f"rate, {count} at once", "1/s") for count in parallel),
            *(Column(f"50%, {count} at once", "us") for count in reversed(parallel)),
            *(Column(f"99%, {count} at once", "us") for count in reversed(parallel)),
        ],
        rows=rows,
        ratios=[
            one for count in parallel for one in _ratios(result, path, f"{count} at once", "rate")
        ],
        unsupported=_faults(result, path, is_iperf=False),
        note=(
            "64 bytes there and 64 back; the server closes first. Client and server without a switch between "
            f"them, on one core in one namespace, do {bound or '?'} a second with {parallel[0]} at once.{metered}"
        ),
    )


def _throughput(result: Raw, path: str) -> Panel:
    return Panel(
        title=f"One TCP connection, iperf3: {PATHS[path]}",
        kind="bars",
        x_label="payload that arrived (Mbit/s)",
        y_label="contender",
        repetitions=_repetitions(result, "iperf_seconds"),
        columns=[Column("throughput", "Mbit/s")],
        rows=[
            _row(one["who"], [value(one["mbit_per_s"])])
            for one in result["throughput"]
            if one["path"] == path
        ],
        ratios=_ratios(result, path, "iperf3", "throughput"),
        unsupported=_faults(result, path, is_iperf=True),
        note=f"MTU {result['parameters']['mtu']}; offloads {result['parameters']['offloads']}.",
    )


def _costs(result: Raw, path: str) -> Panel:
    parallel = max(result["parameters"]["parallel"])
    return Panel(
        title=f"What one connection takes, {parallel} at once: {PATHS[path]}",
        kind="table",
        x_label="",
        y_label="",
        repetitions=_repetitions(result, "seconds"),
        columns=[Column(name, unit, digits=digits) for _, name, unit, digits in _COSTS],
        rows=[
            _row(one["who"], [value(one["each"][key]) for key, *_ in _COSTS])
            for one in result["results"]
            if one["path"] == path and one["parallel"] == parallel
        ],
        note=(
            "Processor time of both hosts together. A lookup is a packet that comes to a datapath or is "
            "recirculated in it, for conntrack or out of a tunnel."
        ),
    )


def _row(who: str, values: list[Value | None]) -> Row:
    return Row(_NAMES.get(who, who), _ROLES.get(who, "ours"), values)


def _of(one: Mapping[str, Any] | None, key: str) -> Value | None:
    return value(one[key]) if one is not None and one[key] is not None else None


def _ratios(result: Raw, path: str, load: str, what: str) -> list[Ratio]:
    pairs = [
        (_NAMES.get(p["ours"], p["ours"]), _NAMES.get(p["theirs"], p["theirs"]), p["rate"])
        for p in result["ratios"]
        if p["path"] == path and p["load"] == load
    ]
    return ratios(what if load == "iperf3" else f"{what}, {load}", pairs)


def _faults(result: Raw, path: str, *, is_iperf: bool) -> list[str]:
    """Faults of a path and kind of load; each begins with contender, path and load."""
    return [
        fault
        for fault in result["faults"]
        if f", {path}, " in fault and (f", {path}, iperf3: " in fault) == is_iperf
    ]


def _repetitions(result: Raw, seconds: str) -> str:
    parameters = result["parameters"]
    return f"{parameters['rounds']} rounds of {parameters[seconds]:g} s"


__all__ = ["tcp_crr"]
