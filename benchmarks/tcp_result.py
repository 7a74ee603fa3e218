"""What the runs of ``tcp_crr`` amount to: faults, medians with their spread, ratios."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.crr import Load, Served
from benchmarks.first_packet_sites import PATHS
from benchmarks.iperf import Throughput
from benchmarks.summary import Spread, ratio
from benchmarks.tcp_sites import NORMAL, PRELOADED, Match, agents_name

#: A percentile of fewer samples than this many above it says nothing.
_BEYOND: Final = 5
#: Who, along which path, how many connections at once (0: iperf3).
Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class CrrRun:
    """One run of connections.

    Attributes:
        load, served: what client and server say.
        each: what one transaction took (``Used.since``).
        switch_cpu: share of a core that the busier of the two switches took.
        packet_ins: how many there were.
        least_packet_ins: how many there must have been, or the agents did not do what is measured.
        over_meter: how many of them the ports' meters dropped.
    """

    load: Load
    served: Served
    each: dict[str, float]
    switch_cpu: float = 0.0
    packet_ins: int = 0
    least_packet_ins: int = 0
    over_meter: int = 0

    def faults(self) -> list[str]:
        load, served = self.load, self.served
        found = [
            (load.refused, "connections were refused or reset"),
            (load.bad_answers, "answers were wrong"),
            (load.timeouts, "connections timed out"),
            (served.wrong, "questions were wrong when they arrived"),
        ]
        said = [f"{count:,} {what}" for count, what in found if count]
        if load.transactions == 0:
            said.append("no connection was answered")
        if served.served < load.ended:
            said.append(f"{load.ended:,} answers came, but the server gave {served.served:,}")
        if self.packet_ins < self.least_packet_ins:
            said.append(
                f"{self.packet_ins:,} packet-ins for {load.ended:,} connections, "
                f"fewer than {self.least_packet_ins:,}"
            )
        return said


@dataclass(slots=True)
class Measured:
    """All runs of all rounds, in order."""

    crr: dict[Key, list[CrrRun]]
    iperf: dict[Key, list[Throughput]]
    loopback: dict[int, list[CrrRun]]


def load_name(parallel: int) -> str:
    return f"{parallel} at once" if parallel else "iperf3"


def faults(measured: Measured) -> dict[Key, list[str]]:
    """Why what was measured cannot be compared, by what it was; empty when all went as it must."""
    found: dict[Key, list[str]] = {}
    for key, runs in measured.crr.items():
        said = list(itertools.chain.from_iterable(run.faults() for run in runs))
        if said:
            found[key] = said
    for key, throughputs in measured.iperf.items():
        said = [one.error for one in throughputs if one.error]
        if said:
            found[key] = said
    return found


def fault_lines(found: dict[Key, list[str]]) -> list[str]:
    return [
        f"{who}, {path}, {load_name(parallel)}: {'; '.join(said)}"
        for (who, path, parallel), said in found.items()
    ]


def results(measured: Measured, hit: set[Key]) -> list[dict[str, Any]]:
    """A contender's figures for each path and load that had no fault."""
    return [
        {"who": who, "path": path, "parallel": parallel, **_crr_figures(runs)}
        for (who, path, parallel), runs in measured.crr.items()
        if (who, path, parallel) not in hit
    ]


def loopback(measured: Measured) -> list[dict[str, Any]]:
    """What client and server do on one core in one namespace, without a switch."""
    return [
        {"parallel": parallel, **_crr_figures(runs)} for parallel, runs in measured.loopback.items()
    ]


def _crr_figures(runs: Sequence[CrrRun]) -> dict[str, Any]:
    loads = [run.load for run in runs]
    total = sum(load.transactions for load in loads)
    histogram = Counter[float]()
    for load in loads:
        histogram.update(dict(load.histogram_us))

    def spread(values: Sequence[float]) -> dict[str, Any]:
        return Spread.of(values).as_json()

    def percentile(share: float, values: Sequence[float]) -> dict[str, Any] | None:
        enough = all(load.transactions * (1 - share) >= _BEYOND for load in loads)
        return spread(values) if enough else None

    return {
        "rate_per_s": spread([load.rate_per_s for load in loads]),
        "rates_per_s": [round(load.rate_per_s, 1) for load in loads],
        "p50_us": percentile(0.5, [load.p50_us for load in loads]),
        "p99_us": percentile(0.99, [load.p99_us for load in loads]),
        # Of all rounds together: one round has too few for it.
        "p999_us": _of_histogram(histogram, 0.999) if total * 0.001 >= _BEYOND else None,
        "max_us": max(load.max_us for load in loads),
        "transactions": total,
        "retransmissions": sum(load.retransmissions for load in loads),
        "packet_ins": sum(run.packet_ins for run in runs),
        "over_meter": sum(run.over_meter for run in runs),
        "client_cpu": spread([load.cpu_s / load.seconds for load in loads]),
        "server_cpu": spread([run.served.cpu_s / run.load.seconds for run in runs]),
        "switch_cpu": spread([run.switch_cpu for run in runs]),
        "each": {
            name: spread([run.each[name] for run in runs])
            for name in (runs[0].each if runs else ())
        },
        "histogram_us": sorted(histogram.items()),
    }


def _of_histogram(histogram: Counter[float], share: float) -> float:
    """Upper end of the step that a percentile is in."""
    left = histogram.total() * share
    for end, count in sorted(histogram.items()):
        left -= count
        if left < 0:
            return end
    return max(histogram)


def throughputs(measured: Measured, hit: set[Key]) -> list[dict[str, Any]]:
    return [
        {
            "who": key[0],
            "path": key[1],
            "mbit_per_s": Spread.of([run.mbit_per_s for run in runs]).as_json(),
            "retransmissions": sum(run.retransmissions for run in runs),
            "sender_cpu": Spread.of([run.sender_cpu for run in runs]).as_json(),
            "receiver_cpu": Spread.of([run.receiver_cpu for run in runs]).as_json(),
        }
        for key, runs in measured.iperf.items()
        if key not in hit
    ]


def ratios(
    measured: Measured, hit: set[Key], matches: Sequence[Match], parallel: Sequence[int]
) -> list[dict[str, Any]]:
    """Of rates and throughput, round by round: of agents to the others, and of preloaded to NORMAL."""
    ours = [agents_name(match) for match in matches]
    pairs = [*itertools.product(ours, (PRELOADED, NORMAL)), (PRELOADED, NORMAL)]
    found = []
    for path, load, (one, other) in itertools.product(PATHS, (*parallel, 0), pairs):
        keys = (one, path, load), (other, path, load)
        if hit & set(keys):
            continue
        values = [_rates(measured, key) for key in keys]
        entry = {"path": path, "load": load_name(load), "ours": one, "theirs": other}
        found.append({**entry, "rate": ratio(*values).as_json()})
    return found


def _rates(measured: Measured, key: Key) -> list[float]:
    if key[2]:
        return [run.load.rate_per_s for run in measured.crr[key]]
    return [run.mbit_per_s for run in measured.iperf[key]]


__all__ = [
    "CrrRun",
    "Key",
    "Measured",
    "fault_lines",
    "faults",
    "load_name",
    "loopback",
    "ratios",
    "results",
    "throughputs",
]
