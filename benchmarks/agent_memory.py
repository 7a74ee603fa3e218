"""How much memory the agent takes: by what is in the store, and by what it holds.

One agent process after another gets a store, and traffic to some of its neighbors, so that their records are
fetched and all rules made; then its resident memory is read. Straight lines through that tell what one of a kind
takes (``fit``), each process a point:

* a neighbor in the store: the same ones in use each time, with stores of more and more neighbors. It must not count;
* a slice of neighbors: as many in use each time, drawn by lot from the whole of these stores, so that they are in
  more and more slices, of which the agent follows each that it holds something of;
* a rule: as many neighbors in use each time, with more and more flows to each, every flow a verdict rule;
* a neighbor that is held: more and more of them in use; of what each adds, the rules that come with it (a verdict
  for each flow to it, and its location) are taken away again;
* a parked packet: the source does not answer, and more and more packets wait, each for a record of its own
  (``parked_process``). The packet is a SYN of 74 bytes; a longer one takes as much more as it is longer.

    python -m benchmarks.agent_memory [--neighbors N,N,...] [--in-use N,N,...] [--flows N,N,...] [--parked N,N,...]
                                      [--repetitions N] [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import controllers, vpc
from benchmarks.command_line import say
from benchmarks.controllers import Contender, Cores
from benchmarks.fit import Fit
from benchmarks.flow_plan import make_plan
from benchmarks.machine import describe_machine, machine_line
from benchmarks.native_build import BuildError
from benchmarks.parked_run import fill
from benchmarks.summary import Spread, table
from benchmarks.switch_run import Phase, RunError, run_switch
from benchmarks.vpc import VpcSize
from ondemand.slices import neighbor_slice

PORTS: Final = 16
RULES: Final = 1_000
#: New flows to each neighbor in use, each to another of its ports, where nothing else is said.
FLOWS_EACH: Final = 4
#: The agent of a host with 1,000 neighbors in use shall stay below.
TARGET_MIB: Final = 100
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a run depends on beside the machine. The first of each list goes with the lists beside it."""

    stores: tuple[int, ...]
    in_use: tuple[int, ...]
    flows: tuple[int, ...]
    parked: tuple[int, ...]
    repetitions: int


@dataclass(frozen=True, slots=True)
class Sample:
    """Agent processes with one load, and the resident memory of each, MiB; ``rss_mib`` is the median.

    Those in use were drawn from the first ``drawn_from`` in the store, and are in so many ``slices``.
    """

    neighbors_in_store: int
    neighbors_in_use: int
    drawn_from: int
    slices: int
    flows_each: int
    flows: int
    rules: int
    rss_mib: float
    all_mib: tuple[float, ...]
    spread: Spread


@dataclass(frozen=True, slots=True)
class Parked:
    """Agent processes with so many packets that wait, as ``Sample``."""

    packets: int
    rss_mib: float
    all_mib: tuple[float, ...]
    spread: Spread


@dataclass(frozen=True, slots=True)
class Slope:
    """What one of a kind takes.

    Attributes:
        what: of what.
        each_bytes: what one takes.
        error_bytes: its standard error.
        residual_mib: standard deviation of the processes from the line.
        low, high: of how many to how many.
        points: processes.
    """

    what: str
    each_bytes: float
    error_bytes: float
    residual_mib: float
    low: int
    high: int
    points: int


IN_STORE, HELD = "neighbor in the store", "neighbor held"
SLICE = "slice of neighbors followed"
RULE, PARKED = "rule", "parked packet"


class Bench:
    """Agents with one load after another; a load that was measured is not measured again."""

    def __init__(self, place: Path, repetitions: int) -> None:
        self._place = place
        self._repetitions = repetitions
        self._stores: dict[int, Path] = {}
        self._samples: dict[tuple[int, int, int, int], Sample] = {}

    def sample(
        self, neighbors: int, used: int, flows_each: int = FLOWS_EACH, *, drawn_from: int = 0
    ) -> Sample:
        """``drawn_from`` 0: from the whole store."""
        load = (neighbors, used, flows_each, drawn_from or neighbors)
        if load not in self._samples:
            self._samples[load] = self._measure(*load)
        return self._samples[load]

    def parked(self, neighbors: int, packets: int) -> Parked:
        size = VpcSize(PORTS, RULES, neighbors)
        plan_file = self._place / f"parked-{packets}.plan"
        store = self._store(neighbors)
        make_plan(store, size, destinations=packets, flows=packets + 1).write(plan_file)
        taken = []
        for number in range(self._repetitions):
            here = self._place / f"parked-{packets}-{number}"
            here.mkdir()
            taken.append(fill(store, plan_file, here, ports=PORTS, packets=packets))
            say(f"{packets:,} parked: {taken[-1]} MiB")
        spread = Spread.of(taken)
        return Parked(packets, spread.median, tuple(taken), spread)

    def _store(self, neighbors: int) -> Path:
        if neighbors not in self._stores:
            say(f"publishing {neighbors:,} neighbors")
            store = self._place / f"{neighbors}.db"
            vpc.publish(store, VpcSize(PORTS, RULES, neighbors))
            self._stores[neighbors] = store
        return self._stores[neighbors]

    def _measure(self, neighbors: int, used: int, flows_each: int, drawn_from: int) -> Sample:
        store, flows = self._store(neighbors), used * flows_each
        size = VpcSize(PORTS, RULES, drawn_from)
        name = f"{neighbors}-{used}-{flows_each}-{drawn_from}"
        plan_file = self._place / f"{name}.plan"
        plan = make_plan(store, size, destinations=used, flows=flows)
        plan.write(plan_file)
        slices = len({neighbor_slice(vpc.VPC, one.ip) for one in plan.neighbors})
        agent = Contender(
            "agent", "", "service", controllers.agent(store, PORTS, "service", whole=True)
        )
        phases = [Phase("all", 64, flows, 60.0)]
        taken = []
        for number in range(self._repetitions):
            here = self._place / f"{name}-{number}"
            here.mkdir()
            run = run_switch(agent, plan_file, phases, Cores.of_this_machine(), here, flows)
            if run.faults:
                raise RunError("the agent's answers were wrong: " + "; ".join(run.faults))
            taken.append(run.controller_rss_mib)
            say(
                f"{neighbors:,} in store, {used:,} of {drawn_from:,} in use, {flows_each} flows each:"
                f" {taken[-1]} MiB"
            )
        rules = run.counts["verdicts"] + run.counts["locations"]
        spread = Spread.of(taken)
        return Sample(
            neighbors_in_store=neighbors,
            neighbors_in_use=used,
            drawn_from=drawn_from,
            slices=slices,
            flows_each=flows_each,
            flows=flows,
            rules=rules,
            rss_mib=spread.median,
            all_mib=tuple(taken),
            spread=spread,
        )


def measure(parameters: Parameters) -> dict[str, Any]:
    """All loads, and the lines through them."""
    machine = describe_machine()
    store, used = parameters.stores[0], parameters.in_use[0]
    with tempfile.TemporaryDirectory(prefix="ondemand-bench-") as directory:
        bench = Bench(Path(directory), parameters.repetitions)
        in_stores = [bench.sample(one, used) for one in parameters.stores]
        the_same = [bench.sample(one, used, drawn_from=used) for one in parameters.stores]
        by_use = [bench.sample(store, one) for one in parameters.in_use]
        by_flows = [bench.sample(store, used, each) for each in parameters.flows]
        parked = [bench.parked(store, packets) for packets in parameters.parked]
    rule = _slope(RULE, [(one.rules, one.all_mib) for one in by_flows])
    slopes = [
        _slope(IN_STORE, [(one.neighbors_in_store, one.all_mib) for one in the_same]),
        _slope(SLICE, [(one.slices, one.all_mib) for one in in_stores]),
        _held([(one.neighbors_in_use, one.all_mib) for one in by_use], rule),
        rule,
        _slope(PARKED, [(one.packets, one.all_mib) for one in parked]),
    ]
    return {
        "benchmark": "agent_memory",
        "machine": machine,
        "parameters": {
            "ports": PORTS,
            "rules": RULES,
            "flows_per_neighbor": FLOWS_EACH,
            **asdict(parameters),
        },
        "target_mib": TARGET_MIB,
        "samples": [asdict(one) for one in (*in_stores, *by_use[1:])],
        "the_same": [asdict(one) for one in the_same],
        "by_flows": [asdict(one) for one in by_flows],
        "parked": [asdict(one) for one in parked],
        "slopes": [asdict(one) for one in slopes if one is not None],
    }


def _slope(what: str, found: Sequence[tuple[int, Sequence[float]]]) -> Slope | None:
    """None: there are too few points for a line with its errors."""
    points = [(float(x), mib) for x, taken in found for mib in taken]
    places = sorted({x for x, _ in found})
    if len(places) < 2 or len(points) < 3:
        return None
    line = Fit.of(points)
    return Slope(
        what,
        round(line.slope * _MIB, 2),
        round(line.error * _MIB, 2),
        round(line.residual, 2),
        places[0],
        places[-1],
        line.points,
    )


def _held(found: Sequence[tuple[int, Sequence[float]]], rule: Slope | None) -> Slope | None:
    """What a neighbor takes without the rules that come with it."""
    both = _slope(HELD, found)
    if both is None or rule is None:
        return None
    rules = FLOWS_EACH + 1
    return Slope(
        HELD,
        round(both.each_bytes - rules * rule.each_bytes, 2),
        round((both.error_bytes**2 + (rules * rule.error_bytes) ** 2) ** 0.5, 2),
        both.residual_mib,
        both.low,
        both.high,
        both.points,
    )


def print_result(result: dict[str, Any]) -> None:
    print(machine_line(result["machine"]))
    rows = [
        [
            f"{sample['neighbors_in_store']:,}",
            f"{sample['neighbors_in_use']:,}",
            f"{sample['slices']:,}",
            f"{sample['rules']:,}",
            Spread(**sample["spread"]).text(1),
        ]
        for sample in (*result["samples"], *result["the_same"], *result["by_flows"])
    ]
    print()
    print(table(["neighbors in store", "in use", "in slices", "rules", "RSS MiB"], rows))
    print()
    rows = [[f"{one['packets']:,}", Spread(**one["spread"]).text(1)] for one in result["parked"]]
    print(table(["parked packets", "RSS MiB"], rows))
    print()
    rows = [
        [
            one["what"],
            f"{one['each_bytes']:,.1f}",
            f"{one['error_bytes']:,.1f}",
            f"{one['residual_mib']:.2f}",
            f"{one['low']:,}-{one['high']:,}",
            str(one["points"]),
        ]
        for one in result["slopes"]
    ]
    head = ["each", "bytes", "standard error", "residual MiB", "of how many", "processes"]
    print(table(head, rows))
    print()
    for sentence in _promises(result):
        print(sentence)


def _promises(result: dict[str, Any]) -> list[str]:
    """What is to hold, and whether it did."""
    found = []
    for one in result["slopes"]:
        if one["what"] == IN_STORE:
            grew_mib = one["each_bytes"] * (one["high"] - one["low"]) / _MIB
            word = "beyond" if abs(one["each_bytes"]) > 2 * one["error_bytes"] else "within"
            found.append(
                f"by the line memory grows by {grew_mib:.2f} MiB from {one['low']:,} to {one['high']:,}"
                f" neighbors in the store, {word} the noise (two standard errors of its slope);"
                f" processes with one load are {one['residual_mib']:.2f} MiB off the line"
            )
    few = [one for one in result["samples"] if one["neighbors_in_use"] <= 1_000]
    if few:
        most = max(one["spread"]["high"] for one in few)
        found.append(
            f"below {result['target_mib']} MiB with 1,000 neighbors in use:"
            f" {'kept' if most < result['target_mib'] else 'not kept'}, {most:.1f} MiB at most"
        )
    return found


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = (0,)
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no list of numbers such as 1000,10000")
    return numbers


def main(arguments: list[str] | None = None) -> int:
    """0: measured; 2: it could not be."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.agent_memory", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--neighbors",
        type=_numbers,
        metavar="N,N,...",
        help="neighbors in the store (100000,1000,10000,1000000; quick: without the last two)",
    )
    parser.add_argument(
        "--in-use",
        type=_numbers,
        metavar="N,N,...",
        help="of them in use; all but the first only with the first store (1000,4000,10000)",
    )
    parser.add_argument(
        "--flows",
        type=_numbers,
        metavar="N,N,...",
        help="flows to each neighbor in use, with the first of the above (4,1,12)",
    )
    parser.add_argument(
        "--parked", type=_numbers, metavar="N,N,...", help="packets that wait (1000,4000,16000)"
    )
    parser.add_argument(
        "--repetitions", type=int, metavar="N", help="agent processes for each row (3; quick: 2)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rows and repetitions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    options = parser.parse_args(arguments)
    quick = options.quick
    stores = (100_000, 1_000) if quick else (100_000, 1_000, 10_000, 1_000_000)
    stores = options.neighbors or stores
    parked = (1_000, 8_000) if quick else (1_000, 4_000, 16_000)
    parameters = Parameters(
        stores=stores,
        in_use=options.in_use or ((1_000, 4_000) if quick else (1_000, 4_000, 10_000)),
        flows=options.flows or ((4, 1) if quick else (4, 1, 12)),
        parked=options.parked or tuple(dict.fromkeys(min(one, stores[0]) for one in parked)),
        repetitions=(2 if quick else 3) if options.repetitions is None else options.repetitions,
    )
    first = parameters.stores[0]
    try:
        for neighbors in parameters.stores:
            VpcSize(PORTS, RULES, neighbors).check()
    except ValueError as error:
        parser.error(str(error))
    for name, values in (("in-use", parameters.in_use), ("parked", parameters.parked)):
        if max(values) > first:
            parser.error(f"--{name}: {max(values)} is not in 1..{first}, the first of --neighbors")
    if parameters.in_use[0] > min(stores):
        parser.error(f"--in-use: the smallest store has {min(stores)} neighbors")
    if max(parameters.flows) > 50:
        parser.error(f"--flows: {max(parameters.flows)} is not in 1..50")
    if not 1 <= parameters.repetitions <= 50:
        parser.error("--repetitions is in 1..50")
    try:
        result = measure(parameters)
    except (BuildError, RunError) as error:
        print(f"agent_memory: {error}", file=sys.stderr)
        return 2
    print_result(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
