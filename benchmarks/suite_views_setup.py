"""Views of ``setup_rate``: new flows a second and their latency, by contender, window, rules and neighbors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from benchmarks.suite_results import Column, Panel, Role, Row, Value
from benchmarks.suite_view_parts import Raw, percent, ratios, value

#: A percentile of fewer samples than this many above it says nothing.
BEYOND: Final = 5
_LATENCY, _FULL, _WARM_UP = "latency", "window-1000", "warm-up"
_AGENT: Final = "agent, "


def _role(name: str) -> Role:
    if name.startswith(_AGENT):
        return "ours"
    return "floor" if name.startswith("null") else "theirs"


def setup(results: Sequence[Raw]) -> list[Panel]:
    [result] = results
    panels = [_rate(result), _latency(result)]
    if any("window" in phase for one in _good(result) for phase in one["summary"].values()):
        panels += _by_window(result)
    if result.get("cells"):
        panels += [*_by_number(result, "rules"), *_by_number(result, "neighbors")]
    return panels


def _good(result: Raw) -> list[Raw]:
    return [one for one in result["contenders"] if not one["faults"]]


def _wrong(result: Raw) -> list[str]:
    return [
        f"{one['name']}: {'; '.join(one['faults'])}"
        for one in result["contenders"]
        if one["faults"]
    ]


def _rate_of(phase: Mapping[str, Raw]) -> Value | None:
    """None where the instrument was the limit."""
    return None if phase.get("is_lower_bound") else value(phase["rate_per_s"])


def _limited(result: Raw) -> list[str]:
    return [
        f"{one['name']}: at least {one['summary'][_FULL]['rate_per_s']['median']:,.0f} flows/s; the fake "
        "switch, not the controller, may be the limit"
        for one in _good(result)
        if one["summary"][_FULL].get("is_lower_bound")
    ]


def _instrument(result: Raw) -> str:
    """How far the instrument is from being the limit."""
    rates = {
        one["name"]: one["summary"][_FULL]["rate_per_s"]["median"]
        for one in _good(result)
        if _FULL in one["summary"]
    }
    null = [rate for name, rate in rates.items() if _role(name) == "floor"]
    others = [rate for name, rate in rates.items() if _role(name) != "floor"]
    if not null or not others:
        return ""
    return (
        f" With it the instrument does {null[0]:,.0f} flows/s, {null[0] / max(others):.1f} times the "
        "fastest contender."
    )


def _rate(result: Raw) -> Panel:
    note = (
        "The agent judges security groups and reads the destination's record; the os-ken app and "
        "ovs-testcontroller switch by MAC, without policy. The null responder thinks nothing: it is "
        "what the instrument and the loopback allow, so far beyond that its rate is not drawn."
    )
    return Panel(
        title="New flows a second, 1,000 outstanding, one core",
        kind="bars",
        x_label="new flows per second (flows/s)",
        y_label="controller",
        repetitions=str(result["parameters"]["repetitions"]),
        columns=[
            Column("rate", "flows/s"),
            Column("CPU of the controller", "us/flow", digits=1),
            Column("resident memory", "MiB", digits=1),
        ],
        rows=[
            Row(
                one["name"],
                _role(one["name"]),
                [
                    _rate_of(one["summary"][_FULL]),
                    value(one["summary"][_FULL]["controller_cpu_us_per_flow"]),
                    value(one["controller_rss_mib"]),
                ],
                is_drawn=_role(one["name"]) != "floor",
            )
            for one in _good(result)
        ],
        ratios=ratios(
            "flows a second", [(p["ours"], p["theirs"], p["rate"]) for p in result["ratios"]]
        ),
        unsupported=[*_wrong(result), *_limited(result)],
        note=note + _instrument(result),
    )


def _latency(result: Raw) -> Panel:
    repetitions = result["parameters"]["repetitions"]
    shares = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999))
    return Panel(
        title="From packet-in to packet-out, one outstanding",
        kind="percentiles",
        x_label="share of the flows answered within it (%)",
        y_label="latency of the controller (us)",
        repetitions=str(repetitions),
        columns=[Column(percent(share), "us", at=share) for _, share in shares],
        rows=[
            Row(
                one["name"],
                _role(one["name"]),
                [_percentile(one, name, share, repetitions) for name, share in shares],
            )
            for one in _good(result)
        ],
        ratios=ratios(
            "latency, 50%", [(p["ours"], p["theirs"], p["latency_p50"]) for p in result["ratios"]]
        ),
        unsupported=_wrong(result),
    )


def _percentile(one: Raw, name: str, share: float, repetitions: int) -> Value | None:
    """None when a repetition had too few flows for that percentile."""
    said = one["summary"][_LATENCY].get(f"{name}_us")
    enough = len(one["runs"]) == repetitions and _is_enough(one, _LATENCY, share)
    return value(said) if said is not None and enough else None


def _is_enough(one: Raw, phase: str, share: float) -> bool:
    """Whether each repetition of a phase had flows enough for a percentile."""
    return all(
        run["phases"][phase]["answered"] * (1 - share) >= BEYOND - 1e-6 for run in one["runs"]
    )


# ----------------------------------------------------------------------------------------- by window


def _by_window(result: Raw) -> list[Panel]:
    """Rate, median and 99% by packet-ins outstanding."""
    good = _good(result)
    phases = {
        name: int(phase["window"]) for name, phase in good[0]["summary"].items() if name != _WARM_UP
    }
    questions: tuple[tuple[str, str, str, Callable[[Raw, str], Value | None]], ...] = (
        (
            "New flows a second by packet-ins outstanding",
            "new flows per second (flows/s)",
            "flows/s",
            lambda one, name: _rate_of(one["summary"][name]),
        ),
        (
            "Latency by packet-ins outstanding, 50%",
            "packet-in to packet-out, 50% (us)",
            "us",
            lambda one, name: value(one["summary"][name]["p50_us"]),
        ),
        (
            "Latency by packet-ins outstanding, 99%",
            "packet-in to packet-out, 99% (us)",
            "us",
            _window_p99,
        ),
    )
    return [
        Panel(
            title=title,
            kind="lines",
            x_label="packet-ins outstanding",
            y_label=y_label,
            repetitions=str(result["parameters"]["repetitions"]),
            columns=[Column(f"{window:,}", unit, at=float(window)) for window in phases.values()],
            rows=[
                Row(
                    one["name"],
                    _role(one["name"]),
                    [ask(one, name) for name in phases],
                    is_drawn=_role(one["name"]) != "floor",
                )
                for one in good
            ],
            unsupported=_wrong(result),
        )
        for title, y_label, unit, ask in questions
    ]


def _window_p99(one: Raw, name: str) -> Value | None:
    """None when a repetition had too few flows."""
    return value(one["summary"][name]["p99_us"]) if _is_enough(one, name, 0.99) else None


# ------------------------------------------------------------------------------ by rules and neighbors


def _by_number(result: Raw, number: str) -> list[Panel]:
    """The agent's rate in the cells that differ from the main one in ``number`` and in the match alone.

    Nothing when there is one such number only.
    """
    parameters = result["parameters"]
    fixed = "neighbors" if number == "rules" else "rules"
    main = {name: parameters[name] for name in ("rules", "neighbors", "match")}
    ours = [one for one in result["contenders"] if one["name"].startswith(_AGENT)]
    cells = [
        cell
        for cell in (main | {"contenders": ours}, *result["cells"])
        if cell[fixed] == main[fixed]
    ]
    places = sorted({cell[number] for cell in cells})
    if len(places) < 2:
        return []
    found: dict[str, dict[int, Value]] = {}
    wrong = []
    for cell in cells:
        for one in cell["contenders"]:
            # Without rules there is nothing to match: the place belongs to both lines.
            for match in _matches(cells) if not cell["rules"] else (cell["match"],):
                if one["faults"]:
                    wrong.append(f"{one['name']}, {cell[number]:,} {number}: {one['faults'][0]}")
                elif (rate := _rate_of(one["summary"][_FULL])) is not None:
                    found.setdefault(f"{one['name']}, match = {match}", {})[cell[number]] = rate
    rows = [
        Row(name, "ours", [values.get(place) for place in places])
        for name, values in sorted(found.items())
        if len(values) > 1
    ]
    rest = f"{main[fixed]:,} {'neighbors' if fixed == 'neighbors' else 'security rules per port'}"
    nothing = (
        " 0 rules: ports without port security, so no policy and no conntrack; drawn at 1."
        if 0 in places
        else ""
    )
    return [
        Panel(
            title=f"New flows a second by {'security rules' if number == 'rules' else 'neighbors'}",
            kind="lines",
            x_label="security rules per port" if number == "rules" else "neighbors in the store",
            y_label="new flows per second (flows/s)",
            repetitions=str(parameters["repetitions"]),
            columns=[Column(f"{place:,}", "flows/s", at=float(max(1, place))) for place in places],
            rows=rows,
            unsupported=sorted(set(wrong)),
            note=(
                f"1,000 packet-ins outstanding, {rest}. A new destination costs a question to the "
                f"store, a known one none.{nothing}"
            ),
        )
    ]


def _matches(cells: Sequence[Raw]) -> list[str]:
    return sorted({cell["match"] for cell in cells if cell["rules"]})


__all__ = ["BEYOND", "setup"]
