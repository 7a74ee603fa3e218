"""Views of ``first_packet``: how long first packets take, and how many a second get through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.suite_results import Column, Panel, Role, Row, Value
from benchmarks.suite_view_parts import PATHS, Raw, percent, ratios, value
from benchmarks.suite_views_setup import BEYOND

_SHARES: Final = (
    *(number / 100 for number in range(1, 100)),
    *(0.992, 0.994, 0.996, 0.998, 0.999, 0.9995, 0.9999),
)
_FIRST_ROLES: Final[Mapping[str, Role]] = {
    "on demand": "ours",
    "on demand, no policy": "ours",
    "on demand, many rules there": "ours",
    "preloaded": "floor",
}
_FIRST_NAMES: Final = {
    "on demand": "on demand (the agent)",
    "on demand, no policy": "on demand, ports without policy",
    "preloaded": "same rules, preloaded",
}


def first_packet(results: Sequence[Raw]) -> list[Panel]:
    [result] = results
    panels = [_first_panel(result, path) for path in PATHS]
    if any(one["window"] > 1 for one in result.get("windows", ())):
        for path in PATHS:
            panels += _window_panels(result, path)
    return panels


def _first_panel(result: Raw, path: str) -> Panel:
    rounds, flows = result["parameters"]["rounds"], result["parameters"]["flows"]
    shares = [share for share in (0.5, 0.9, 0.99) if flows * (1 - share) >= 1 - 1e-6]
    names = {one["who"] for one in result["results"]}
    faults, hit = [], set()
    for fault in result["faults"]:
        about = [(n, p) for n in names for p in PATHS if fault.startswith(f"{n}, {p}: ")]
        # What names no contender is said of the agents' rules, which all paths share.
        for who, where in about or [("on demand", path)]:
            if where == path:
                faults.append(fault)
                hit.add(who)
    here = [
        one
        for one in result["results"]
        if one["path"] == path and one["who"] not in hit and "first" in one
    ]
    tail = [
        (field, words)
        for field, words in (("p999_us", "99.9%"), ("max_us", "the longest"))
        if any(field in one["first"] for one in here)
    ]
    rows = []
    for one in here:
        first = one["first"]
        cells: list[Value | None] = [
            value(first[f"p{share * 100:g}_us"]) if f"p{share * 100:g}_us" in first else None
            for share in shares
        ]
        cells += [_single(first, field) for field, _ in tail]
        cells.append(value(one["later"]["p50_us"]) if "later" in one else None)
        role = _FIRST_ROLES.get(one["who"], "theirs")
        rows.append(Row(_name(one["who"]), role, cells, quantiles(first["all_us"])))
    pairs = [
        (_name(p["ours"]), _name(p["theirs"]), p)
        for p in result["ratios"]
        if p["path"] == path and p["ours"] == "on demand" and not hit & {p["ours"], p["theirs"]}
    ]
    return Panel(
        title=f"First packet of a flow, {PATHS[path]}",
        kind="percentiles",
        x_label="share of the first packets that arrived within it (%)",
        y_label="from VM to VM (us)",
        repetitions=f"{rounds} rounds of {flows} flows",
        columns=[
            *(Column(f"first packet, {percent(share)}", "us", at=share) for share in shares),
            *(Column(f"first packet, {words}, all rounds", "us") for _, words in tail),
            Column("later packets, 50%", "us"),
        ],
        rows=rows,
        ratios=ratios("first packet, 50%", [(a, b, p["p50"]) for a, b, p in pairs]),
        unsupported=faults,
        note=(
            "The preloaded switch has the very rules that the agents install and asks nobody: the floor. "
            "The stock os-ken app and ovs-testcontroller have no policy and no conntrack. Where ports have "
            "no policy, only the first packet to a destination asks. The curve is of all rounds together; "
            "the table has medians over rounds."
        ),
    )


def _window_panels(result: Raw, path: str) -> list[Panel]:
    """Rate and latency by packets outstanding; ``path`` alone."""
    there = [
        one
        for one in (*result["windows"], *result.get("crowded", ()))
        if one["path"] == path and one["window"] > 1
    ]
    windows = sorted({one["window"] for one in there})
    names = list(dict.fromkeys(one["who"] for one in there))
    found = {(one["who"], one["window"]): one for one in there}
    crowd = result.get("crowd_rules", 0)

    def panel(title: str, y_label: str, unit: str, field: str) -> Panel:
        return Panel(
            title=f"{title}, {PATHS[path]}",
            kind="lines",
            x_label="packets outstanding",
            y_label=y_label,
            repetitions=(
                f"{result['parameters']['rounds']} rounds of {result['parameters']['flows']} flows"
            ),
            columns=[Column(f"{window:,}", unit, at=float(window)) for window in windows],
            rows=[
                Row(
                    _name(name),
                    _FIRST_ROLES.get(name, "theirs"),
                    [
                        value(found[name, window][field])
                        if field in found.get((name, window), {})
                        else None
                        for window in windows
                    ],
                    is_drawn=name != "on demand, no policy",
                )
                for name in names
            ],
            unsupported=[
                fault for fault in result.get("window_faults", ()) if f", {path}, " in fault
            ],
            note=(
                "Both switches, the agents and what sends share the machine's cores. Preloaded is what "
                "the switches alone allow. Without policy a new flow to a known destination is no question; "
                f"it is not drawn. 'Many rules there' is one round with {crowd:,} verdict rules of other "
                "flows in the switches; before all others there were none."
            ),
        )

    return [
        panel("New flows a second", "new flows per second (flows/s)", "flows/s", "rate_per_s"),
        panel(
            "First packet, 99%, by packets outstanding", "from VM to VM, 99% (us)", "us", "p99_us"
        ),
    ]


def _name(who: str) -> str:
    return _FIRST_NAMES.get(who, who)


def _single(first: Mapping[str, Any], field: str) -> Value | None:
    """A value of all rounds together, which has no spread."""
    said = first.get(field)
    return None if said is None else Value(said, said, said)


def quantiles(values: Sequence[float]) -> list[tuple[float, float]]:
    """(share, value) at shares that the number of values still supports."""
    ordered = sorted(values)
    return [
        (share, ordered[min(len(ordered) - 1, int(len(ordered) * share))])
        for share in _SHARES
        if len(ordered) * (1 - share) >= BEYOND
    ]


__all__ = ["first_packet", "quantiles"]
