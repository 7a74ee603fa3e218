"""View of ``traffic``: what an idle timeout costs in rules and saves in packet-ins."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.suite_results import Column, Panel, Row, Value
from benchmarks.suite_view_parts import Raw, percent


def traffic(results: Sequence[Raw]) -> list[Panel]:
    [result] = results
    return [_curve(result), _table(result)]


def _curve(result: Raw) -> Panel:
    one = result["parameters"]
    rows = sorted(result["rows"], key=lambda row: float(row["rules_mean"]))
    seconds = float(one["duration_s"])
    compulsory = result["optimum"]["compulsory"] / seconds
    few, many = _preloaded_rules(result["preloaded"])
    # The optimum has as few packet-ins with fewer rules than any of ours: its frontier goes on to the left.
    left = sorted(
        (row["optimum_rules_mean"], row["packet_ins_per_s"])
        for row in rows
        if row["idle_s"] and row["optimum_rules_mean"] < rows[0]["rules_mean"]
    )
    beyond: list[Value | None] = [None] * len(left)
    return Panel(
        title="Packet-ins against rules alive, by idle timeout",
        kind="lines",
        x_label="on-demand rules in the switch, mean (count)",
        y_label="packet-ins of the host (1/s)",
        repetitions=f"1, simulated, seed {one['seed']}",
        columns=[
            *(Column(f"{at:,.0f} rules", "1/s", digits=1, at=float(at)) for at, _ in left),
            *(
                Column(
                    f"{row['name']}: {row['rules_mean']:,.0f} rules",
                    "1/s",
                    digits=1,
                    at=float(row["rules_mean"]),
                )
                for row in rows
            ),
        ],
        rows=[
            Row(
                "on demand, all idle timeouts alike",
                "ours",
                [*beyond, *(_one(_ins(row)) if row["idle_s"] else None for row in rows)],
            ),
            Row(
                "on demand, default timeouts",
                "ours",
                [*beyond, *(None if row["idle_s"] else _one(_ins(row)) for row in rows)],
            ),
            Row(
                "optimum that knows the future",
                "floor",
                [
                    *(_one(packet_ins) for _, packet_ins in left),
                    *(_one(row["optimum_packet_ins_per_s"]) for row in rows),
                ],
            ),
            Row("first need of a rule", "floor", [_one(compulsory)] * (len(left) + len(rows))),
        ],
        note=(
            f"A model of {seconds / 3600:g} h of traffic of {one['vms']} VMs in a VPC of "
            f"{one['neighbors']:,} neighbors, match by {one['match']}; "
            f"{percent(round(result['traffic']['pairs_that_talked'], 4))} of the pairs talked. The optimum has "
            "a rule only from the moment when a packet needs it, and drops it by what will come. An agent that "
            f"preloads has no packet-in, and {few:,} rules with conjunctive matches or {many:,} with one for "
            "each member of the remote group: counted from the goal state, not drawn."
        ),
    )


def _ins(row: Raw) -> float:
    return float(row["packet_ins_per_s"])


def _table(result: Raw) -> Panel:
    few, _ = _preloaded_rules(result["preloaded"])
    return Panel(
        title="Hit rate of the cache, by idle timeout",
        kind="table",
        x_label="",
        y_label="",
        repetitions="1, simulated",
        columns=[
            Column("packet-ins", "1/s", digits=1),
            Column("peak second", ""),
            Column("rules, mean", ""),
            Column("rules, peak", ""),
            Column("packets that hit", "%", digits=2),
            Column("flows that hit", "%", digits=1),
            Column("fewest rules with as many packet-ins", ""),
        ],
        rows=[
            Row(
                row["name"],
                "ours",
                [
                    _one(row["packet_ins_per_s"]),
                    _one(row["packet_ins_peak_second"]),
                    _one(row["rules_mean"]),
                    _one(row["rules_peak"]),
                    _one(100 * row["packet_hit_rate"]),
                    _one(100 * row["flow_hit_rate"]),
                    _one(row["optimum_rules_mean"]),
                ],
            )
            for row in result["rows"]
        ]
        + [
            Row(
                "preloaded, conjunctive matches",
                "theirs",
                [*map(_one, (0, 0, few, few, 100, 100)), None],
            )
        ],
    )


def _preloaded_rules(found: Raw) -> tuple[int, int]:
    """With conjunctive matches, and with a rule for each member."""
    rest = found["neighbors"] + found["egress"]
    return rest + found["by_conjunction"], rest + found["by_member"]


def _one(number: float) -> Value:
    return Value(float(number), float(number), float(number))


__all__ = ["traffic"]
