"""What the rounds of ``first_packet`` come to, and how it is told."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.first_packet_sites import PATHS
from benchmarks.machine import machine_line
from benchmarks.probe import Passes
from benchmarks.summary import Spread, ratio, spread_text, table

ON_DEMAND, NO_POLICY = "on demand", "on demand, no policy"
PRELOADED, STOCK = "preloaded", "stock os-ken app"
CROWDED: Final = "on demand, many rules there"
C_CONTROLLER: Final = "ovs-testcontroller (C)"
_PAIRS: Final = (
    *((ON_DEMAND, PRELOADED), (STOCK, PRELOADED), (ON_DEMAND, STOCK), (ON_DEMAND, C_CONTROLLER)),
    (ON_DEMAND, NO_POLICY),
)
#: A percentile with fewer samples above it is not told.
_BEYOND: Final = 5
_SHARES: Final = (("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99), ("p999_us", 0.999))


@dataclass(slots=True)
class Measured:
    """Rounds of one site, path and window: of first packets, and of later ones where they were sent."""

    first: list[Passes]
    later: list[Passes]

    @property
    def values(self) -> list[list[float]]:
        """Latencies of the first packets of each round."""
        return [sorted(one.passes_us[0]) for one in self.first]

    @property
    def rates(self) -> list[float]:
        """First packets that arrived, per second."""
        return [
            len(one.passes_us[0]) * 1e6 / one.elapsed_us[0]
            for one in self.first
            if one.elapsed_us[0] > 0
        ]

    @property
    def lost(self) -> list[int]:
        """Frames that did not arrive, of first, second and further packets."""
        later = [sum(passes) for passes in zip(*(one.lost for one in self.later), strict=True)]
        return [sum(one.lost[0] for one in self.first), *later]


#: By contender, path and window.
Key = tuple[str, str, int]


def result_json(key: Key, measured: Measured) -> dict[str, Any]:
    """Of the first window: first, second and later packets."""
    who, path, window = key
    result: dict[str, Any] = {"who": who, "path": path, "window": window}
    passes = {
        "first": measured.values,
        "second": [sorted(one.passes_us[0]) for one in measured.later],
        "later": [sorted(itertools.chain(*one.passes_us[1:])) for one in measured.later],
    }
    for kind, values in passes.items():
        if not values or not all(values):
            continue
        together = sorted(itertools.chain(*values))
        result[kind] = {
            name: Spread.of([_percentile(v, share) for v in values]).as_json()
            for name, share in _SHARES[:3]
        } | {"all_us": together, **_tail(together)}
    return result


def window_json(key: Key, measured: Measured) -> dict[str, Any]:
    """Of any window: first packets, and how many a second got through from VM to VM."""
    who, path, window = key
    values = measured.values
    result: dict[str, Any] = {
        "who": who,
        "path": path,
        "window": window,
        "lost": sum(measured.lost),
    }
    if values and all(values) and not result["lost"]:
        together = sorted(itertools.chain(*values))
        result |= {"samples": len(together), **_tail(together)}
        if window > 1:
            # With one outstanding the probe pauses between frames.
            result["rate_per_s"] = Spread.of(measured.rates).as_json()
        for name, share in _SHARES[:3]:
            result[name] = Spread.of([_percentile(v, share) for v in values]).as_json()
    return result


def _tail(together: Sequence[float]) -> dict[str, float]:
    """Of all rounds together, because one has too few for it."""
    tail = {"max_us": together[-1]}
    if len(together) * 0.001 >= _BEYOND - 1e-6:
        tail["p999_us"] = _percentile(together, 0.999)
    return tail


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def ratios(measured: Mapping[Key, Measured], window: int) -> list[dict[str, Any]]:
    """Of first packets, round by round."""
    found = []
    for path, (ours, theirs) in itertools.product(PATHS, _PAIRS):
        keys = [(name, path, window) for name in (ours, theirs)]
        if not all(key in measured for key in keys):
            continue
        pair = [measured[key].values for key in keys]
        if not all(map(all, pair)):
            continue
        entry: dict[str, Any] = {"path": path, "ours": ours, "theirs": theirs}
        for share, field in ((0.5, "p50"), (0.99, "p99")):
            one, other = ([_percentile(v, share) for v in values] for values in pair)
            entry[field] = ratio(one, other).as_json()
        found.append(entry)
    return found


# -------------------------------------------------------------------------------------------- as text


def print_result(result: Mapping[str, Any]) -> None:
    parameters = result["parameters"]
    print(machine_line(result["machine"]))
    print(
        f"microseconds from one VM to the other, UDP, {parameters['flows']:,} new flows a round, "
        f"{parameters['windows'][0]} outstanding; {parameters['rules']:,} security rules; "
        f"median (least-greatest) of {parameters['rounds']} rounds, p99.9 and max of all together"
    )
    rows = []
    for one in result["results"]:
        first = one.get("first")
        cells = [
            *([spread_text(first[name]) for name in ("p50_us", "p99_us")] if first else ["-", "-"]),
            *(_single(first, name) for name in ("p999_us", "max_us")),
            *(
                spread_text(one[kind]["p50_us"]) if kind in one else "-"
                for kind in ("second", "later")
            ),
        ]
        rows.append([f"{one['path']}, {one['who']}", *cells])
    head = ["", "first p50", "first p99", "p99.9", "max", "second p50", "later p50"]
    print()
    print(table(head, rows))
    print()
    for pair in result["ratios"] if not result["faults"] else []:
        print(
            f"{pair['path']}, first packet, {pair['ours']} / {pair['theirs']}: "
            f"p50 x {spread_text(pair['p50'], 2)}, p99 x {spread_text(pair['p99'], 2)}"
        )
    print(
        "\nNew flows from VM to VM by packets outstanding; preloaded is what the switches alone allow"
    )
    _print_windows(result["windows"])
    print(
        f"\nThe agents' site once more, with {result['crowd_rules']:,} verdict rules in its switches"
    )
    _print_windows(result["crowded"])
    print()
    for fault in (*result["faults"], *result["window_faults"]):
        print(f"not comparable: {fault}")
    print(
        "Without policy only the first packet to a destination asks the agent; each other first packet "
        "of a flow meets the rule that is there."
    )
    print(f"resident memory of the agents: {result['agent_rss_mib']} MiB")


def _print_windows(windows: Sequence[Mapping[str, Any]]) -> None:
    rows = []
    for one in windows:
        where = f"{one['path']}, {one['window']} outstanding, {one['who']}"
        if "p50_us" not in one:
            rows.append([where, f"{one['lost']} lost", "", "", "", ""])
            continue
        rows.append(
            [
                where,
                spread_text(one["rate_per_s"]) if "rate_per_s" in one else "-",
                *(spread_text(one[name]) for name in ("p50_us", "p99_us")),
                *(_single(one, name) for name in ("p999_us", "max_us")),
            ]
        )
    if rows:
        print(table(["", "flows/s", "p50 us", "p99 us", "p99.9", "max"], rows))


def _single(said: Mapping[str, Any] | None, name: str) -> str:
    return f"{said[name]:,.0f}" if said is not None and name in said else "-"


__all__ = [
    "CROWDED",
    "C_CONTROLLER",
    "NO_POLICY",
    "ON_DEMAND",
    "PRELOADED",
    "STOCK",
    "Key",
    "Measured",
    "print_result",
    "ratios",
    "result_json",
    "window_json",
]
