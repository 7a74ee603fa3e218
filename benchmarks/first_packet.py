"""How long the first packet of a flow takes, end to end through Open vSwitch, with policy and conntrack.

Between VMs on one host and over VXLAN, with the agents deciding; against the very rules that they
install, loaded beforehand (the floor: what Open vSwitch itself needs for a flow that its datapath does
not know), and against an ordinary os-ken app and Open vSwitch's own C controller, both without policy.
Agents whose ports have no port security show what policy costs. The sites take turns in each round. Later
packets are measured too: they show what is left once the datapath knows the flow.

With more packets outstanding the same is a rate: how many new flows a second get through, both switches
and the agents at work. All come from one VM, so the agents' limits for one port are raised to what a
host full of VMs would have.

Before each measurement the rules of former flows are deleted, where a controller installed them. At the end
the agents' site is measured once more with the rules of many flows there (``first_packet_rules``).

    python -m benchmarks.first_packet [--quick] [--flows N] [--rounds N] [--window N,N,...] [--json FILE]   (root)
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
from benchmarks.command_line import say
from benchmarks.controllers import has_ovs_testcontroller
from benchmarks.first_packet_result import (
    C_CONTROLLER,
    CROWDED,
    NO_POLICY,
    ON_DEMAND,
    PRELOADED,
    STOCK,
    Key,
    Measured,
    print_result,
    ratios,
    result_json,
    window_json,
)
from benchmarks.first_packet_rules import forget_learned, forget_verdicts
from benchmarks.first_packet_sites import (
    PATHS,
    OnDemandSite,
    Site,
    introduce,
    make_site,
    preload,
    run_learning,
)
from benchmarks.machine import describe_machine
from benchmarks.native_build import BuildError, build
from benchmarks.probe import Passes, ProbeError
from mininet_topos.errors import LabError
from mininet_topos.fabric import Fabric

#: Of the flows of a round in the first window, so many send a second packet and two later ones.
LATER_FLOWS: Final = 200
#: New flows of a path and window before the first round.
WARM_UP: Final = 100
FIRST_PORT: Final = 10_000
#: The crowd's are connections of their own: conntrack still knows those of the rounds.
TRAINING_SOURCE, SOURCE, CROWD_SOURCE = 40_000, 40_001, 40_002
MAX_WINDOW: Final = 256
LEARNING: Final = frozenset((STOCK, C_CONTROLLER))
#: A run takes longer than rules stay without traffic, and one VM sends for many.
SETTINGS: Final = """verdict_idle_s = 3600
location_idle_s = 3600
[limits]
max_rules_per_port = 200000
meter_rate = 1000000
meter_burst = 100000
admission_rate = 1000000
admission_burst = 100000
flood_rate = 1000000
flood_burst = 100000
"""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a run depends on beside the machine. ``flows``: of each path and window in a round."""

    rounds: int
    flows: int
    rules: int
    match: str
    windows: tuple[int, ...]

    @property
    def warm_up(self) -> int:
        return min(self.flows, WARM_UP)

    @property
    def ports(self) -> int:
        """Flows of each path in all rounds."""
        return len(self.windows) * (self.warm_up + self.rounds * self.flows)

    @property
    def crowd(self) -> int:
        """Flows of the local path whose rules are there when the agents are measured once more."""
        return 10 * self.flows

    @property
    def crowded_flows(self) -> int:
        """Flows of a path and window that are measured then."""
        return max(1, self.flows // 4)


def measure(parameters: Parameters) -> dict[str, Any]:
    """Build the sites, run all rounds; the result as it goes into the JSON file."""
    machine = describe_machine()
    build("probe")
    who = {ON_DEMAND: "od", NO_POLICY: "np", PRELOADED: "pre", STOCK: "st"}
    if has_ovs_testcontroller():
        who[C_CONTROLLER] = "c"
    with Fabric(hosts=2 * len(who), progress=say) as fabric:
        h = fabric.hosts
        introduce(h)
        names = {
            name: make_site(fabric, short, h[2 * i], h[2 * i + 1])
            for i, (name, short) in enumerate(who.items())
        }
        on_demand = _prepare(fabric, names, parameters)
        measured, rules = _run_rounds(names, parameters)
        crowded = _run_crowded(on_demand, parameters)
        crowd = on_demand.verdict_rules()
        memory = on_demand.agent_rss_mib()
    first_window = parameters.windows[0]
    return {
        "benchmark": "first_packet",
        "machine": machine,
        "parameters": asdict(parameters) | {"underlay": fabric.underlay.kind},
        "faults": _faults(measured, rules, parameters),
        "window_faults": [
            f"{who}, {path}, {window} outstanding: {sum(one.lost)} frames were lost"
            for (who, path, window), one in measured.items()
            if window != first_window and any(one.lost)
        ],
        "verdict_rules": rules,
        "crowd_rules": crowd,
        "agent_rss_mib": memory,
        "results": [
            result_json(key, one) for key, one in measured.items() if key[2] == first_window
        ],
        "windows": [window_json(key, one) for key, one in measured.items()],
        "crowded": [window_json(key, one) for key, one in crowded.items()],
        "ratios": ratios(measured, first_window),
    }


def _run_rounds(names: dict[str, Site], parameters: Parameters) -> tuple[dict[Key, Measured], int]:
    """All figures of all rounds, and how many verdict rules the agents installed."""
    measured = {
        (name, path, window): Measured([], [])
        for window, path, name in itertools.product(parameters.windows, PATHS, names)
    }
    rules = 0
    first_port = FIRST_PORT
    for number in range(parameters.rounds + 1):
        say(f"round {number}/{parameters.rounds}" if number else "warming up")
        flows = parameters.flows if number else parameters.warm_up
        for window in parameters.windows:
            for path, (name, site) in itertools.product(PATHS, names.items()):
                first = site.send(
                    path,
                    source_port=SOURCE,
                    first_port=first_port,
                    flows=flows,
                    passes=1,
                    window=window,
                )
                into = measured[name, path, window]
                if number:
                    into.first.append(first)
                if number and window == parameters.windows[0]:
                    into.later.append(
                        site.send(
                            path,
                            source_port=SOURCE,
                            first_port=first_port,
                            flows=min(flows, LATER_FLOWS),
                            passes=3,
                            window=window,
                        )
                    )
            first_port += flows
            rules += forget_verdicts(names[ON_DEMAND])
            for name in LEARNING & names.keys():
                forget_learned(names[name])
    return measured, rules


def _run_crowded(on_demand: OnDemandSite, parameters: Parameters) -> dict[Key, Measured]:
    say(f"once more, with the rules of {parameters.crowd} flows there")
    first_port, site = FIRST_PORT, on_demand.site

    def send(path: str, flows: int, window: int) -> Passes:
        nonlocal first_port
        first_port += flows
        return site.send(
            path,
            source_port=CROWD_SOURCE,
            first_port=first_port - flows,
            flows=flows,
            passes=1,
            window=window,
        )

    send("local", parameters.crowd, 16)
    return {
        (CROWDED, path, window): Measured([send(path, parameters.crowded_flows, window)], [])
        for window in parameters.windows
        for path in PATHS
    }


def _prepare(fabric: Fabric, sites: dict[str, Site], parameters: Parameters) -> OnDemandSite:
    """Let agents make the rules of all flows once, load them elsewhere, start agents afresh."""
    say("training: the agents install the rules of all flows")
    match = parameters.match
    on_demand = OnDemandSite(
        fabric, sites[ON_DEMAND], rules=parameters.rules, match=match, settings=SETTINGS
    )
    for path in PATHS:
        passes = on_demand.site.send(
            path,
            source_port=TRAINING_SOURCE if match == "service" else SOURCE,
            first_port=FIRST_PORT,
            flows=parameters.ports,
            passes=1,
            window=16,
        )
        if any(passes.lost):
            raise LabError(f"training: {passes.lost[0]} first packets were lost on the {path} path")
    preload(sites[PRELOADED], on_demand, on_demand.dump())
    on_demand.restart_agents()
    for host in on_demand.site.hosts:
        host.appctl("dpctl/flush-conntrack")
    OnDemandSite(fabric, sites[NO_POLICY], rules=0, match=match, settings=SETTINGS)
    run_learning(sites[STOCK], controllers.stock_app)
    if C_CONTROLLER in sites:
        run_learning(sites[C_CONTROLLER], controllers.ovs_testcontroller)
    return on_demand


def _faults(measured: dict[Key, Measured], rules: int, parameters: Parameters) -> list[str]:
    """Why the figures cannot be compared; empty when all went as it must."""
    faults = [
        f"{name}, {path}: {lost} frames of pass {number + 1} were lost"
        for (name, path, window), one in measured.items()
        if window == parameters.windows[0]
        for number, lost in enumerate(one.lost)
        if lost
    ]
    # Each flow of each path has one rule where it leaves a VM and one where it comes in.
    wanted = 2 * len(PATHS) * parameters.ports
    if rules != wanted:
        faults.append(f"the agents' switches hold {rules} verdict rules, not {wanted}")
    return faults


def _windows(text: str) -> tuple[int, ...]:
    """For argparse: ``1,16``."""
    return tuple(dict.fromkeys(int(part) for part in text.split(",")))


def parse_arguments(arguments: list[str] | None) -> tuple[Parameters, Path | None]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_packet", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, help="(5; quick: 2)")
    parser.add_argument(
        "--flows", type=int, help="new flows of a path and window in a round (1000; quick: 100)"
    )
    parser.add_argument("--rules", type=int, default=1_000, help="security rules per port (1000)")
    parser.add_argument("--match", choices=("service", "connection"), default="service")
    parser.add_argument(
        "--window", type=_windows, help="packets on their way at once (1,16,64,256; quick: 1,64)"
    )
    parser.add_argument("--quick", action="store_true", help="under 40 s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    options = parser.parse_args(arguments)
    parameters = Parameters(
        rounds=options.rounds or (2 if options.quick else 5),
        flows=options.flows or (100 if options.quick else 1_000),
        rules=options.rules,
        match=options.match,
        windows=options.window or ((1, 64) if options.quick else (1, 16, 64, 256)),
    )
    if (
        not 0 < max(parameters.ports, 20 * parameters.flows) <= 50_000
        or not 1 <= parameters.rules <= 20_000
    ):
        parser.error("at most 50,000 flows in all rounds together, and 20,000 rules")
    if not all(1 <= window <= MAX_WINDOW for window in parameters.windows):
        parser.error(f"--window must be in 1..{MAX_WINDOW}")
    return parameters, options.json


def main(arguments: list[str] | None = None) -> int:
    """0: measured; 1: frames were lost or rules are missing; 2: it could not be measured."""
    parameters, json_file = parse_arguments(arguments)
    try:
        result = measure(parameters)
    except (BuildError, ProbeError, LabError) as error:
        print(f"first_packet: {error}", file=sys.stderr)
        return 2
    print_result(result)
    if json_file is not None:
        json_file.write_text(json.dumps(result) + "\n")
    return 1 if result["faults"] or result["window_faults"] else 0


__all__ = [
    "C_CONTROLLER",
    "NO_POLICY",
    "ON_DEMAND",
    "PRELOADED",
    "STOCK",
    "main",
    "measure",
    "parse_arguments",
]


if __name__ == "__main__":
    sys.exit(main())
