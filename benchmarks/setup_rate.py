"""How fast a controller sets up new flows: one at a time, and with up to 1,000 outstanding.

An OpenFlow 1.3 fake switch (in C) offers packet-ins over TCP and waits for the answers; each is the
first packet of a new flow. The agent gets them as Open vSwitch sends them after conntrack, and decides
with security groups, routing and 100,000 neighbors in its store; an ordinary os-ken app and Open
vSwitch's own C controller, both without policy, get a plain packet-in for the same frames. Every answer
is checked: the rules first, with the right values, then the frame. All take turns in each repetition.

    python -m benchmarks.setup_rate [--quick] [--seconds N] [--rules N] [--neighbors N]
                                    [--match service|connection] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import controllers, vpc
from benchmarks.answer_check import AnswerCheck, AnswerError
from benchmarks.controllers import Contender, Cores
from benchmarks.flow_plan import FlowPlan, make_plan
from benchmarks.machine import describe_machine, machine_line
from benchmarks.native_build import BuildError
from benchmarks.summary import Spread, ratio, table
from benchmarks.switch_run import Phase, RunError, SwitchRun, run_switch
from benchmarks.vpc import VpcSize

#: Local ports. With so many, the agent's default limits per port are not reached.
PORTS: Final = 16
#: Flows to new destinations in one run: what the agent's default limits hold (64 MiB of neighbor
#: records, 200,000 rules), so that nothing is evicted.
NEW_FLOWS: Final = 75_000
KNOWN_FLOWS: Final = 150_000
#: Rules in the fake switch's table when they leave: more than any window needs.
LEAVING_TABLE: Final = 10_000

NULL, AGENT_NEW, AGENT_KNOWN, AGENT_LEAVING, STOCK, C_CONTROLLER = (
    "null responder (C)",
    "agent, new destinations",
    "agent, known destinations",
    "agent, known, rules leaving",
    "stock os-ken app",
    "ovs-testcontroller (C)",
)
LATENCY, FULL = "latency", "window-1000"


@dataclass(frozen=True, slots=True)
class Parameters:
    """Everything that a run depends on beside the machine."""

    rules: int
    neighbors: int
    match: str
    seconds: float
    repetitions: int
    working_set: int
    flows: int
    quick: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Plans:
    """The flow plans of a run, by name, with their files."""

    plans: dict[str, FlowPlan]
    files: dict[str, Path]


def build_plans(store: Path, size: VpcSize, parameters: Parameters, place: Path) -> Plans:
    new = min(parameters.flows, NEW_FLOWS, size.neighbors)
    known = min(parameters.working_set, size.neighbors)
    flows = min(2 * parameters.flows, KNOWN_FLOWS, known * size.target_ports)
    plans = {
        "new": make_plan(store, size, destinations=new, flows=new, seed=parameters.seed),
        "known": make_plan(store, size, destinations=known, flows=flows, seed=parameters.seed),
    }
    files = {name: place / f"{name}.plan" for name in plans}
    for name, plan in plans.items():
        plan.write(files[name])
    return Plans(plans, files)


def contenders(store: Path, plans: Plans, parameters: Parameters) -> list[Contender]:
    agent = controllers.agent(store, PORTS, parameters.match)
    found = [
        Contender(
            *(NULL, "new", "service", controllers.null_responder(PORTS, plans.files["new"])),
            thinks=False,
        ),
        Contender(AGENT_NEW, "new", parameters.match, agent),
        Contender(AGENT_KNOWN, "known", parameters.match, agent),
    ]
    if not parameters.quick:
        found.append(Contender(AGENT_LEAVING, "known", parameters.match, agent, LEAVING_TABLE))
    found.append(Contender(STOCK, "new", "exact", controllers.stock_app))
    if controllers.has_ovs_testcontroller():
        found.append(Contender(C_CONTROLLER, "new", "exact", controllers.ovs_testcontroller))
    return found


def phases_of(plan: FlowPlan, parameters: Parameters) -> list[Phase]:
    """Warm-up (each known destination at least once), one outstanding, then wider windows."""
    seconds, flows = parameters.seconds, len(plan.flows)
    warm_up = 2 * parameters.working_set if len(plan.neighbors) < flows else 2_000
    left = flows - min(warm_up, flows // 4)
    phases = [
        Phase("warm-up", 16, flows - left, 5.0),
        Phase(LATENCY, 1, min(5_000, left // 4), seconds),
    ]
    if not parameters.quick:
        phases += [
            Phase("window-10", 10, left // 10, seconds / 2),
            Phase("window-100", 100, left // 5, seconds / 2),
        ]
    # The rest, however many the others left.
    phases.append(Phase(FULL, 1000, flows, seconds))
    return phases


def measure(parameters: Parameters) -> dict[str, Any]:
    """Run everything; the result as it goes into the JSON file."""
    machine = describe_machine()
    size = VpcSize(PORTS, parameters.rules, parameters.neighbors)
    cores = Cores.of_this_machine()
    with tempfile.TemporaryDirectory(prefix="ondemand-bench-") as directory:
        place = Path(directory)
        store = place / "slices.db"
        print(f"publishing {size.neighbors:,} neighbors, {size.rules:,} rules", file=sys.stderr)
        vpc.publish(store, size)
        plans = build_plans(store, size, parameters, place)
        compared = contenders(store, plans, parameters)
        checks = {name: AnswerCheck(plan) for name, plan in plans.plans.items()}
        runs: dict[str, list[SwitchRun]] = {one.name: [] for one in compared}
        verified = dict.fromkeys(runs, 0)
        for repetition in range(parameters.repetitions):
            for one in compared:
                print(f"{repetition + 1}/{parameters.repetitions} {one.name}", file=sys.stderr)
                here = place / f"{repetition}-{compared.index(one)}"
                here.mkdir()
                plan = plans.plans[one.plan]
                run = run_switch(
                    one,
                    plans.files[one.plan],
                    phases_of(plan, parameters),
                    cores,
                    here,
                    len(plan.flows),
                )
                if one.thinks:
                    verified[one.name] += checks[one.plan].check(here / "samples", one.expect)
                runs[one.name].append(run)
    return {
        "benchmark": "setup_rate",
        "machine": machine,
        "parameters": asdict(parameters) | {"ports": PORTS, "cores": asdict(cores)},
        "contenders": [
            _contender_json(one, runs[one.name], verified[one.name]) for one in compared
        ],
        "ratios": _ratios(runs),
    }


def _contender_json(one: Contender, runs: list[SwitchRun], verified: int) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    faults = sorted({fault for run in runs for fault in run.faults})
    if not faults:
        for phase in runs[0].phases:
            results = [run.phases[phase] for run in runs]
            summary[phase] = {
                name: Spread.of([getattr(result, name) for result in results]).as_json()
                for name in (
                    *("rate_per_s", "p50_us", "p90_us", "p99_us", "p999_us", "max_us"),
                    *("controller_cpu_us_per_flow", "switch_busy"),
                )
            }
    return {
        "name": one.name,
        "expect": one.expect,
        "faults": faults,
        "answers": sum(phase.answered for run in runs for phase in run.phases.values()),
        "samples_verified": verified,
        "controller_rss_mib": Spread.of([run.controller_rss_mib for run in runs]).as_json(),
        "summary": summary,
        "runs": [asdict(run) for run in runs],
    }


def _ratios(runs: dict[str, list[SwitchRun]]) -> list[dict[str, Any]]:
    """Each of ours against each of theirs; nothing where answers were wrong."""
    found = []
    for ours in (AGENT_NEW, AGENT_KNOWN, AGENT_LEAVING):
        for theirs in (STOCK, C_CONTROLLER):
            pair = [*runs.get(ours, []), *runs.get(theirs, [])]
            if ours not in runs or theirs not in runs or any(run.faults for run in pair):
                continue

            def of(name: str, phase: str, field: str) -> list[float]:
                return [getattr(run.phases[phase], field) for run in runs[name]]

            rate = ratio(of(ours, FULL, "rate_per_s"), of(theirs, FULL, "rate_per_s"))
            p50 = ratio(of(ours, LATENCY, "p50_us"), of(theirs, LATENCY, "p50_us"))
            found.append(
                {
                    "ours": ours,
                    "theirs": theirs,
                    "rate": rate.as_json(),
                    "latency_p50": p50.as_json(),
                }
            )
    return found


def print_result(result: dict[str, Any]) -> None:
    parameters = result["parameters"]
    print(machine_line(result["machine"]))
    print(
        f"{parameters['rules']:,} security rules per port, {parameters['neighbors']:,} neighbors, "
        f"match = {parameters['match']}; median (least-greatest) of "
        f"{parameters['repetitions']} repetitions"
    )
    print(
        "us: one packet-in outstanding. flows/s: 1,000 outstanding. busy: of the fake switch then."
    )
    rows = []
    for one in result["contenders"]:
        if one["faults"]:
            rows.append([one["name"], "not comparable", "", "", "", "", ""])
            continue
        single, full = one["summary"][LATENCY], one["summary"][FULL]
        rows.append(
            [
                one["name"],
                _text(single["p50_us"], 0),
                _text(single["p99_us"], 0),
                _text(full["rate_per_s"], 0),
                f"{full['controller_cpu_us_per_flow']['median']:.1f}",
                f"{full['switch_busy']['median']:.0%}",
                f"{one['samples_verified']}",
            ]
        )
    print()
    print(table(["", "p50 us", "p99 us", "flows/s", "CPU us/flow", "busy", "checked"], rows))
    for one in result["contenders"]:
        for fault in one["faults"]:
            print(f"{one['name']}: {fault}")
    if result["ratios"]:
        print()
    for pair in result["ratios"]:
        print(
            f"{pair['ours']} / {pair['theirs']}: rate x {_text(pair['rate'], 2)}, "
            f"p50 x {_text(pair['latency_p50'], 2)}"
        )


def _text(spread: dict[str, float], digits: int) -> str:
    return Spread(spread["median"], spread["low"], spread["high"]).text(digits)


def parse_arguments(arguments: list[str] | None) -> tuple[Parameters, Path | None]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.setup_rate", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rules", type=int, default=1_000, help="security rules per port (1000)")
    parser.add_argument("--neighbors", type=int, default=100_000, help="in the store (100000)")
    parser.add_argument(
        "--working-set", type=int, default=1_000, help="known destinations in use (1000)"
    )
    parser.add_argument("--match", choices=("service", "connection"), default="service")
    parser.add_argument("--seconds", type=float, help="at most, for one phase (1.5; quick: 0.5)")
    parser.add_argument("--flows", type=int, default=NEW_FLOWS, help="at most, in one run (75000)")
    parser.add_argument("--repetitions", type=int, help="(5; quick: 2)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of flows (1)")
    parser.add_argument("--quick", action="store_true", help="under 40 s, with fewer phases")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    options = parser.parse_args(arguments)
    parameters = Parameters(
        rules=options.rules,
        neighbors=options.neighbors,
        match=options.match,
        seconds=options.seconds or (0.5 if options.quick else 1.5),
        repetitions=options.repetitions or (2 if options.quick else 5),
        working_set=options.working_set,
        flows=options.flows,
        quick=options.quick,
        seed=options.seed,
    )
    if not 0.05 <= parameters.seconds <= 60 or not 1 <= parameters.repetitions <= 100:
        parser.error("--seconds must be in 0.05..60 and --repetitions in 1..100")
    if parameters.flows < 100 or parameters.working_set < 1:
        parser.error("--flows must be at least 100 and --working-set at least 1")
    try:
        VpcSize(PORTS, parameters.rules, parameters.neighbors).check()
    except ValueError as error:
        parser.error(str(error))
    return parameters, options.json


def main(arguments: list[str] | None = None) -> int:
    """0: measured; 1: some controller's answers were wrong; 2: it could not be measured."""
    parameters, json_file = parse_arguments(arguments)
    try:
        result = measure(parameters)
    except (BuildError, RunError, AnswerError) as error:
        print(f"setup_rate: {error}", file=sys.stderr)
        return 2
    print_result(result)
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if any(one["faults"] for one in result["contenders"]) else 0


if __name__ == "__main__":
    sys.exit(main())
