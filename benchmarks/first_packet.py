"""How long the first packet of a flow takes, end to end through Open vSwitch, with policy and conntrack.

Between VMs on one host and over VXLAN, with the agents deciding; against the very rules that they
install, loaded beforehand (the floor: what Open vSwitch itself needs for a flow that its datapath does
not know), and against an ordinary os-ken app and Open vSwitch's own C controller, both without policy. The
sites take turns in each round. Later packets are measured too: they show what is left once the datapath
knows the flow.

    python -m benchmarks.first_packet [--quick] [--flows N] [--rounds N] [--json FILE]   (root)
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import controllers
from benchmarks.controllers import has_ovs_testcontroller
from benchmarks.first_packet_sites import (
    PATHS,
    OnDemandSite,
    Site,
    introduce,
    make_site,
    preload,
    run_learning,
)
from benchmarks.machine import describe_machine, machine_line
from benchmarks.native_build import BuildError, build
from benchmarks.probe import Passes, ProbeError
from benchmarks.summary import Spread, ratio, table
from mininet_topos.errors import LabError
from mininet_topos.fabric import Fabric

ON_DEMAND, PRELOADED, STOCK = "on demand", "preloaded", "stock os-ken app"
C_CONTROLLER: Final = "ovs-testcontroller (C)"
#: First, second, and two later frames of each flow.
PASSES: Final = 4
FIRST_PORT: Final = 10_000
TRAINING_SOURCE, SOURCE = 40_000, 40_001


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a run depends on beside the machine."""

    rounds: int
    flows: int
    rules: int
    match: str
    window: int

    @property
    def ports(self) -> int:
        """Flows of each path in all; one more round is for warming up."""
        return (self.rounds + 1) * self.flows


#: Rounds of one site and path.
Rounds = dict[tuple[str, str], list[Passes]]


def measure(parameters: Parameters) -> dict[str, Any]:
    """Build the sites, run all rounds; the result as it goes into the JSON file."""
    machine = describe_machine()
    build("probe")

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    who = {ON_DEMAND: "od", PRELOADED: "pre", STOCK: "st"}
    if has_ovs_testcontroller():
        who[C_CONTROLLER] = "c"
    with Fabric(hosts=2 * len(who), progress=say) as fabric:
        h = fabric.hosts
        introduce(h)
        names = {
            name: make_site(fabric, short, h[2 * i], h[2 * i + 1])
            for i, (name, short) in enumerate(who.items())
        }
        on_demand = _prepare(fabric, names, parameters, say)
        measured: Rounds = {(name, path): [] for name in names for path in PATHS}
        for number in range(parameters.rounds + 1):
            say(f"round {number}/{parameters.rounds}" if number else "warming up")
            for path, (name, site) in itertools.product(PATHS, names.items()):
                passes = site.send(
                    path,
                    source_port=SOURCE,
                    first_port=FIRST_PORT + number * parameters.flows,
                    flows=parameters.flows,
                    passes=PASSES,
                    window=parameters.window,
                )
                if number:
                    measured[name, path].append(passes)
        rules = on_demand.verdict_rules()
        memory = on_demand.agent_rss_mib()
    return {
        "benchmark": "first_packet",
        "machine": machine,
        "parameters": asdict(parameters) | {"underlay": fabric.underlay.kind},
        "faults": _faults(measured, rules, parameters),
        "verdict_rules": rules,
        "agent_rss_mib": memory,
        "results": [_result(*key, rounds) for key, rounds in measured.items()],
        "ratios": _ratios(measured),
    }


def _prepare(
    fabric: Fabric, sites: dict[str, Site], parameters: Parameters, say: Any
) -> OnDemandSite:
    """Let agents make the rules of all flows once, load them elsewhere, start agents afresh."""
    say("training: the agents install the rules of all flows")
    on_demand = OnDemandSite(
        fabric, sites[ON_DEMAND], rules=parameters.rules, match=parameters.match
    )
    for path in PATHS:
        passes = on_demand.site.send(
            path,
            source_port=TRAINING_SOURCE if parameters.match == "service" else SOURCE,
            first_port=FIRST_PORT,
            flows=parameters.ports,
            passes=1,
            window=8,
        )
        if any(passes.lost):
            raise LabError(f"training: {passes.lost[0]} first packets were lost on the {path} path")
    preload(sites[PRELOADED], on_demand, on_demand.dump())
    on_demand.restart_agents()
    for host in on_demand.site.hosts:
        host.appctl("dpctl/flush-conntrack")
    run_learning(sites[STOCK], controllers.stock_app)
    if C_CONTROLLER in sites:
        run_learning(sites[C_CONTROLLER], controllers.ovs_testcontroller)
    return on_demand


def _faults(measured: Rounds, rules: int, parameters: Parameters) -> list[str]:
    """Why the figures cannot be compared; empty when all went as it must."""
    faults = [
        f"{name}, {path}: {lost} frames of pass {number + 1} were lost"
        for (name, path), rounds in measured.items()
        for number, lost in enumerate(map(sum, zip(*(one.lost for one in rounds), strict=True)))
        if lost
    ]
    # Each flow of each path has one rule where it leaves a VM and one where it comes in.
    wanted = 2 * len(PATHS) * parameters.ports
    if rules != wanted:
        faults.append(f"the agents' switches hold {rules} verdict rules, not {wanted}")
    return faults


def _values(rounds: list[Passes], kind: str) -> list[list[float]]:
    """The latencies of each round: of the first, the second or all later passes."""
    passes = {"first": slice(0, 1), "second": slice(1, 2), "later": slice(2, None)}[kind]
    return [sorted(itertools.chain(*one.passes_us[passes])) for one in rounds]


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _result(name: str, path: str, rounds: list[Passes]) -> dict[str, Any]:
    result: dict[str, Any] = {"who": name, "path": path}
    for kind in ("first", "second", "later"):
        values = _values(rounds, kind)
        if not all(values):
            continue
        result[kind] = {
            "p50_us": Spread.of([_percentile(v, 0.5) for v in values]).as_json(),
            "p90_us": Spread.of([_percentile(v, 0.9) for v in values]).as_json(),
            "p99_us": Spread.of([_percentile(v, 0.99) for v in values]).as_json(),
            "all_us": sorted(itertools.chain(*values)),
        }
    return result


def _ratios(measured: Rounds) -> list[dict[str, Any]]:
    """Of first packets, round by round."""
    found = []
    for path, (ours, theirs) in itertools.product(
        PATHS,
        (
            *((ON_DEMAND, PRELOADED), (STOCK, PRELOADED)),
            *((ON_DEMAND, STOCK), (ON_DEMAND, C_CONTROLLER)),
        ),
    ):
        if (theirs, path) not in measured:
            continue
        pair = [_values(measured[name, path], "first") for name in (ours, theirs)]
        if not all(map(all, pair)):
            continue
        entry: dict[str, Any] = {"path": path, "ours": ours, "theirs": theirs}
        for share, field in ((0.5, "p50"), (0.99, "p99")):
            one, other = ([_percentile(v, share) for v in values] for values in pair)
            entry[field] = ratio(one, other).as_json()
        found.append(entry)
    return found


def print_result(result: dict[str, Any]) -> None:
    parameters = result["parameters"]
    print(machine_line(result["machine"]))
    print(
        f"microseconds from one VM to the other, UDP, {parameters['flows']} new flows a round, "
        f"{parameters['window']} outstanding; {parameters['rules']:,} security rules; "
        f"median (least-greatest) of {parameters['rounds']} rounds"
    )
    rows = []
    for one in result["results"]:
        cells = [
            _text(one[kind][field]) if kind in one else "-"
            for kind, field in (
                *(("first", "p50_us"), ("first", "p99_us")),
                *(("second", "p50_us"), ("later", "p50_us")),
            )
        ]
        rows.append([f"{one['path']}, {one['who']}", *cells])
    print()
    print(table(["", "first p50", "first p99", "second p50", "later p50"], rows))
    print()
    for pair in result["ratios"] if not result["faults"] else []:
        print(
            f"{pair['path']}, first packet, {pair['ours']} / {pair['theirs']}: "
            f"p50 x {_text(pair['p50'], 2)}, p99 x {_text(pair['p99'], 2)}"
        )
    for fault in result["faults"]:
        print(f"not comparable: {fault}")
    print(f"resident memory of the agents: {result['agent_rss_mib']} MiB")


def _text(spread: dict[str, float], digits: int = 0) -> str:
    return Spread(spread["median"], spread["low"], spread["high"]).text(digits)


def main(arguments: list[str] | None = None) -> int:
    """0: measured; 1: frames were lost or rules are missing; 2: it could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_packet", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, help="(5; quick: 3)")
    parser.add_argument("--flows", type=int, help="new flows of a path in a round (150; quick: 80)")
    parser.add_argument("--rules", type=int, default=1_000, help="security rules per port (1000)")
    parser.add_argument("--match", choices=("service", "connection"), default="service")
    parser.add_argument("--window", type=int, default=1, help="packets on their way at once (1)")
    parser.add_argument("--quick", action="store_true", help="under 40 s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    options = parser.parse_args(arguments)
    parameters = Parameters(
        rounds=options.rounds or (3 if options.quick else 5),
        flows=options.flows or (80 if options.quick else 150),
        rules=options.rules,
        match=options.match,
        window=options.window,
    )
    if not 0 < parameters.ports <= 50_000 or not 1 <= parameters.rules <= 20_000:
        parser.error("at most 50,000 flows in all rounds together, and 20,000 rules")
    if not 1 <= parameters.window <= 256:
        parser.error("--window must be in 1..256")
    try:
        result = measure(parameters)
    except (BuildError, ProbeError, LabError) as error:
        print(f"first_packet: {error}", file=sys.stderr)
        return 2
    print_result(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result) + "\n")
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
