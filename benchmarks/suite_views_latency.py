"""Views of ``setup_rate`` and ``first_packet``: who decides, and how long it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.suite_results import Column, Panel, Role, Row, Value
from benchmarks.suite_view_parts import Raw, percent, ratios, value

#: A percentile of fewer samples than this many above it says nothing.
_BEYOND: Final = 5
_SHARES: Final = (
    *(number / 100 for number in range(1, 100)),
    *(0.992, 0.994, 0.996, 0.998, 0.999, 0.9995, 0.9999),
)


def _setup_role(name: str) -> Role:
    if name.startswith("agent"):
        return "ours"
    return "floor" if name.startswith("null") else "theirs"


def setup(results: Sequence[Raw]) -> list[Panel]:
    [result] = results
    repetitions = str(result["parameters"]["repetitions"])
    good = [one for one in result["contenders"] if not one["faults"]]
    wrong = [
        f"{one['name']}: {'; '.join(one['faults'])}"
        for one in result["contenders"]
        if one["faults"]
    ]
    no_policy = (
        "The agent judges security groups and reads the destination's record; the os-ken app and "
        "ovs-testcontroller switch by MAC, without policy. The null responder thinks nothing: it is "
        "what the instrument and the loopback allow, so far beyond that its rate is not drawn."
    )
    rate = Panel(
        title="New flows a second, 1,000 outstanding, one core",
        kind="bars",
        x_label="new flows per second (flows/s)",
        y_label="controller",
        repetitions=repetitions,
        columns=[
            Column("rate", "flows/s"),
            Column("CPU of the controller", "us/flow", digits=1),
            Column("resident memory", "MiB", digits=1),
        ],
        rows=[
            Row(
                one["name"],
                _setup_role(one["name"]),
                [
                    value(one["summary"]["window-1000"]["rate_per_s"]),
                    value(one["summary"]["window-1000"]["controller_cpu_us_per_flow"]),
                    value(one["controller_rss_mib"]),
                ],
                is_drawn=_setup_role(one["name"]) != "floor",
            )
            for one in good
        ],
        ratios=ratios(
            "flows a second", [(p["ours"], p["theirs"], p["rate"]) for p in result["ratios"]]
        ),
        unsupported=wrong,
        note=no_policy,
    )
    shares = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999))
    latency = Panel(
        title="From packet-in to packet-out, one outstanding",
        kind="percentiles",
        x_label="share of the flows answered within it (%)",
        y_label="latency of the controller (us)",
        repetitions=repetitions,
        columns=[Column(percent(share), "us", at=share) for _, share in shares],
        rows=[
            Row(
                one["name"],
                _setup_role(one["name"]),
                [
                    _latency(one, name, share, result["parameters"]["repetitions"])
                    for name, share in shares
                ],
            )
            for one in good
        ],
        ratios=ratios(
            "latency, 50%", [(p["ours"], p["theirs"], p["latency_p50"]) for p in result["ratios"]]
        ),
        unsupported=wrong,
    )
    return [rate, latency]


def _latency(one: Raw, name: str, share: float, repetitions: int) -> Value | None:
    """None when a repetition had too few flows for that percentile."""
    phases = [run["phases"]["latency"] for run in one["runs"]]
    said = one["summary"]["latency"].get(f"{name}_us")
    enough = len(phases) == repetitions and all(
        phase["answered"] * (1 - share) >= _BEYOND - 1e-6 for phase in phases
    )
    return value(said) if said is not None and enough else None


_PATH_TITLES: Final = {
    "local": "First packet of a flow, both VMs on one host",
    "remote": "First packet of a flow, to another host over VXLAN",
}
_FIRST_ROLES: Final[Mapping[str, Role]] = {"on demand": "ours", "preloaded": "floor"}
_FIRST_NAMES: Final = {"on demand": "on demand (the agent)", "preloaded": "same rules, preloaded"}


def first_packet(results: Sequence[Raw]) -> list[Panel]:
    [result] = results
    return [_first_panel(result, path) for path in _PATH_TITLES]


def _first_panel(result: Raw, path: str) -> Panel:
    rounds, flows = result["parameters"]["rounds"], result["parameters"]["flows"]
    shares = [share for share in (0.5, 0.9, 0.99) if flows * (1 - share) >= 1 - 1e-6]
    names = {one["who"] for one in result["results"]}
    faults, hit = [], set()
    for fault in result["faults"]:
        about = [(n, p) for n in names for p in _PATH_TITLES if fault.startswith(f"{n}, {p}: ")]
        # What names no contender is said of the agents' rules, which all paths share.
        for who, where in about or [("on demand", path)]:
            if where == path:
                faults.append(fault)
                hit.add(who)
    rows = []
    for one in result["results"]:
        if one["path"] != path or one["who"] in hit or "first" not in one:
            continue
        first = one["first"]
        cells: list[Value | None] = [
            value(first[f"p{share * 100:g}_us"]) if f"p{share * 100:g}_us" in first else None
            for share in shares
        ]
        cells.append(value(one["later"]["p50_us"]) if "later" in one else None)
        role = _FIRST_ROLES.get(one["who"], "theirs")
        curve = quantiles(first["all_us"])
        rows.append(Row(_FIRST_NAMES.get(one["who"], one["who"]), role, cells, curve))
    pairs = [
        (_FIRST_NAMES.get(p["ours"], p["ours"]), _FIRST_NAMES.get(p["theirs"], p["theirs"]), p)
        for p in result["ratios"]
        if p["path"] == path and p["ours"] == "on demand" and not hit & {p["ours"], p["theirs"]}
    ]
    return Panel(
        title=_PATH_TITLES[path],
        kind="percentiles",
        x_label="share of the first packets that arrived within it (%)",
        y_label="from VM to VM (us)",
        repetitions=f"{rounds} rounds of {flows} flows",
        columns=[
            *(Column(f"first packet, {percent(share)}", "us", at=share) for share in shares),
            Column("later packets, 50%", "us"),
        ],
        rows=rows,
        ratios=ratios("first packet, 50%", [(a, b, p["p50"]) for a, b, p in pairs]),
        unsupported=faults,
        note=(
            "The preloaded switch has the very rules that the agents install and asks nobody: the floor. "
            "The stock os-ken app and ovs-testcontroller have no policy and no conntrack. The curve is "
            "of all rounds together; the table has medians over rounds."
        ),
    )


def quantiles(values: Sequence[float]) -> list[tuple[float, float]]:
    """(share, value) at shares that the number of values still supports."""
    ordered = sorted(values)
    return [
        (share, ordered[min(len(ordered) - 1, int(len(ordered) * share))])
        for share in _SHARES
        if len(ordered) * (1 - share) >= _BEYOND
    ]


__all__ = ["first_packet", "quantiles", "setup"]
