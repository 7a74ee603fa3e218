"""How soon a host serves after its start, in a VPC of up to a million neighbors, through real Open vSwitch.

One compute host with two VMs (``cold_start_lab``). Its agent is killed, again and again, and another one starts:

* ``boot``: the host has come up. ovs-vswitchd is a new process without any rule, and nothing is saved;
* ``saved``: only the agent has ended. It finds what the killed one held, and its rules in the switch;
* ``fresh``: it finds the rules only (the file of what was held is removed, as ``ondemand run --fresh`` does).

Meanwhile the first VM begins a new flow to the other one every 10 ms. What is told is the time from the
start of the agent's process to the first of them that is answered. After ``boot`` it also sends to the last
neighbor of the VPC, and when that has answered, to all of its peers, which are spread over the VPC, 2,500 a
second: the host is in full service when each of them has answered.

The contender ``expanded`` preloads: on the same host, with ovs-vswitchd as new and as empty, it writes the rules
of both ports, then one rule for each neighbor. What it has to send is in a file beforehand, as OpenFlow messages in
bundles of 10,000 (``preload``), and no process has to start for it. The same VM's eyes watch it.

    python -m benchmarks.cold_start [--source sqlite|nats|both] [--neighbors N,N,...] [--quick] [--json FILE]   (root)
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, get_args

from benchmarks.cold_start_lab import (
    ADOPTED_S,
    AGENT,
    EXPANDED,
    MAX_NEIGHBORS,
    PRELOADED_S,
    SERVICE_S,
    ColdLab,
    seen,
)
from benchmarks.command_line import rising, say
from benchmarks.expanded import BRIDGE as EXPANDED_BRIDGE
from benchmarks.machine import describe_machine, machine_line
from benchmarks.preload import no_room
from benchmarks.summary import Spread, table
from mininet_topos.errors import LabError
from mininet_topos.lab_source import SourceKind, require_source

BOOT: Final = "boot"
#: In the order in which they take turns; each finds what the one before has left.
MODES: Final = (BOOT, "saved", "fresh")
#: A new flow shall be served within so many seconds of the start of the process.
PROMISE_S: Final = 1.0
#: From here on all neighbors are preloaded once only: it takes many seconds.
ONCE_FROM: Final = 500_000
#: Seconds between a kill and a start; and from a VM's first datagram to what it waits for.
DOWN_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a run depends on beside the machine; ``in_use`` at most, where the VPC has fewer."""

    neighbors: tuple[int, ...]
    in_use: int
    repetitions: int

    def used(self, neighbors: int) -> int:
        return min(self.in_use, neighbors)


@dataclass(frozen=True, slots=True)
class Start:
    """One start of an agent. Seconds are from the start of its process.

    Attributes:
        mode: one of ``MODES``.
        served_s: until the first new flow between the VMs was answered.
        last_s: until the last neighbor of the VPC had answered; None: not ``boot``.
        full_s: until all neighbors in use had answered; None: not ``boot``.
        told_s: until its status said that the switch is connected and both ports are served.
        adopted_s: until all rules that it found were judged.
        rss_mib: of the agent, after all that.
        switch_rss_mib: of ovs-vswitchd then.
        switch_before_mib: of ovs-vswitchd before the start.
        rules: in the agent's bridge then.
        received_bytes: what came from the server until then; None: not from a server.
    """

    mode: str
    served_s: float
    last_s: float | None
    full_s: float | None
    told_s: float
    adopted_s: float
    rss_mib: float
    switch_rss_mib: float
    switch_before_mib: float
    rules: int
    neighbors_held: int
    rules_kept: int
    rules_deleted: int
    received_bytes: int | None


@dataclass(frozen=True, slots=True)
class Preloaded:
    """One time that all neighbors were preloaded. Fields as of ``Start``, seconds from its first command.

    Attributes:
        written_s: until the switch had taken all rules.
    """

    neighbors: int
    served_s: float
    last_s: float
    full_s: float
    written_s: float
    switch_rss_mib: float
    switch_before_mib: float
    rules: int


def measure(parameters: Parameters, kind: SourceKind, *, preloads: bool) -> dict[str, Any]:
    """Build the lab, and measure each size of the VPC."""
    sources: list[dict[str, Any]] = []
    preloaded: list[Preloaded] = []
    left_out: list[dict[str, Any]] = []
    with ColdLab(kind, modes=len(MODES)) as lab:
        lab.prepare()
        for neighbors in parameters.neighbors:
            lab.resize(neighbors)
            reason = no_room(neighbors) if preloads else ""
            if preloads and reason:
                left_out.append({"neighbors": neighbors, "reason": reason})
                say(f"{EXPANDED}, {neighbors:,} neighbors: left out, {reason}")
            elif preloads:
                lab.write_rules()
            in_use = parameters.used(neighbors)
            starts = []
            for number in range(parameters.repetitions):
                if preloads and not reason and (number == 0 or neighbors < ONCE_FROM):
                    preloaded.append(_preload(lab, in_use))
                    say(f"{EXPANDED}, {neighbors:,}: {preloaded[-1].full_s:.2f} s")
                for mode in MODES:
                    starts.append(_start(lab, mode, in_use))
                    say(f"{kind}, {mode}, {neighbors:,}: {starts[-1].served_s:.2f} s")
            lab.remove_rules()
            sources.append(
                {
                    "source": kind,
                    "neighbors": neighbors,
                    "publish_s": lab.publish_s,
                    "starts": [asdict(one) for one in starts],
                }
            )
        errors = lab.agent.errors()
    if errors:
        raise LabError("an agent said: " + errors[0])
    return {
        "sources": sources,
        "expanded": [asdict(one) for one in preloaded],
        "left_out": left_out,
    }


def _preload(lab: ColdLab, in_use: int) -> Preloaded:
    """Bring the host up, and write all rules."""
    host = lab.host(1)
    lab.reboot()
    before = host.memory_kib() / 1024
    traffic = lab.traffic(EXPANDED, far=in_use)
    time.sleep(DOWN_S)
    start_s = time.monotonic()
    written_s = lab.preload() - start_s
    found = seen(traffic, timeout_s=PRELOADED_S + 10)
    if found.served_s < start_s or found.last_s is None or found.all_s is None:
        raise LabError("a flow was served while the switch had no rule")
    return Preloaded(
        neighbors=lab.neighbors,
        served_s=found.served_s - start_s,
        last_s=found.last_s - start_s,
        full_s=found.all_s - start_s,
        written_s=written_s,
        switch_rss_mib=host.memory_kib() / 1024,
        switch_before_mib=before,
        rules=host.rule_count(EXPANDED_BRIDGE),
    )


def _start(lab: ColdLab, mode: str, in_use: int) -> Start:
    """Take down what the kind of start says, and time the next agent."""
    agent, host = lab.agent, lab.host(1)
    if mode == BOOT:
        lab.reboot()
    else:
        agent.process.kill()
    if mode != "saved":
        lab.forget()
    before = host.memory_kib() / 1024
    traffic = lab.traffic(AGENT, part=MODES.index(mode), far=in_use if mode == BOOT else 0)
    time.sleep(DOWN_S)
    received = lab.received_bytes()
    start_s = time.monotonic()
    lab.start_agent(1)
    told_s = lab.wait_until_served() - start_s
    adopted_s = agent.wait_adopted(timeout_s=ADOPTED_S)
    if adopted_s is None:
        raise LabError(f"the agent has not judged all rules within {ADOPTED_S:g} s")
    found = seen(traffic, timeout_s=SERVICE_S + 10)
    if found.served_s < start_s:
        raise LabError("a new flow was served while no agent ran")
    status = _settled(lab, in_use)
    received_after = lab.received_bytes()
    counters = status["counters"]
    return Start(
        mode=mode,
        served_s=found.served_s - start_s,
        last_s=None if found.last_s is None else found.last_s - start_s,
        full_s=None if found.all_s is None else found.all_s - start_s,
        told_s=told_s,
        adopted_s=adopted_s - start_s,
        rss_mib=agent.memory_mib(),
        switch_rss_mib=host.memory_kib() / 1024,
        switch_before_mib=before,
        rules=host.rule_count(),
        neighbors_held=status["neighbors_held"],
        rules_kept=sum(counters.get("adopted.kept", {}).values()),
        rules_deleted=sum(counters.get("adopted.deleted", {}).values()),
        received_bytes=None if received is None else (received_after or 0) - received,
    )


def _settled(lab: ColdLab, in_use: int) -> dict[str, Any]:
    """The status of an agent that holds all neighbors in use, as the next one is to find them."""
    end_s = time.monotonic() + ADOPTED_S
    while time.monotonic() < end_s:
        status = lab.agent.status
        if status.get("neighbors_held", 0) >= in_use:
            return status
        time.sleep(0.05)
    held = lab.agent.status.get("neighbors_held", 0)
    raise LabError(f"the agent holds {held} of the {in_use} neighbors in use")


def print_result(result: dict[str, Any]) -> None:
    print(machine_line(result["machine"]))
    parameters = result["parameters"]
    print(
        f"{parameters['in_use']:,} neighbors in use; {parameters['repetitions']} starts of each kind"
        f" ({EXPANDED}: one from {ONCE_FROM:,} neighbors on): median (least-greatest)"
    )
    print()
    print(table(_HEAD, [*map(_source_row, _by_mode(result)), *_expanded_rows(result)]))
    print()
    for one in result["left_out"]:
        print(f"{EXPANDED}, {one['neighbors']:,} neighbors: left out, {one['reason']}")
    for source in result["sources"]:
        print(
            f"{source['neighbors']:,} neighbors published into {source['source']}"
            f" in {source['publish_s']:.2f} s"
        )
    slowest = max(one["served_s"] for source in result["sources"] for one in source["starts"])
    word = "kept" if slowest <= PROMISE_S else "not kept"
    print(f"a new flow served within {PROMISE_S:g} s of the start: {word}, {slowest:.2f} s at most")


_HEAD: Final = (
    "neighbors, contender",
    "first packet s",
    "last neighbor s",
    "full service s",
    "status s",
    "all judged s",
    "rules",
    "agent MiB",
    "switch MiB",
    "it grew",
    "received KiB",
)


def _by_mode(result: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    return [
        (
            f"{source['neighbors']:,}, {source['source']}, {mode}",
            [one for one in source["starts"] if one["mode"] == mode],
        )
        for source in result["sources"]
        for mode in MODES
    ]


def _source_row(found: tuple[str, list[dict[str, Any]]]) -> list[str]:
    name, starts = found
    times = ("served_s", "last_s", "full_s", "told_s", "adopted_s")
    received = [one["received_bytes"] for one in starts]
    return [
        name,
        *(_seconds([one[field] for one in starts]) for field in times),
        f"{max(one['rules'] for one in starts):,}",
        _median([one["rss_mib"] for one in starts]),
        *_of_switch(starts),
        "-" if None in received else f"{statistics.median(received) / 1024:,.1f}",
    ]


def _expanded_rows(result: dict[str, Any]) -> list[list[str]]:
    rows = []
    for neighbors in dict.fromkeys(one["neighbors"] for one in result["expanded"]):
        some = [one for one in result["expanded"] if one["neighbors"] == neighbors]
        rows.append(
            [
                f"{neighbors:,}, {EXPANDED}",
                *(
                    _seconds([one[field] for one in some])
                    for field in ("served_s", "last_s", "full_s")
                ),
                *("-", "-", f"{some[0]['rules']:,}", "-"),
                *_of_switch(some),
                "-",
            ]
        )
    return rows


def _of_switch(some: list[dict[str, Any]]) -> list[str]:
    grew = [one["switch_rss_mib"] - one["switch_before_mib"] for one in some]
    return [_median([one["switch_rss_mib"] for one in some]), _median(grew)]


def _seconds(values: Sequence[float | None]) -> str:
    found = [value for value in values if value is not None]
    return Spread.of(found).text(2) if found else "-"


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):,.0f}"


def main(arguments: list[str] | None = None) -> int:
    """0: measured; 2: it could not be."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cold_start", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--source", choices=(*get_args(SourceKind), "both"), default="both")
    parser.add_argument(
        "--neighbors",
        type=rising("1000,10000"),
        metavar="N,N,...",
        help="in the VPC (1000,10000,100000,1000000; quick: 1000,20000)",
    )
    parser.add_argument("--in-use", type=int, metavar="N", help="of them in use (1000; quick: 200)")
    parser.add_argument(
        "--repetitions", type=int, metavar="N", help="of each kind of start (3; quick: 1)"
    )
    parser.add_argument(
        "--agent-only", action="store_true", help=f"without the contender {EXPANDED}"
    )
    parser.add_argument("--quick", action="store_true", help="about half a minute for one source")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    options = parser.parse_args(arguments)
    quick = options.quick
    sizes = (1_000, 20_000) if quick else (1_000, 10_000, 100_000, 1_000_000)
    parameters = Parameters(
        neighbors=options.neighbors or sizes,
        in_use=(200 if quick else 1_000) if options.in_use is None else options.in_use,
        repetitions=(1 if quick else 3) if options.repetitions is None else options.repetitions,
    )
    largest = parameters.neighbors[-1]
    for name, value, high in (
        ("neighbors", parameters.neighbors[0], MAX_NEIGHBORS),
        ("neighbors", largest, MAX_NEIGHBORS),
        ("in-use", parameters.in_use, min(largest, 20_000)),
        ("repetitions", parameters.repetitions, 40),
    ):
        if not 1 <= value <= high:
            parser.error(f"--{name}: {value} is not in 1..{high}")
    kinds = get_args(SourceKind) if options.source == "both" else (options.source,)
    machine = describe_machine()
    found: dict[str, list[Any]] = {"sources": [], "expanded": [], "left_out": []}
    try:
        for kind in kinds:
            require_source(kind)
        for kind in kinds:
            # What is preloaded has no source.
            preloads = not options.agent_only and kind == kinds[0]
            for name, values in measure(parameters, kind, preloads=preloads).items():
                found[name] += values
    except LabError as error:
        print(f"cold_start: {error}", file=sys.stderr)
        return 2
    result = {
        "benchmark": "cold_start",
        "machine": machine,
        "parameters": asdict(parameters),
        "promise_s": PROMISE_S,
        **found,
    }
    print_result(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
