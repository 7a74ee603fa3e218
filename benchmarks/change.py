"""How soon a change of the goal state is effective in traffic, and how many messages the switch gets for it.

Three compute hosts with real Open vSwitch (``change_lab``). A stream of one datagram each millisecond tells
when a change is effective. Times begin with the publishing of what has changed, so they include it:

* ``moved``: a neighbor is on another host; until the first datagram that arrives there;
* ``rule added``: a security rule comes; until the first datagram of a flow that was denied;
* ``rule removed``: it goes; until the last datagram of its live flow (0: none came after the beginning);
* ``member left``: a member leaves a remote group; until the last datagram of its live flow.

The contender ``expanded`` stands on the same switches: a bridge with the rules of an agent that expands
remote groups to one rule for each member, whose difference ``ovs-ofctl --bundle`` writes. What it is and
what it is not is said in ``expanded``. Both are changed in turn, and only the one that is measured has
traffic. Times are taken with few of the group's members in use, and with all of them: an agent judges again
what it has installed for the port. How many OpenFlow messages h1 gets for each change is counted apart, with groups of several sizes,
while nothing is timed; of a member that leaves twice the second time too, because then rules of the first
time have to go.

    python -m benchmarks.change [--quick] [--source sqlite|nats] [--json FILE]   (root)
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, get_args

from benchmarks import expanded
from benchmarks.change_lab import (
    AGENTS,
    EXPANDED,
    MAX_MEMBERS,
    MEMBER,
    MOVED,
    PLACES,
    TOGGLED,
    ChangeLab,
    Entered,
    State,
)
from benchmarks.change_streams import Collector, Datagram, Messages, Stream, stream
from benchmarks.command_line import rising, say
from benchmarks.machine import describe_machine, machine_line
from benchmarks.summary import Spread, spread_text, table
from mininet_topos.errors import LabError
from mininet_topos.lab_source import SourceKind, require_source

CHANGES: Final = ("moved", "rule added", "rule removed", "member left")
AGAIN: Final = "member left again"
WHO: Final = (AGENTS, EXPANDED)
#: What is hoped for, ms; told beside what was seen, and no reason to fail.
TARGET_P50_MS: Final = 10.0
TARGET_P99_MS: Final = 50.0

PACE_S: Final = 0.001
#: How long a stream lives, or is denied, before the change.
BEFORE_S: Final = 0.05
#: No datagram for so long: the flow is cut.
QUIET_S: Final = 0.12
#: A change that is not effective by then is counted as one that never was.
LIMIT_S: Final = 5.0
#: Until an agent has sent all that a change asks for.
SETTLED_S: Final = 0.25
#: Messages of a bundle beside what is in it: open, close and commit (OpenFlow 1.4, section 7.3.9).
BUNDLE_CONTROL: Final = 3


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a run depends on beside the machine.

    ``members``: sizes of the group, for which messages are counted with all members in use. Times are of the
    last one, with as many in use as the first one has, and with all.
    """

    members: tuple[int, ...]
    repetitions: int
    source: SourceKind


@dataclass(frozen=True, slots=True)
class Change:
    """One change.

    Attributes:
        who: the contender.
        change: of ``CHANGES``.
        in_use: members of the group that the port has rules for.
        ms: until it was effective; None: it was not.
        made_ms: until the publisher, or the last command, had done its part.
        pace_ms: the longest time between two datagrams while it was looked at; what is told cannot be
            more exact.
    """

    who: str
    change: str
    in_use: int
    ms: float | None
    made_ms: float
    pace_ms: float


@dataclass(frozen=True, slots=True)
class Count:
    """What the switch of h1 got for a change.

    Attributes:
        who: the contender.
        change: of ``CHANGES``, or ``AGAIN``.
        members: of the group, those on hosts that do not exist; all are in use.
        rules: that the switch held before, all in all.
        messages: by kind: flow-mods, barriers, and what opens, closes and commits a bundle.
        packet_outs: packets that were put through the switch; they depend on traffic.
    """

    who: str
    change: str
    members: int
    rules: int
    messages: dict[str, int]
    packet_outs: int

    @property
    def total(self) -> int:
        return sum(self.messages.values())


class Bench:
    """Changes in a lab that runs, and what comes of them."""

    def __init__(self, lab: ChangeLab) -> None:
        self.lab = lab
        self.in_use = 0
        self.counts: list[Count] = []
        self._messages: Messages | None = None
        self._rules_before = 0
        self._collectors: dict[tuple[str, str], Collector] = {}
        for who in WHO:
            self._collectors[who, "web"] = Collector(lab.vm(who, "web"), (TOGGLED, MEMBER))
            for place in PLACES:
                vm = lab.vm(who, "mover", place=place)
                self._collectors[who, f"mover {place}"] = Collector(vm, (MOVED,))

    def round(self, who: str) -> list[Change]:
        """Each change once."""
        return [self._moved(who), *self._rule(who), self._member(who, CHANGES[3])]

    def resize(self, members: int, *, in_use: int) -> None:
        self.lab.resize(members, in_use=in_use)
        self.in_use = in_use

    def rounds(self, repetitions: int) -> list[Change]:
        """All changes of both contenders so many times, after once to warm up."""
        say(f"{repetitions} rounds with {self.in_use:,} members in use")
        found: list[Change] = []
        for number in range(repetitions + 1):
            # Who begins takes turns too.
            for who in WHO if number % 2 else WHO[::-1]:
                seen = self.round(who)
                found += seen if number else []
        return found

    def count(self, who: str) -> list[Count]:
        """Each change once, under traffic, for the messages only."""
        self.counts = []
        self._messages = Messages(self.lab.host(1))
        try:
            self.round(who)
            self._member(who, AGAIN)
        finally:
            self._messages.stop()
            self._messages = None
        return self.counts

    def _enter(self, who: str, state: State) -> Entered:
        if self._messages is not None:
            self._rules_before = self.lab.rule_counts()[who]
            self._messages.mark()
        return self.lab.enter(who, state)

    def _note(self, who: str, change: str, entered: Entered) -> None:
        """Count what the switch got, if that is what is looked at."""
        if self._messages is None:
            return
        time.sleep(SETTLED_S)
        if entered.messages is None:
            seen, packet_outs = self._messages.programming(), self._messages.packet_outs()
        else:
            control = BUNDLE_CONTROL if entered.messages else 0
            seen, packet_outs = {"flow_mod": entered.messages, "bundle_control": control}, 0
        rules = self._rules_before
        self.counts.append(Count(who, change, self.lab.members, rules, seen, packet_outs))

    def _moved(self, who: str) -> Change:
        state = self.lab.state(who)
        (place,) = (other for other in PLACES if other != state.place)
        here, there = (self._collectors[who, f"mover {one}"] for one in (state.place, place))
        with self._stream(who, "web", "mover", MOVED) as sent:
            self._until_live(here, MOVED)
            there.mark()
            entered = self._enter(who, replace(state, place=place))
            first = there.first_after(MOVED, entered.start_s, timeout_s=LIMIT_S)
            return self._change(who, "moved", entered, first, sent)

    def _rule(self, who: str) -> tuple[Change, Change]:
        state, came = self.lab.state(who), self._collectors[who, "web"]
        came.mark()
        with self._stream(who, "client", "web", TOGGLED) as sent:
            time.sleep(BEFORE_S)
            if came.came(TOGGLED):
                raise LabError(f"{who}: a flow passed that no rule allows")
            entered = self._enter(who, replace(state, has_rule=True))
            first = came.first_after(TOGGLED, entered.start_s, timeout_s=LIMIT_S)
            added = self._change(who, "rule added", entered, first, sent)
            self._until_live(came, TOGGLED)
            entered = self._enter(who, state)
            last = self._until_cut(came, TOGGLED, entered)
            return added, self._change(who, "rule removed", entered, last, sent)

    def _member(self, who: str, change: str) -> Change:
        state, came = self.lab.state(who), self._collectors[who, "web"]
        with self._stream(who, "leaver", "web", MEMBER) as sent:
            self._until_live(came, MEMBER)
            entered = self._enter(who, replace(state, is_member=False))
            last = self._until_cut(came, MEMBER, entered)
            left = self._change(who, change, entered, last, sent)
            self._rejoin(who, came)
        return left

    def _rejoin(self, who: str, came: Collector) -> None:
        entered = self.lab.enter(who, replace(self.lab.state(who), is_member=True))
        if came.first_after(MEMBER, entered.start_s, timeout_s=LIMIT_S) is None:
            raise LabError(f"{who}: a member that is back does not pass")

    def _stream(self, who: str, source: str, target: str, port: int) -> Any:
        address = self.lab.vm(who, target).ips[0]
        return stream(self.lab.vm(who, source), address, port, interval_s=PACE_S)

    def _until_live(self, collector: Collector, port: int) -> None:
        """Wait until the stream passes, and let it live a while."""
        collector.mark()
        if collector.first_after(port, 0.0, timeout_s=LIMIT_S) is None:
            raise LabError(f"nothing comes on port {port}, though it is allowed")
        time.sleep(BEFORE_S)

    def _until_cut(self, collector: Collector, port: int, entered: Entered) -> Datagram | None:
        try:
            return collector.last_before_silence(
                port, entered.start_s, quiet_s=QUIET_S, timeout_s=LIMIT_S
            )
        except ValueError as error:
            raise LabError(str(error)) from error

    def _change(
        self, who: str, change: str, entered: Entered, one: Datagram | None, sent: Stream
    ) -> Change:
        seconds = None if one is None else max(0.0, one.came_s - entered.start_s)
        self._note(who, change, entered)
        # The datagram after the last one tells how exact that is.
        until_s = entered.start_s + (LIMIT_S if seconds is None else seconds) + 2 * PACE_S
        pace_s = max(PACE_S, sent.latest_s(entered.start_s, until_s))
        return Change(
            who,
            change,
            self.in_use,
            ms=None if seconds is None else 1000 * seconds,
            made_ms=1000 * entered.made_s,
            pace_ms=1000 * pace_s,
        )


def measure(parameters: Parameters) -> dict[str, Any]:
    """Build the lab, count at each size of the group, and time at the last one."""
    counts: list[Count] = []
    machine = describe_machine()
    few, most = parameters.members[0], parameters.members[-1]
    with ChangeLab(parameters.source, members=most, progress=say) as lab:
        lab.prepare()
        bench = Bench(lab)
        bench.resize(most, in_use=few)
        changes = bench.rounds(parameters.repetitions)
        for members in parameters.members:
            bench.resize(members, in_use=members)
            for who in WHO:
                counts += bench.count(who)
        changes += bench.rounds(parameters.repetitions)
        command_ms = [1000 * expanded.command_s(lab.host(1)) for _ in range(5)]
        errors = [error for agent in lab.agents.values() for error in agent.errors()]
    if errors:
        raise LabError("an agent said: " + errors[0])
    return {
        "benchmark": "change",
        "machine": machine,
        "parameters": asdict(parameters),
        "targets": {"p50_ms": TARGET_P50_MS, "p99_ms": TARGET_P99_MS},
        "changes": [asdict(one) for one in changes],
        "summary": [
            _summary([one for one in changes if one.in_use == in_use], who, change)
            for in_use in sorted({few, most})
            for change in CHANGES
            for who in WHO
        ],
        "messages": [asdict(one) | {"total": one.total} for one in counts],
        "command_ms": Spread.of(command_ms).as_json(),
    }


def _summary(changes: list[Change], who: str, change: str) -> dict[str, Any]:
    """Of one kind of change under one contender; ``effective_ms`` is None when none was effective."""
    some = [one for one in changes if (one.who, one.change) == (who, change)]
    times = sorted(one.ms for one in some if one.ms is not None)
    return {
        "who": who,
        "change": change,
        "in_use": some[0].in_use,
        "never": len(some) - len(times),
        "effective_ms": Spread.of(times).as_json() if times else None,
        "p99_ms": times[min(len(times) - 1, int(0.99 * len(times)))] if times else None,
        "made_ms": Spread.of([one.made_ms for one in some]).as_json(),
        "pace_ms": max(one.pace_ms for one in some),
    }


def print_result(result: Mapping[str, Any]) -> None:
    print(machine_line(result["machine"]))
    parameters, targets = result["parameters"], result["targets"]
    print(
        f"milliseconds from the beginning of the publish, {parameters['source']};"
        f" {parameters['repetitions']} of each, a group of {parameters['members'][-1]:,}:"
        " median (least-greatest)"
    )
    rows = []
    for one in result["summary"]:
        times = one["effective_ms"]
        rows.append(
            [
                f"{one['change']}, {one['in_use']:,} in use, {one['who']}",
                spread_text(times, 1) if times else "never",
                f"{one['p99_ms']:.1f}" if times else "-",
                spread_text(one["made_ms"], 1),
                f"{one['pace_ms']:.1f}",
                str(one["never"]),
            ]
        )
    print()
    print(table(["", "effective", "p99", "published / applied", "pace at worst", "never"], rows))
    print(f"an ovs-ofctl that changes nothing: {spread_text(result['command_ms'], 1)}")
    print()
    sizes = parameters["members"]
    rows = []
    for change in (*CHANGES, AGAIN):
        for who in WHO:
            some = [
                one for one in result["messages"] if (one["who"], one["change"]) == (who, change)
            ]
            of_which = ", ".join(
                f"{number:,} {kind}" for kind, number in some[-1]["messages"].items()
            )
            rows.append([f"{change}, {who}", *(f"{one['total']:,}" for one in some), of_which])
    print(table(["messages to h1; members:", *(f"{size:,}" for size in sizes), "of which"], rows))
    for who in WHO:
        rules = [one["rules"] for one in result["messages"] if one["who"] == who]
        print(f"rules of h1, {who}: {min(rules):,} to {max(rules):,}")
    print()
    for one in result["summary"]:
        if one["who"] == AGENTS and one["effective_ms"]:
            p50, p99 = one["effective_ms"]["median"], one["p99_ms"]
            print(
                f"{one['change']}, {one['in_use']:,} in use: p50 {p50:.1f} ms ({_met(p50, targets['p50_ms'])}),"
                f" p99 {p99:.1f} ms ({_met(p99, targets['p99_ms'])})"
            )


def _met(value: float, target: float) -> str:
    return f"target {target:g} ms {'met' if value < target else 'missed'}"


def main(arguments: list[str] | None = None) -> int:
    """0: measured; 1: some change was never effective; 2: it could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.change", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--source", choices=get_args(SourceKind), default="sqlite")
    parser.add_argument(
        "--members",
        type=rising("20,200,2000", least=1, most=MAX_MEMBERS),
        metavar="N,N",
        default="20,200,2000",
        help="(20,200,2000)",
    )
    parser.add_argument("--repetitions", type=int, metavar="N", help="of each change (30)")
    parser.add_argument("--quick", action="store_true", help="5 repetitions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    options = parser.parse_args(arguments)
    repetitions = options.repetitions
    if repetitions is None:
        repetitions = 5 if options.quick else 30
    if not 1 <= repetitions <= 500:
        parser.error(f"--repetitions: {repetitions} is not in 1..500")
    try:
        require_source(options.source)
        result = measure(Parameters(options.members, repetitions, options.source))
    except LabError as error:
        print(f"change: {error}", file=sys.stderr)
        return 2
    print_result(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if any(one["never"] for one in result["summary"]) else 0


if __name__ == "__main__":
    sys.exit(main())
