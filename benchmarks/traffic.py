"""Packet-ins, rules alive and hit rate over an hour of a host's traffic, by idle timeout.

The traffic is a model (``traffic_model`` says of what), time is simulated, and nothing is sent: the agent's engine
decides, and a model of the switch (``traffic_switch``) holds its rules and lets them age. For each idle timeout the
same hour is run, with all three timeouts of the agent set to it (verdict, location and responder rules), and once
with those that the agent has by default. A *hit* is a packet without a packet-in.

Each is compared with

* the optimum that knows the future (``traffic_optimum``): the fewest packet-ins with as many rules on average, and the
  fewest rules with as many packet-ins;
* an agent that preloads: no packet-in, and rules for the whole VPC, counted from the goal state
  (``traffic_vpc.Preloaded``), not run.

The switch begins empty and the hour is counted from its first second. Figures depend on the seed and on
``traffic_parameters``, not on the machine.

    python -m benchmarks.traffic [--hours 1] [--seed N] [--idle 5,10,30,60,120,300] [--match service|connection]
                                 [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.command_line import rising, say
from benchmarks.machine import describe_machine, machine_line
from benchmarks.summary import table
from benchmarks.traffic_model import Kind, Traffic, generate
from benchmarks.traffic_optimum import Optimum, PriceList
from benchmarks.traffic_parameters import Parameters
from benchmarks.traffic_run import HostRun, Outcome
from benchmarks.traffic_switch import SwitchModelError
from benchmarks.traffic_vpc import TrafficVpc
from ondemand.settings import Settings

IDLE_S: Final = (5, 10, 30, 60, 120, 300)
QUICK_IDLE_S: Final = (5, 60, 300)
QUICK_HOURS: Final = 1 / 6
MATCHES: Final = ("service", "connection")
MAX_HOURS: Final = 6.0
MAX_IDLE_S: Final = 3600


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Idle timeouts of a run, s. ``idle_s`` is None where they are the agent's defaults."""

    name: str
    idle_s: int | None
    verdict_s: int
    location_s: int
    responder_s: int

    @classmethod
    def all(cls, idle_s: int) -> Timeouts:
        return cls(f"idle {idle_s} s", idle_s, idle_s, idle_s, idle_s)

    @classmethod
    def default(cls) -> Timeouts:
        own = Settings()
        name = f"default, {own.verdict_idle_s} / {own.location_idle_s} s"
        return cls(name, None, own.verdict_idle_s, own.location_idle_s, own.responder_idle_s)

    def settings(self, *, match: str) -> Settings:
        """The agent's, but that neighbor records stay in its cache: what it is to forget one is not asked."""
        return Settings(
            match_connection=match == "connection",
            verdict_idle_s=self.verdict_s,
            location_idle_s=self.location_s,
            responder_idle_s=self.responder_s,
            neighbor_idle_s=0,
        )


def measure(
    parameters: Parameters, idle_s: Sequence[int] = IDLE_S, *, match: str = "service"
) -> dict[str, Any]:
    """Make the traffic, run it for each timeout, and compare.

    Raises:
        SwitchModelError: the engine did what the model has no place for.
    """
    machine = describe_machine()
    say(f"making {parameters.duration_s / 3600:g} h of traffic of {parameters.vms} VMs")
    traffic, vpc = generate(parameters), TrafficVpc(parameters)
    prices = PriceList()
    runs: list[tuple[Timeouts, Outcome]] = []
    for timeouts in [*map(Timeouts.all, idle_s), Timeouts.default()]:
        start_s = time.perf_counter()
        settings = timeouts.settings(match=match)
        # What packets need does not depend on when rules leave, so one run tells it for all.
        run = HostRun(vpc, settings, needs=None if runs else prices.needs)
        runs.append((timeouts, run.run(traffic)))
        say(f"{timeouts.name}: took {time.perf_counter() - start_s:.1f} s")
    optimum = Optimum(prices.prices, prices.compulsory, parameters.duration_s)
    return {
        "benchmark": "traffic",
        "machine": machine,
        "parameters": asdict(parameters) | {"match": match, "idle_s": list(idle_s)},
        "traffic": _shape(traffic, prices),
        "rows": [_row(one, outcome, optimum, parameters.duration_s) for one, outcome in runs],
        "optimum": {
            "compulsory": optimum.compulsory,
            "requests": optimum.requests,
            "frontier": [
                {
                    "rules": point.rules,
                    "packet_ins_per_s": point.packet_ins / parameters.duration_s,
                    "longest_price_s": point.longest_price_s,
                }
                for point in optimum.frontier()
            ],
        },
        "preloaded": asdict(vpc.preloaded()),
    }


def _shape(traffic: Traffic, prices: PriceList) -> dict[str, Any]:
    """What came of the parameters."""
    one = traffic.parameters
    by_kind = {kind.name.lower(): 0 for kind in Kind}
    for flow in traffic.flows:
        by_kind[flow.kind.name.lower()] += 1
    pairs = one.vms * one.neighbors
    return {
        "flows": by_kind,
        "bursts": len(traffic.bursts),
        "packets": sum(burst.packets for burst in traffic.bursts),
        "pairs": pairs,
        "pairs_that_may_talk": sum(map(len, traffic.peers)) / pairs,
        "pairs_that_talked": traffic.talked() / pairs,
        "rules_needed": prices.rules,
    }


def _row(
    timeouts: Timeouts, outcome: Outcome, optimum: Optimum, duration_s: float
) -> dict[str, Any]:
    best = optimum.packet_ins(outcome.alive_mean)
    best_rules = optimum.rules(outcome.total)
    scanned = outcome.packet_ins[Kind.SCAN]
    return {
        "name": timeouts.name,
        "idle_s": timeouts.idle_s,
        "verdict_idle_s": timeouts.verdict_s,
        "location_idle_s": timeouts.location_s,
        "responder_idle_s": timeouts.responder_s,
        "packet_ins": outcome.total,
        "packet_ins_per_s": outcome.total / duration_s,
        "packet_ins_per_s_unscanned": (outcome.total - scanned) / duration_s,
        "packet_ins_peak_second": outcome.peak_second,
        "packet_ins_peak_second_unscanned": outcome.peak_second_unscanned,
        "packet_ins_by_kind": {k.name.lower(): n for k, n in outcome.packet_ins.items()},
        "packet_ins_by_table": outcome.packet_ins_by_table,
        "rules_mean": outcome.alive_mean,
        "rules_peak": outcome.alive_peak,
        "rules_mean_by_table": outcome.alive_by_table,
        "rules_end": outcome.alive_end,
        "rules_static": outcome.static,
        "removed_by_reason": {str(k): n for k, n in sorted(outcome.removed.items())},
        "evicted": outcome.evicted,
        "packet_hit_rate": 1 - outcome.total / max(1, outcome.packets),
        "flow_hit_rate": outcome.flows_hit / max(1, outcome.flows),
        "optimum_packet_ins_per_s": best / duration_s,
        "packet_ins_to_optimum": outcome.total / max(1, best),
        "optimum_rules_mean": best_rules,
        "rules_to_optimum": outcome.alive_mean / best_rules if best_rules else None,
    }


def print_result(result: Mapping[str, Any]) -> None:
    print(machine_line(result["machine"]))
    one, shape, rows = result["parameters"], result["traffic"], result["rows"]
    print(
        f"{one['duration_s'] / 3600:g} h, seed {one['seed']}, match {one['match']}: {one['vms']} VMs,"
        f" {one['neighbors']:,} neighbors; {sum(shape['flows'].values()):,} flows, {shape['packets']:,} packets;"
        f" {shape['pairs_that_may_talk']:.1%} of pairs may talk, {shape['pairs_that_talked']:.2%} did"
    )
    print()
    print(
        table(
            [
                "",
                "packet-ins/s",
                "peak second",
                "without scan",
                "rules",
                "peak",
                "hit: packets",
                "flows",
            ],
            [
                [
                    row["name"],
                    f"{row['packet_ins_per_s']:.1f}",
                    f"{row['packet_ins_peak_second']:,}",
                    f"{row['packet_ins_per_s_unscanned']:.1f}",
                    f"{row['rules_mean']:,.0f}",
                    f"{row['rules_peak']:,}",
                    f"{row['packet_hit_rate']:.2%}",
                    f"{row['flow_hit_rate']:.1%}",
                ]
                for row in rows
            ]
            + [_preloaded_row(result["preloaded"])],
        )
    )
    print()
    print(
        table(
            [
                "against the optimum",
                "packet-ins/s, as many rules",
                "ours",
                "rules, as many packet-ins",
                "ours",
            ],
            [
                [
                    row["name"],
                    f"{row['optimum_packet_ins_per_s']:.1f}",
                    f"{row['packet_ins_to_optimum']:.2f} x",
                    f"{row['optimum_rules_mean']:,.0f}",
                    _times(row["rules_to_optimum"]),
                ]
                for row in rows
            ],
        )
    )
    best = result["optimum"]
    print(
        f"{best['compulsory']:,} packet-ins ({best['compulsory'] / one['duration_s']:.1f}/s) nobody could save"
        f" who has a rule only when a packet needs it: the first need of one of {shape['rules_needed']:,} rules"
    )
    pre = result["preloaded"]
    print(
        f"preloaded, a rule for each member of the group, VM and open port:"
        f" {pre['neighbors'] + pre['by_member'] + pre['egress']:,} rules"
    )


def _preloaded_row(found: Mapping[str, int]) -> list[str]:
    """With conjunctive matches, which is the best that it can be."""
    rules = found["neighbors"] + found["by_conjunction"] + found["egress"]
    return ["preloaded", "0.0", "0", "0.0", f"{rules:,}", f"{rules:,}", "100.00%", "100.0%"]


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1f} x"


def main(arguments: list[str] | None = None) -> int:
    """0: run; 2: the model has no place for what happened."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.traffic", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--hours", type=float, help=f"simulated, up to {MAX_HOURS:g} (1)")
    parser.add_argument("--seed", type=int, default=1, help="of the traffic (1)")
    parser.add_argument(
        "--idle",
        type=rising("5,60,300", of="seconds", least=1, most=MAX_IDLE_S),
        metavar="S,S",
        help=f"({','.join(map(str, IDLE_S))})",
    )
    parser.add_argument("--match", choices=MATCHES, default="service", help="(service)")
    parser.add_argument("--quick", action="store_true", help="ten minutes, three timeouts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    options = parser.parse_args(arguments)
    hours = options.hours if options.hours is not None else QUICK_HOURS if options.quick else 1.0
    if not 0.005 <= hours <= MAX_HOURS:
        parser.error(f"--hours: {hours:g} is not in 0.005..{MAX_HOURS:g}")
    idle_s = options.idle or (QUICK_IDLE_S if options.quick else IDLE_S)
    try:
        result = measure(
            Parameters(seed=options.seed, duration_s=hours * 3600), idle_s, match=options.match
        )
    except SwitchModelError as error:
        print(f"traffic: {error}", file=sys.stderr)
        return 2
    print_result(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
