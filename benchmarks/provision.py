"""How soon a port that is published and plugged in at the same moment has its first packet served.

A VM on h1 sends a datagram each millisecond to a VM on h2 (``provision_lab``). Then its interface is added to
Open vSwitch by ``ovs-vsctl``, and its port is published at the same moment: the time from there to the first
datagram that arrives, with other ports on the host and more and more neighbors in the VPC.

The contender ``expanded`` preloads: on the same switch, when the same interface has appeared, it writes the port's
rules (``ovs-ofctl --bundle add-flows``) and then one rule for each neighbor of the VPC, as for the first port of a
VPC on a host. These are OpenFlow messages in bundles of 10,000 from a file that was made beforehand (``preload``); no
message queue or database stands before it. The neighbor that the VM sends to is in the middle of them. A host
that has another port of the VPC has that table already: ``expanded, next port`` writes the port's rules only.

    python -m benchmarks.provision [--quick] [--source sqlite|nats] [--json FILE]   (root)
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, get_args

from benchmarks.change_lab import AGENTS, EXPANDED
from benchmarks.change_streams import Collector, stream
from benchmarks.command_line import rising, say
from benchmarks.expanded import command_s
from benchmarks.machine import describe_machine, machine_line
from benchmarks.provision_lab import (
    MAX_NEIGHBORS,
    MAX_PORTS,
    NEXT,
    PEERS,
    UDP,
    ProvisionLab,
    peer_ip,
)
from benchmarks.summary import Spread, spread_text, table
from mininet_topos.errors import LabError
from mininet_topos.lab_source import SourceKind, require_source

WHO: Final = (AGENTS, EXPANDED, NEXT)
PACE_S: Final = 0.001
#: A port that is not served by then counts as one that never was.
LIMIT_S: Final = 60.0
#: From here on the preloading contender is measured once only: it takes many seconds.
ONCE_FROM: Final = 500_000


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a run depends on beside the machine: each number of ports with each of neighbors."""

    ports: tuple[int, ...]
    neighbors: tuple[int, ...]
    repetitions: int
    source: SourceKind


@dataclass(frozen=True, slots=True)
class Port:
    """One port that appeared.

    Attributes:
        who: the contender.
        ports: on the host, this one included.
        neighbors: in the VPC.
        served_ms: until its first datagram arrived; None: none did.
        interface_ms: until ovs-vsctl said that the interface is there.
        made_ms: until the publisher, or what writes the rules, had done its part.
        flow_mods: that were written; None: the agent writes.
        rules: that the host had for this contender then.
    """

    who: str
    ports: int
    neighbors: int
    served_ms: float | None
    interface_ms: float
    made_ms: float
    flow_mods: int | None
    rules: int


class Bench:
    """Ports that appear in a lab that runs."""

    def __init__(self, lab: ProvisionLab) -> None:
        self._lab = lab
        agents, expanded = (Collector(lab.vm(who, "peer"), (UDP,)) for who in (AGENTS, EXPANDED))
        self._collectors = {AGENTS: agents, EXPANDED: expanded, NEXT: expanded}
        self._number = 0

    def port(self, who: str) -> Port:
        """Let the port appear once, and take it away again."""
        lab, came = self._lab, self._collectors[who]
        address = peer_ip(self._number % PEERS)
        self._number += 1
        came.mark()
        with stream(lab.vm(who, "newcomer"), address, UDP, interval_s=PACE_S):
            appeared = lab.appear(who)
            first = came.first_after(UDP, appeared.start_s, timeout_s=LIMIT_S)
        rules = lab.rules(who)
        lab.disappear(who)
        return Port(
            who,
            lab.ports,
            lab.neighbors,
            served_ms=None if first is None else 1000 * (first.came_s - appeared.start_s),
            interface_ms=1000 * appeared.interface_s,
            made_ms=1000 * appeared.made_s,
            flow_mods=appeared.flow_mods,
            rules=rules,
        )


def measure(parameters: Parameters) -> dict[str, Any]:
    """Build the lab and measure each size of it."""
    machine = describe_machine()
    found: list[Port] = []
    with ProvisionLab(parameters.source, progress=say) as lab:
        lab.prepare()
        bench = Bench(lab)
        for ports in parameters.ports:
            for neighbors in parameters.neighbors:
                lab.resize(neighbors=neighbors, ports=ports)
                bench.port(AGENTS)  # to warm up
                found += _size(lab, bench, parameters.repetitions, is_once=neighbors >= ONCE_FROM)
        one_command_s = command_s(lab.host(1))
        errors = [error for agent in lab.agents.values() for error in agent.errors()]
    if errors:
        raise LabError("an agent said: " + errors[0])
    return {
        "benchmark": "provision",
        "machine": machine,
        "parameters": asdict(parameters),
        "command_ms": round(1000 * one_command_s, 1),
        "ports": [asdict(one) for one in found],
        "summary": [
            _summary(found, who, ports, neighbors)
            for ports in parameters.ports
            for neighbors in parameters.neighbors
            for who in WHO
        ],
    }


def _size(lab: ProvisionLab, bench: Bench, repetitions: int, *, is_once: bool) -> list[Port]:
    """All contenders in turn; all neighbors are preloaded once only, if so."""
    if is_once:
        found = [bench.port(EXPANDED), *(bench.port(NEXT) for _ in range(repetitions))]
        lab.clear()
        return found + [bench.port(AGENTS) for _ in range(repetitions)]
    found = []
    for number in range(repetitions):
        if number % 2:
            found.append(bench.port(AGENTS))
        found += [bench.port(EXPANDED), bench.port(NEXT)]
        lab.clear()
        if number % 2 == 0:
            found.append(bench.port(AGENTS))
    return found


def _summary(found: list[Port], who: str, ports: int, neighbors: int) -> dict[str, Any]:
    some = [one for one in found if (one.who, one.ports, one.neighbors) == (who, ports, neighbors)]
    times = [one.served_ms for one in some if one.served_ms is not None]
    return {
        "who": who,
        "ports": ports,
        "neighbors": neighbors,
        "repetitions": len(some),
        "never": len(some) - len(times),
        "served_ms": Spread.of(times).as_json() if times else None,
        "interface_ms": Spread.of([one.interface_ms for one in some]).as_json(),
        "made_ms": Spread.of([one.made_ms for one in some]).as_json(),
        "rules": max(one.rules for one in some),
    }


def print_result(result: Mapping[str, Any]) -> None:
    print(machine_line(result["machine"]))
    parameters = result["parameters"]
    print(
        "milliseconds from when the interface is added and the port is published"
        f" ({parameters['source']}) to its first packet that arrives: median (least-greatest)"
    )
    rows = [
        [
            f"{one['ports']:,} ports, {one['neighbors']:,} neighbors, {one['who']}",
            spread_text(one["served_ms"], 1) if one["served_ms"] else "never",
            spread_text(one["interface_ms"], 1),
            spread_text(one["made_ms"], 1),
            f"{one['rules']:,}",
            str(one["repetitions"]),
            str(one["never"]),
        ]
        for one in result["summary"]
    ]
    print()
    head = ["", "first packet", "interface there", "published, written", "rules", "times", "never"]
    print(table(head, rows))
    print()
    print(
        f"of {EXPANDED}, one ovs-ofctl that starts, writes one rule and ends takes"
        f" {result['command_ms']:.1f} ms; {EXPANDED} is measured once from {ONCE_FROM:,} neighbors on"
    )


def main(arguments: list[str] | None = None) -> int:
    """0: measured; 1: some port was never served; 2: it could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.provision", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--source", choices=get_args(SourceKind), default="sqlite")
    parser.add_argument(
        "--ports", type=rising("1,50", least=1), metavar="N,N", help="(1,50,500; quick: 1,50)"
    )
    parser.add_argument(
        "--neighbors",
        type=rising("1,50", least=1),
        metavar="N,N",
        help="(1000,10000,100000,1000000; quick: 1000,100000)",
    )
    parser.add_argument("--repetitions", type=int, metavar="N", help="of each (5; quick: 3)")
    parser.add_argument("--quick", action="store_true", help="about half a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    options = parser.parse_args(arguments)
    quick = options.quick
    sizes = (1_000, 10_000, 100_000, 1_000_000)
    parameters = Parameters(
        ports=options.ports or ((1, 50) if quick else (1, 50, 500)),
        neighbors=options.neighbors or ((1_000, 100_000) if quick else sizes),
        repetitions=(3 if quick else 5) if options.repetitions is None else options.repetitions,
        source=options.source,
    )
    for name, value, high in (
        ("ports", parameters.ports[-1], MAX_PORTS),
        ("neighbors", parameters.neighbors[-1], MAX_NEIGHBORS),
        ("repetitions", parameters.repetitions, 100),
    ):
        if not 1 <= value <= high:
            parser.error(f"--{name}: {value} is not in 1..{high}")
    try:
        require_source(options.source)
        result = measure(parameters)
    except LabError as error:
        print(f"provision: {error}", file=sys.stderr)
        return 2
    print_result(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if any(one["never"] for one in result["summary"]) else 0


if __name__ == "__main__":
    sys.exit(main())
