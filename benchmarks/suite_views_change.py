"""Views of ``change`` and ``provision``: from what is published to what traffic sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.suite_results import Column, Panel, Role, Row, Value
from benchmarks.suite_view_parts import Raw, value

#: Changes whose messages are drawn; the others are in the table only.
_MESSAGES_DRAWN: Final = ("rule added", "member left")


def _role(who: str) -> Role:
    return "ours" if who == "on demand" else "theirs"


def change(results: Sequence[Raw]) -> list[Panel]:
    [result] = results
    in_use = sorted({one["in_use"] for one in result["summary"]})
    return [*(_effective(result, count) for count in in_use), _messages(result)]


def _effective(result: Raw, in_use: int) -> Panel:
    found = [one for one in result["summary"] if one["in_use"] == in_use]
    return Panel(
        title=f"Until a change is effective, {in_use:,} members of the group in use",
        kind="bars",
        x_label="from the beginning of the publishing (ms)",
        y_label="change, contender",
        repetitions=str(result["parameters"]["repetitions"]),
        columns=[
            Column("effective", "ms", digits=1),
            Column("published or written", "ms", digits=1),
        ],
        rows=[
            Row(
                f"{one['change']}, {one['who']}",
                _role(one["who"]),
                [value(one["effective_ms"]), value(one["made_ms"])],
                series=one["who"],
            )
            for one in found
            if one["effective_ms"] and not one["never"]
        ],
        unsupported=[
            f"{one['change']}, {one['who']}: {one['never']} changes were never effective"
            for one in found
            if one["never"]
        ],
        note=(
            "expanded: a model, made here, of an agent that writes a rule for each member of a remote group: "
            "the same bridge, its difference written as one bundle by ovs-ofctl."
        ),
    )


def _messages(result: Raw) -> Panel:
    counts = result["messages"]
    sizes = sorted({one["members"] for one in counts})
    totals = {(one["change"], one["who"], one["members"]): float(one["total"]) for one in counts}
    pairs = list(dict.fromkeys((one["change"], one["who"]) for one in counts))

    def cell(what: str, who: str, size: int) -> Value | None:
        total = totals.get((what, who, size))
        return None if total is None else Value(total, total, total)

    return Panel(
        title="OpenFlow messages to the switch for one change",
        kind="lines",
        x_label="members of the remote group (ports)",
        y_label="OpenFlow messages (count)",
        repetitions="1, counted while nothing is timed",
        columns=[Column(f"{size:,} members", "", at=float(size)) for size in sizes],
        rows=[
            Row(
                f"{what}, {who}",
                _role(who),
                [cell(what, who, size) for size in sizes],
                is_drawn=what in _MESSAGES_DRAWN,
            )
            for what, who in pairs
        ],
    )


def provision(results: Sequence[Raw]) -> list[Panel]:
    [result] = results
    found = {(one["who"], one["ports"], one["neighbors"]): one for one in result["summary"]}
    sizes = sorted({one["neighbors"] for one in result["summary"]})
    pairs = list(dict.fromkeys((one["ports"], one["who"]) for one in result["summary"]))

    def cell(who: str, ports: int, size: int) -> Value | None:
        one = found.get((who, ports, size))
        return None if one is None or one["never"] else value(one["served_ms"])

    return [
        Panel(
            title="From a port that is plugged in and published to its first packet",
            kind="lines",
            x_label="neighbors in the VPC (ports)",
            y_label="until the first packet arrives (ms)",
            repetitions=str(result["parameters"]["repetitions"]),
            columns=[
                Column(f"{size:,} neighbors", "ms", digits=1, at=float(size)) for size in sizes
            ],
            rows=[
                Row(
                    f"{who}, {ports:,} ports on the host",
                    _role(who),
                    [cell(who, ports, size) for size in sizes],
                )
                for ports, who in sorted(pairs, key=lambda pair: _role(pair[1]))
            ],
            unsupported=[
                f"{one['who']}, {one['ports']:,} ports, {one['neighbors']:,} neighbors: "
                f"{one['never']} ports were never served"
                for one in result["summary"]
                if one["never"]
            ],
            note=(
                "expanded: a model, made here, of an agent that preloads: the port's rules and one for each "
                "neighbor of the VPC, as for the first port of a VPC on a host, written as bundles of 10,000 "
                "when the interface appears; the peer is in the middle of them. next port: the neighbors are "
                "there already. From 500,000 neighbors on expanded is measured once."
            ),
        )
    ]


__all__ = ["change", "provision"]
