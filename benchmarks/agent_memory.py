"""How much memory the agent takes, with many neighbors in its store and some of them in use.

One agent process after another gets a store of another size, and traffic to so many of its neighbors
that all records are fetched and all rules made; then its resident memory is read. What is in the store
must not count, what is in use must count little.

    python -m benchmarks.agent_memory [--neighbors N,N,...] [--in-use N,N,...] [--repetitions N]
                                      [--quick] [--json FILE]
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
from benchmarks.controllers import Contender, Cores
from benchmarks.flow_plan import make_plan
from benchmarks.machine import describe_machine, machine_line
from benchmarks.native_build import BuildError
from benchmarks.summary import Spread, table
from benchmarks.switch_run import Phase, RunError, run_switch
from benchmarks.vpc import VpcSize

PORTS: Final = 16
RULES: Final = 1_000
#: New flows to each neighbor in use, each to another of its ports.
FLOWS_EACH: Final = 4
#: The agent of a host with 1,000 neighbors in use shall stay below.
TARGET_MIB: Final = 100


@dataclass(frozen=True, slots=True)
class Sample:
    """Resident memory of agent processes, MiB, and what was in each; ``rss_mib`` is the median."""

    neighbors_in_store: int
    neighbors_in_use: int
    flows: int
    rules: int
    rss_mib: float
    spread: Spread


def measure(
    stores: list[int], in_use: list[int], flows_each: int, repetitions: int = 1
) -> dict[str, Any]:
    """The first store is measured with each number in use, the others with the first number."""
    samples = []
    with tempfile.TemporaryDirectory(prefix="ondemand-bench-") as directory:
        place = Path(directory)
        for neighbors in stores:
            size = VpcSize(PORTS, RULES, neighbors)
            store = place / f"{neighbors}.db"
            print(f"publishing {neighbors:,} neighbors", file=sys.stderr)
            vpc.publish(store, size)
            wanted = in_use if neighbors == stores[0] else in_use[:1]
            samples += [
                _sample(store, size, used, flows_each, place, repetitions)
                for used in wanted
                if used <= neighbors
            ]
    return {
        "benchmark": "agent_memory",
        "machine": describe_machine(),
        "parameters": {
            "ports": PORTS,
            "rules": RULES,
            "flows_per_neighbor": flows_each,
            "repetitions": repetitions,
        },
        "target_mib": TARGET_MIB,
        "samples": [asdict(sample) for sample in samples],
    }


def _sample(
    store: Path, size: VpcSize, used: int, flows_each: int, place: Path, repetitions: int
) -> Sample:
    flows = used * flows_each
    plan = make_plan(store, size, destinations=used, flows=flows)
    plan_file = place / f"{size.neighbors}-{used}.plan"
    plan.write(plan_file)
    agent = Contender(
        "agent", "", "service", controllers.agent(store, PORTS, "service", whole=True)
    )
    phases = [Phase("all", 64, flows, 60.0)]
    taken = []
    for number in range(repetitions):
        here = place / f"{size.neighbors}-{used}-{number}"
        here.mkdir()
        run = run_switch(agent, plan_file, phases, Cores.of_this_machine(), here, flows)
        if run.faults:
            raise RunError("the agent's answers were wrong: " + "; ".join(run.faults))
        taken.append(run.controller_rss_mib)
        print(f"{size.neighbors:,} in store, {used:,} in use: {taken[-1]} MiB", file=sys.stderr)
    rules = run.counts["verdicts"] + run.counts["locations"]
    spread = Spread.of(taken)
    return Sample(size.neighbors, used, flows, rules, spread.median, spread)


def print_result(result: dict[str, Any]) -> None:
    print(machine_line(result["machine"]))
    rows = [
        [
            f"{sample['neighbors_in_store']:,}",
            f"{sample['neighbors_in_use']:,}",
            f"{sample['rules']:,}",
            Spread(**sample["spread"]).text(1),
        ]
        for sample in result["samples"]
    ]
    print()
    print(table(["neighbors in store", "in use", "rules", "RSS MiB"], rows))


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main(arguments: list[str] | None = None) -> int:
    """0: measured; 2: it could not be."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.agent_memory", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--neighbors",
        type=_numbers,
        metavar="N,N,...",
        help="neighbors in the store (100000,1000,10000)",
    )
    parser.add_argument(
        "--in-use",
        type=_numbers,
        metavar="N,N,...",
        help="of them in use; all but the first only with the first store (1000,10000)",
    )
    parser.add_argument(
        "--repetitions", type=int, metavar="N", help="agent processes for each row (3; quick: 2)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rows and repetitions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    options = parser.parse_args(arguments)
    stores = options.neighbors or ([100_000, 1_000] if options.quick else [100_000, 1_000, 10_000])
    in_use = options.in_use or ([1_000] if options.quick else [1_000, 10_000])
    repetitions = options.repetitions or (2 if options.quick else 3)
    try:
        for neighbors in stores:
            VpcSize(PORTS, RULES, neighbors).check()
    except ValueError as error:
        parser.error(str(error))
    if min(in_use) < 1:
        parser.error("--in-use: at least 1")
    if not 1 <= repetitions <= 50:
        parser.error("--repetitions is in 1..50")
    try:
        result = measure(stores, in_use, FLOWS_EACH, repetitions)
    except (BuildError, RunError) as error:
        print(f"agent_memory: {error}", file=sys.stderr)
        return 2
    print_result(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
