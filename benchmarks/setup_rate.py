"""How fast a controller sets up new flows: one at a time, and with up to 1,000 outstanding.

An OpenFlow 1.3 fake switch (in C) offers packet-ins over TCP and waits for the answers; each is the
first packet of a new flow. The agent gets them as Open vSwitch sends them after conntrack, and decides
with security groups, routing and 1,000,000 neighbors in its store. It is compared with itself on os-ken's
own dispatch, with an ordinary os-ken app and with Open vSwitch's own C controller; these two have no
policy, and get a plain packet-in for the same frames. Every answer is checked: the rules first, with the
right values, then the frame. All take turns in each repetition.

Several values in a list are cells of their own: those on the lines through the largest cell (with
``--product`` all of them). Without security rules a port has no policy and no conntrack, and only new
destinations are asked for.

    python -m benchmarks.setup_rate [--quick] [--matrix] [--seconds N] [--rules N,N,...] [--neighbors N,N,...]
                                    [--match service,connection] [--product] [--json FILE]
    python -m benchmarks.setup_rate --guard [--bound 6]     exit code 1 when it is below
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import setup_guard
from benchmarks.answer_check import AnswerError
from benchmarks.controllers import Contender, Cores
from benchmarks.machine import describe_machine
from benchmarks.native_build import BuildError
from benchmarks.setup_cells import (
    NEW_FLOWS,
    PORTS,
    Cell,
    Stores,
    main_cell,
    other_cells,
)
from benchmarks.setup_contenders import (
    AGENT_KNOWN,
    AGENT_LEAVING,
    AGENT_NEW,
    C_CONTROLLER,
    DISPATCH,
    NULL,
    QUICK_WINDOWS,
    STOCK,
    WINDOWS,
    of_main_cell,
    of_other_cell,
    phases_of,
)
from benchmarks.setup_result import (
    cell_json,
    contender_json,
    mark_lower_bounds,
    print_result,
    ratios,
)
from benchmarks.switch_run import RunError, SwitchRun, run_switch
from benchmarks.vpc import VpcSize

NEIGHBORS, QUICK_NEIGHBORS = 1_000_000, 100_000
MATRIX_RULES: Final = (0, 10, 1_000)
MATRIX_NEIGHBORS: Final = (1_000, 100_000, 1_000_000)
MATCHES: Final = ("service", "connection")


@dataclass(frozen=True, slots=True)
class Parameters:
    """Everything that a run depends on beside the machine. ``rules`` to ``match``: of the main cell."""

    rules: int
    neighbors: int
    match: str
    seconds: float
    repetitions: int
    working_set: int
    flows: int
    quick: bool
    seed: int
    other_cells: tuple[Cell, ...]

    @property
    def cell(self) -> Cell:
        return Cell(self.rules, self.neighbors, self.match)


class Bench:
    """Runs contenders, and keeps what came of it by cell and name."""

    def __init__(self, parameters: Parameters, place: Path) -> None:
        self._parameters = parameters
        self._place = place
        self._cores = Cores.of_this_machine()
        self._number = 0
        self.stores = Stores(
            place,
            flows=parameters.flows,
            working_set=parameters.working_set,
            seed=parameters.seed,
        )
        self.runs: dict[Cell, dict[str, list[SwitchRun]]] = {}
        self.verified: dict[tuple[Cell, str], int] = {}

    def run(self, cell: Cell, one: Contender, windows: tuple[int, ...], seconds: float) -> None:
        self._number += 1
        here = self._place / str(self._number)
        here.mkdir()
        planned = self.stores.planned(cell.size, one.plan)
        phases = phases_of(
            planned.plan, windows, seconds=seconds, working_set=self._parameters.working_set
        )
        flows = len(planned.plan.flows)
        run = run_switch(one, planned.file, phases, self._cores, here, flows)
        checked = planned.check.check(here / "samples", one.expect) if one.thinks else 0
        self.verified[cell, one.name] = self.verified.get((cell, one.name), 0) + checked
        self.runs.setdefault(cell, {}).setdefault(one.name, []).append(run)

    def found(self, cell: Cell, contenders: list[Contender]) -> list[dict[str, Any]]:
        return [
            contender_json(one, self.runs[cell][one.name], self.verified[cell, one.name])
            for one in contenders
        ]


def measure(parameters: Parameters) -> dict[str, Any]:
    """Run everything; the result as it goes into the JSON file."""
    machine = describe_machine()
    main = parameters.cell
    with tempfile.TemporaryDirectory(prefix="ondemand-bench-") as directory:
        bench = Bench(parameters, Path(directory))
        print(f"publishing {main}", file=sys.stderr)
        compared = of_main_cell(main, bench.stores, quick=parameters.quick)
        others = {cell: of_other_cell(cell, bench.stores) for cell in parameters.other_cells}
        windows = QUICK_WINDOWS if parameters.quick else WINDOWS
        for repetition in range(parameters.repetitions):
            turn = f"{repetition + 1}/{parameters.repetitions}"
            for one in compared:
                print(f"{turn} {one.name}", file=sys.stderr)
                bench.run(main, one, windows, parameters.seconds)
            for cell, agents in others.items():
                print(f"{turn} {cell}", file=sys.stderr)
                for one in agents:
                    bench.run(cell, one, (), parameters.seconds / 2)
    found = bench.found(main, compared)
    cells = [cell_json(cell, bench.found(cell, agents)) for cell, agents in others.items()]
    null, *rest = found
    mark_lower_bounds(null, [*rest, *(one for cell in cells for one in cell["contenders"])])
    return {
        "benchmark": "setup_rate",
        "machine": machine,
        "parameters": asdict(parameters)
        | {"ports": PORTS, "cores": asdict(Cores.of_this_machine())},
        "contenders": found,
        "ratios": ratios(rest, bench.runs[main]),
        "cells": cells,
    }


def _numbers(text: str) -> tuple[int, ...]:
    """For argparse: ``1,10,100``."""
    return tuple(int(part.replace("_", "")) for part in text.split(","))


def _matches(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    if not set(found) <= set(MATCHES):
        raise ValueError(text)
    return found


def parse_arguments(arguments: list[str] | None) -> tuple[Parameters, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.setup_rate", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rules", type=_numbers, help="security rules per port (1000)")
    parser.add_argument("--neighbors", type=_numbers, help="in the store (1000000; quick: 100000)")
    parser.add_argument("--match", type=_matches, help="service, connection or both (service)")
    parser.add_argument(
        "--matrix",
        action="store_true",
        help="0, 10 and 1,000 rules, 1,000 to 1,000,000 neighbors, both matches, where nothing else is said",
    )
    parser.add_argument(
        "--product", action="store_true", help="all cells, not only those that differ in one number"
    )
    parser.add_argument(
        "--working-set", type=int, default=1_000, help="known destinations in use (1000)"
    )
    parser.add_argument("--seconds", type=float, help="at most, for one phase (1; quick: 0.4)")
    parser.add_argument("--flows", type=int, default=NEW_FLOWS, help="at most, in one run (75000)")
    parser.add_argument("--repetitions", type=int, help="(3; quick: 2)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of flows (1)")
    parser.add_argument("--quick", action="store_true", help="under 40 s, with fewer phases")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    parser.add_argument(
        "--guard", action="store_true", help="only compare with the stock app, and with the bound"
    )
    parser.add_argument(
        "--bound", type=float, default=setup_guard.BOUND, help="of --guard (6 times as fast)"
    )
    options = parser.parse_args(arguments)
    rules = options.rules or (MATRIX_RULES if options.matrix else (1_000,))
    neighbors = options.neighbors or (
        MATRIX_NEIGHBORS if options.matrix else (QUICK_NEIGHBORS if options.quick else NEIGHBORS,)
    )
    matches = options.match or (MATCHES if options.matrix else ("service",))
    main = main_cell(rules, neighbors, matches)
    others = other_cells(rules, neighbors, matches, product=options.product)
    parameters = Parameters(
        rules=main.rules,
        neighbors=main.neighbors,
        match=main.match,
        seconds=options.seconds or (0.4 if options.quick else 1.0),
        repetitions=options.repetitions or (2 if options.quick else 3),
        working_set=options.working_set,
        flows=options.flows,
        quick=options.quick,
        seed=options.seed,
        other_cells=tuple(others),
    )
    if not 0.05 <= parameters.seconds <= 60 or not 1 <= parameters.repetitions <= 100:
        parser.error("--seconds must be in 0.05..60 and --repetitions in 1..100")
    if parameters.flows < 100 or parameters.working_set < 1:
        parser.error("--flows must be at least 100 and --working-set at least 1")
    try:
        for cell in (main, *others):
            VpcSize(PORTS, cell.rules, cell.neighbors).check()
    except ValueError as error:
        parser.error(str(error))
    return parameters, options


def main(arguments: list[str] | None = None) -> int:
    """0: measured; 1: some controller's answers were wrong, or below the bound; 2: it could not be measured."""
    parameters, options = parse_arguments(arguments)
    try:
        if options.guard:
            kept = setup_guard.guard(options.bound)
            print(kept)
            return 0 if kept.is_kept else 1
        result = measure(parameters)
    except (BuildError, RunError, AnswerError) as error:
        print(f"setup_rate: {error}", file=sys.stderr)
        return 2
    print_result(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    measured = [result, *result["cells"]]
    return 1 if any(one["faults"] for part in measured for one in part["contenders"]) else 0


__all__ = [
    "AGENT_KNOWN",
    "AGENT_LEAVING",
    "AGENT_NEW",
    "C_CONTROLLER",
    "DISPATCH",
    "NULL",
    "PORTS",
    "STOCK",
    "main",
    "measure",
    "parse_arguments",
]


if __name__ == "__main__":
    sys.exit(main())
