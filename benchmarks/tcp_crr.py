"""TCP connections a second between two VMs, each with one request, and the throughput of one connection.

Between VMs on one host and over VXLAN: with the agents deciding, against the same rules preloaded, and
against a plain learning bridge without policy and conntrack. Contenders take turns in each round, in an
order that changes from round to round, and what a run left in a switch is removed before the next. Each run goes to a TCP port of its own, so that the agents know
nothing of it. When they match services, its first connections ask and the rules then serve all others;
when they match whole connections, every one of them asks. The preloaded rules are those of services: those of
connections name ports that a client has yet to choose.

    python -m benchmarks.tcp_crr [--quick] [--rounds N] [--seconds S] [--rules N]
                                 [--match service|connection] [--json FILE]   (root)
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, get_args

from benchmarks import tcp_result
from benchmarks.command_line import say
from benchmarks.crr import SOURCE_PORTS, ask, serving
from benchmarks.first_packet_sites import PATHS
from benchmarks.iperf import Throughput, require_iperf3, throughput
from benchmarks.machine import describe_machine, machine_line
from benchmarks.native_build import BuildError, build
from benchmarks.summary import spread_text, table
from benchmarks.tcp_result import CrrRun, Measured, load_name
from benchmarks.tcp_sites import (
    NORMAL,
    PRELOADED,
    Contender,
    Match,
    agents_name,
    hosts_needed,
    make_contenders,
)
from mininet_topos.errors import LabError
from mininet_topos.fabric import Fabric
from mininet_topos.vm import VM_MTU

#: Connections that are under way at once.
PARALLEL: Final = (1, 32)
FIRST_PORT: Final = 20_000
LOOPBACK: Final = "127.0.0.1"
MAX_ROUNDS: Final = 100
OFFLOADS: Final = (
    "off in the VMs (tx, rx, sg, tso, gso, gro), and no userspace TSO in Open vSwitch: "
    "the VM's kernel writes checksums and cuts segments"
)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a run depends on beside the machine. ``seconds``: of each run of connections."""

    rounds: int
    seconds: float
    iperf_seconds: int
    rules: int
    match: tuple[Match, ...]
    parallel: tuple[int, ...] = PARALLEL

    def port(self, number: int, load: int) -> int:
        """The TCP port of a round's load; the first port of all is for seeing that all works."""
        return FIRST_PORT + 1 + number * (len(self.parallel) + 1) + load

    @property
    def ports(self) -> range:
        return range(FIRST_PORT, self.port(self.rounds, 0))


def measure(parameters: Parameters) -> dict[str, Any]:
    """Build the sites, run all rounds; the result as it goes into the JSON file."""
    machine = describe_machine()
    for program in ("crr_client", "crr_server"):
        build(program)
    with Fabric(hosts=hosts_needed(parameters.match), progress=say) as fabric:
        contenders = make_contenders(
            fabric, parameters.match, rules=parameters.rules, ports=parameters.ports, say=say
        )
        measured = _rounds(contenders, parameters)
        memory = {
            name: one.agents.agent_rss_mib() for name, one in contenders.items() if one.agents
        }
    found = tcp_result.faults(measured)
    hit = set(found)
    return {
        "benchmark": "tcp_crr",
        "machine": machine,
        "parameters": asdict(parameters)
        | {"underlay": fabric.underlay.kind, "mtu": VM_MTU, "offloads": OFFLOADS},
        "faults": tcp_result.fault_lines(found),
        "results": tcp_result.results(measured, hit),
        "throughput": tcp_result.throughputs(measured, hit),
        "loopback": tcp_result.loopback(measured),
        "agent_rss_mib": memory,
        "ratios": tcp_result.ratios(measured, hit, parameters.match, parameters.parallel),
    }


def _rounds(contenders: Mapping[str, Contender], parameters: Parameters) -> Measured:
    names = list(contenders)
    measured = Measured(
        crr={
            (name, path, parallel): []
            for path, parallel, name in itertools.product(PATHS, parameters.parallel, names)
        },
        iperf={(name, path, 0): [] for path, name in itertools.product(PATHS, names)},
        loopback={parallel: [] for parallel in parameters.parallel},
    )
    for number in range(parameters.rounds):
        say(f"round {number + 1}/{parameters.rounds}")
        turn = number % len(names)
        order = [contenders[name] for name in (*names[turn:], *names[:turn])]
        if number % 2:
            order.reverse()
        for index, parallel in enumerate(parameters.parallel):
            port = parameters.port(number, index)
            run = _in_one_namespace(contenders[NORMAL], port, parallel, parameters)
            measured.loopback[parallel].append(run)
            for path, one in itertools.product(PATHS, order):
                run = _crr(one, path, port, parallel, parameters)
                measured.crr[one.name, path, parallel].append(run)
        port = parameters.port(number, len(parameters.parallel))
        for path, one in itertools.product(PATHS, order):
            measured.iperf[one.name, path, 0].append(_iperf(one, path, port, parameters))
    return measured


def _crr(one: Contender, path: str, port: int, parallel: int, parameters: Parameters) -> CrrRun:
    source = one.site.vms["a"]
    target, address = one.target(path)
    with serving(target, address, (port, port), core=one.core(target)) as server:
        before = one.used()
        load = ask(
            *(source, address, port),
            parallel=parallel,
            seconds=parameters.seconds,
            core=one.core(source),
        )
        after = one.used()
        served = server.end()
    one.clean_up(port)
    every = one.name == agents_name("connection")
    least = min(load.ended, SOURCE_PORTS) if every else 1
    return CrrRun(
        load,
        served,
        after.since(before, load.ended),
        switch_cpu=after.busiest_s(before) / load.seconds,
        packet_ins=after.packet_ins - before.packet_ins,
        least_packet_ins=least if one.agents else 0,
        over_meter=after.over_meter - before.over_meter,
    )


def _in_one_namespace(one: Contender, port: int, parallel: int, parameters: Parameters) -> CrrRun:
    """The same client and server without a switch between them, on one core as on the local path."""
    vm = one.site.vms["a"]
    core = one.core(vm)
    seconds = parameters.seconds / 2
    with serving(vm, LOOPBACK, (port, port), core=core) as server:
        load = ask(vm, LOOPBACK, port, parallel=parallel, seconds=seconds, core=core)
        return CrrRun(load, server.end(), {})


def _iperf(one: Contender, path: str, port: int, parameters: Parameters) -> Throughput:
    source = one.site.vms["a"]
    target, address = one.target(path)
    cores = one.core(source), one.core(target)
    seconds = parameters.iperf_seconds
    found = throughput(source, target, address, port, seconds=seconds, cores=cores)
    one.clean_up(port)
    return found


# The table --------------------------------------------------------------------------------------------


def print_result(result: dict[str, Any]) -> None:
    parameters = result["parameters"]
    print(machine_line(result["machine"]))
    print(
        f"connect, 64 bytes, 64 bytes back, closed by the server; {parameters['seconds']:g} s a run; "
        f"{parameters['rules']:,} security rules; median (least-greatest) of {parameters['rounds']} rounds"
    )
    print(f"offloads {parameters['offloads']}; MTU {parameters['mtu']}")
    print()
    _print_rates(result)
    print()
    _print_throughput(result)
    print()
    _print_costs(result)
    print()
    for pair in result["ratios"]:
        print(
            f"{pair['path']}, {pair['load']}: {pair['ours']} / {pair['theirs']} "
            f"x {_text(pair['rate'], 2)}"
        )
    for fault in result["faults"]:
        print(f"not comparable: {fault}")
    for one in result["results"]:
        if one["over_meter"]:
            print(
                f"{one['path']}, {load_name(one['parallel'])}, {one['who']}: "
                f"meters dropped {one['over_meter']:,} of {one['packet_ins']:,} packet-ins"
            )
    for who, mib in result["agent_rss_mib"].items():
        print(f"resident memory of the agents, {who}: {mib} MiB")


def _print_rates(result: dict[str, Any]) -> None:
    rows = [
        [
            f"{one['path']}, {load_name(one['parallel'])}, {one['who']}",
            *_rate_cells(one),
        ]
        for one in result["results"]
    ]
    rows += [
        [f"loopback, {load_name(one['parallel'])}, no switch", *_rate_cells(one)]
        for one in result["loopback"]
    ]
    head = ["connections", "per second", "p50 us", "p99 us", "p99.9 us", "sent again"]
    print(table(head, rows))


def _rate_cells(one: Mapping[str, Any]) -> list[str]:
    return [
        _text(one["rate_per_s"]),
        _text(one["p50_us"]),
        _text(one["p99_us"]),
        "-" if one["p999_us"] is None else f"{one['p999_us']:,.0f}",
        f"{one['retransmissions']:,}",
    ]


def _print_throughput(result: dict[str, Any]) -> None:
    rows = [
        [
            f"{one['path']}, {one['who']}",
            _text(one["mbit_per_s"]),
            f"{one['retransmissions']:,}",
            *(f"{one[side]['median']:.0%}" for side in ("sender_cpu", "receiver_cpu")),
        ]
        for one in result["throughput"]
    ]
    print(table(["iperf3", "Mbit/s", "sent again", "sender CPU", "receiver CPU"], rows))


def _print_costs(result: dict[str, Any]) -> None:
    rows = [
        [
            f"{one['path']}, {load_name(one['parallel'])}, {one['who']}",
            *(
                f"{one['each'][name]['median']:,.{digits}f}"
                for name, digits in (
                    *(("switches_us", 0), ("agents_us", 0)),
                    *(("packets", 1), ("lookups", 1), ("upcalls", 2), ("packet_ins", 2)),
                )
            ),
            *(f"{one[side]['median']:.0%}" for side in ("switch_cpu", "client_cpu", "server_cpu")),
        ]
        for one in result["results"]
    ]
    head = ["one connection takes", "switches us", "agents us", "packets", "lookups", "upcalls"]
    print(table([*head, "packet-ins", "busier switch", "client", "server"], rows))


def _text(spread: Mapping[str, float] | None, digits: int = 0) -> str:
    if spread is None:
        return "-"
    return spread_text(spread, digits)


def _matches(word: str | None) -> tuple[Match, ...]:
    known: Sequence[Match] = get_args(Match)
    return tuple(match for match in known if word in (None, match))


def main(arguments: list[str] | None = None) -> int:
    """0: measured; 1: connections failed or were not asked about; 2: it could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tcp_crr", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="(3; quick: 1)")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="of each run of connections (0.8; quick: 0.4)"
    )
    parser.add_argument("--rules", type=int, default=1_000, help="security rules per port (1000)")
    parser.add_argument(
        "--match", choices=get_args(Match), help="what the agents match (both, one after the other)"
    )
    parser.add_argument("--quick", action="store_true", help="under 40 s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    options = parser.parse_args(arguments)
    parameters = Parameters(
        rounds=(1 if options.quick else 3) if options.rounds is None else options.rounds,
        seconds=(0.4 if options.quick else 0.8) if options.seconds is None else options.seconds,
        iperf_seconds=1 if options.quick else 3,
        rules=options.rules,
        match=_matches(options.match),
    )
    if not 1 <= parameters.rounds <= MAX_ROUNDS:
        parser.error(f"--rounds: {parameters.rounds} is not in 1..{MAX_ROUNDS}")
    if not 0.1 <= parameters.seconds <= 30:
        parser.error(f"--seconds: {parameters.seconds:g} is not in 0.1..30")
    if not 1 <= parameters.rules <= 20_000:
        parser.error(f"--rules: {parameters.rules} is not in 1..20000")
    try:
        require_iperf3()
        result = measure(parameters)
    except (BuildError, LabError) as error:
        print(f"tcp_crr: {error}", file=sys.stderr)
        return 2
    print_result(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result) + "\n")
    return 1 if result["faults"] else 0


__all__ = ["NORMAL", "PRELOADED", "Parameters", "agents_name", "main", "measure"]

if __name__ == "__main__":
    sys.exit(main())
