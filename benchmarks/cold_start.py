"""How soon an agent serves after its start, in a VPC of a million neighbors, through real Open vSwitch.

One compute host with two VMs. One of them has sent to some thousand of the neighbors, so the host holds
their records and has rules for them. Then the agent is killed, again and again, and another one starts:

* ``saved``: it finds what the killed one held, and its rules in the switch;
* ``fresh``: it finds the rules only (the file of what was held is removed, as ``ondemand run --fresh`` does);
* ``boot``: it finds neither (rules are removed too), as after a reboot of the host.

Meanwhile the first VM begins a new flow to the other one every 10 ms. What is told is the time from the
start of the agent's process to the first of them that is answered, and what the process took to get there.

    python -m benchmarks.cold_start [--source sqlite|nats|both] [--neighbors N] [--quick] [--json FILE]   (root)
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, get_args

from benchmarks import touch
from benchmarks.machine import describe_machine, machine_line
from benchmarks.summary import Spread, table
from mininet_topos.agent_host import AgentError, AgentOnHost
from mininet_topos.agent_lab import AgentLab, LabPlan, PlacedVm
from mininet_topos.errors import LabError
from mininet_topos.lab_source import SourceKind, require_source
from mininet_topos.node import script
from mininet_topos.ovs_host import INTEGRATION_BRIDGE
from mininet_topos.probe import pulse, pulses, reflect
from mininet_topos.vm import VmSpec
from ondemand.addresses import format_ip, parse_prefix
from ondemand.goal_state import compile_goal_state, encode_slices
from ondemand.publishing import Payloads
from ondemand.synthetic import neighbor_slices, synthetic_neighbors

MODES: Final = ("saved", "fresh", "boot")
#: A new flow shall be served within so many seconds of the start of the process.
PROMISE_S: Final = 1.0

VPC: Final = "bench"
FAR_PREFIX: Final = "10.64.0.0/12"
#: Numbers below it are for the gateway; addresses in use are spread over all blocks.
FIRST_NEIGHBOR: Final = 16
MAX_NEIGHBORS: Final = (1 << 20) - FIRST_NEIGHBOR
#: RFC 2544 reserves 198.18.0.0/15 for benchmarks. Nobody has these, so what is sent there ends.
PEERS: Final = tuple(bytes((198, 18, 0, number)) for number in range(1, 51))

PULSE_S: Final = 0.01
FIRST_PORT: Final = 20_000
#: Ports of one run, each of them a new flow.
PORTS_A_RUN: Final = 500
#: Seconds between the kill and the start, and until all rules that were found must be judged.
DOWN_S: Final = 0.5
ADOPTED_S: Final = 30.0
#: Datagrams a second to the neighbors; below what is taken for a flood (flood_rate).
TOUCH_RATE: Final = 1_500

_SETTINGS: Final = {
    "rules": {"verdict_idle_s": 3600, "location_idle_s": 3600, "responder_idle_s": 3600},
}
_VMS: Final = {"vm-a": 11, "vm-b": 12}


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a run depends on beside the machine."""

    neighbors: int
    in_use: int
    repetitions: int


@dataclass(frozen=True, slots=True)
class Start:
    """One start of an agent.

    ``served_s``: from the start of its process to the first new flow that is answered; ``told_s``: until
    its status said that the switch is connected and both ports are served; ``adopted_s``: until all
    rules that it found were judged. ``rss_mib`` is read then, ``received_bytes`` is what came from the
    server until then (None: not from a server).
    """

    mode: str
    served_s: float
    told_s: float
    adopted_s: float
    rss_mib: float
    neighbors_held: int
    rules_kept: int
    rules_deleted: int
    received_bytes: int | None


class ColdLab(AgentLab):
    """One host, two VMs, very many neighbors."""

    def __init__(self, parameters: Parameters, kind: SourceKind) -> None:
        vms = [
            PlacedVm(
                VmSpec(name, _mac(number), (f"10.0.0.{number}/24",), ("10.0.0.1",)),
                1,
            )
            for name, number in _VMS.items()
        ]
        super().__init__(LabPlan(1, vms, _SETTINGS), progress=_say)
        self.source_kind = kind
        self._parameters = parameters
        self.publish_s = 0.0

    def payloads(self) -> Mapping[str, Payloads]:
        slices = compile_goal_state(_goal_state(self.tunnels))
        neighbors = synthetic_neighbors(
            subnet="far",
            prefix=parse_prefix(FAR_PREFIX),
            count=self._parameters.neighbors,
            hosts=PEERS,
            groups=("members",),
            first=FIRST_NEIGHBOR,
        )
        for name, records in neighbor_slices(VPC, neighbors).items():
            slices.setdefault(name, {}).update(records)
        return encode_slices(slices)

    def publish(self) -> int:
        payloads = self.payloads()
        self.step(f"publishing {self._parameters.neighbors:,} neighbors")
        start_s = time.monotonic()
        written = self._store.publish(payloads, replace_all=True).written
        self.publish_s = time.monotonic() - start_s
        return written

    @property
    def agent(self) -> AgentOnHost:
        return self.agents[1]

    def introduce(self) -> None:
        """Let the VMs know each other's MAC for good: a question without an answer is repeated only a
        second later, which is not what is looked at.
        """
        for name, other in (("vm-a", "vm-b"), ("vm-b", "vm-a")):
            number = _VMS[other]
            self.vms[name].ip(
                f"neighbor replace 10.0.0.{number} lladdr {_mac(number)} nud permanent dev eth0"
            )

    def use_neighbors(self) -> None:
        """Let the first VM send to some of the neighbors, spread over the whole VPC.

        Raises:
            LabError: the agent does not hold their records then.
        """
        count, step = self._parameters.in_use, self._parameters.neighbors // self._parameters.in_use
        base = int.from_bytes(parse_prefix(FAR_PREFIX).network, "big") + FIRST_NEIGHBOR
        first = format_ip(base.to_bytes(4, "big"))
        words = [first, str(count), "--step", str(step), "--rate", str(TOUCH_RATE)]
        self.step(f"sending to {count:,} neighbors")
        for _ in range(4):
            self.vms["vm-a"].execute([*script(touch), *words], timeout_s=60.0)
            time.sleep(0.5)
            held = int(self.agent.status.get("neighbors_held", 0))
            if held >= count:
                return
        raise LabError(f"the agent holds {held} neighbors after packets to {count}")

    def received_bytes(self) -> int | None:
        """What the host has received over its link to the server so far."""
        if self.source_kind != "nats":
            return None
        told = json.loads(self.host(1).execute(["ip", "-j", "-s", "link", "show", "mgmt0"]).stdout)
        return int(told[0]["stats64"]["rx"]["bytes"])


def measure(parameters: Parameters, kind: SourceKind) -> dict[str, Any]:
    """Publish, then start agents in turn; the result of one kind of source."""
    with ColdLab(parameters, kind) as lab:
        runs = parameters.repetitions * len(MODES)
        lab.introduce()
        reflect(lab.vms["vm-b"], first=FIRST_PORT, count=runs * PORTS_A_RUN)
        lab.use_neighbors()
        starts = []
        for number in range(runs):
            mode = MODES[number % len(MODES)]
            if number and mode == MODES[0]:
                lab.use_neighbors()
            starts.append(_start(lab, mode, FIRST_PORT + number * PORTS_A_RUN))
            _say(f"{kind}, {mode}: {starts[-1].served_s:.2f} s")
        errors = lab.agent.errors()
        if errors:
            raise LabError("an agent said: " + errors[0])
        return {
            "source": kind,
            "publish_s": lab.publish_s,
            "starts": [asdict(one) for one in starts],
        }


def _start(lab: ColdLab, mode: str, first_port: int) -> Start:
    """Kill the agent, and time the next one."""
    agent, host = lab.agent, lab.host(1)
    agent.process.kill()
    if mode != "saved":
        (host.directory / "agent.holdings").unlink(missing_ok=True)
    if mode == "boot":
        host.ofctl("del-flows", INTEGRATION_BRIDGE)
    flows = pulse(
        lab.vms["vm-a"],
        f"10.0.0.{_VMS['vm-b']}",
        first=first_port,
        count=PORTS_A_RUN,
        interval_s=PULSE_S,
    )
    time.sleep(DOWN_S)
    received = lab.received_bytes()
    start_s = time.monotonic()
    lab.start_agent(1)
    told_s = _wait_until_served(agent) - start_s
    adopted_s = agent.wait_adopted(timeout_s=ADOPTED_S)
    if adopted_s is None:
        raise LabError(f"the agent has not judged all rules within {ADOPTED_S:g} s")
    status = agent.status
    rss_mib = agent.memory_mib()
    received_after = lab.received_bytes()
    served = pulses(flows, timeout_s=PORTS_A_RUN * PULSE_S + 10.0).first_served_s(start_s)
    if served is None:
        raise LabError(f"no new flow was served within {PORTS_A_RUN * PULSE_S:g} s")
    counters = status["counters"]
    return Start(
        mode=mode,
        served_s=served - start_s,
        told_s=told_s,
        adopted_s=adopted_s - start_s,
        rss_mib=rss_mib,
        neighbors_held=status["neighbors_held"],
        rules_kept=sum(counters.get("adopted.kept", {}).values()),
        rules_deleted=sum(counters.get("adopted.deleted", {}).values()),
        received_bytes=None if received is None else (received_after or 0) - received,
    )


def _wait_until_served(agent: AgentOnHost) -> float:
    """When its status said that it serves; at most that much late as it writes its status."""
    end_s = time.monotonic() + ADOPTED_S
    while time.monotonic() < end_s:
        status = agent.status
        if status.get("connected") and set(status.get("ports", ())) == set(_VMS):
            return time.monotonic()
        if not agent.process.running:
            raise AgentError(f"the agent has ended: {agent.process.output_tail()}")
        time.sleep(0.02)
    raise LabError(f"the agent does not say within {ADOPTED_S:g} s that it serves both VMs")


def _mac(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


def _goal_state(tunnels: Mapping[str, str]) -> dict[str, Any]:
    """All but the synthetic neighbors."""
    return {
        "hosts": [{"id": name, "tunnel_ip": address} for name, address in tunnels.items()],
        "vpcs": [
            {
                "id": VPC,
                "subnets": [
                    {"id": "near", "vni": 5001, "cidrs": ["10.0.0.0/24"], "gateways": ["10.0.0.1"]},
                    {"id": "far", "vni": 5002, "cidrs": [FAR_PREFIX], "gateways": ["10.64.0.1"]},
                ],
                "routers": [{"id": "main", "subnets": ["near", "far"]}],
                "security_groups": [
                    {"id": "members"},
                    {
                        "id": "open",
                        "rules": [
                            {"direction": "egress", "remote_prefix": "10.0.0.0/24"},
                            # Asks for the record of whoever is sent to.
                            {"direction": "egress", "remote_group": "members"},
                            {"direction": "ingress", "protocol": "udp", "ports": "1000-65000"},
                        ],
                    },
                ],
                "ports": [
                    {
                        "id": name,
                        "host": next(iter(tunnels)),
                        "subnet": "near",
                        "mac": _mac(number),
                        "fixed_ips": [f"10.0.0.{number}"],
                        "security_groups": ["open"],
                    }
                    for name, number in _VMS.items()
                ],
            }
        ],
    }


def print_result(result: dict[str, Any]) -> None:
    print(machine_line(result["machine"]))
    parameters = result["parameters"]
    print(
        f"{parameters['neighbors']:,} neighbors in the VPC, {parameters['in_use']:,} of them in use;"
        f" {parameters['repetitions']} starts of each kind: median (least-greatest)"
    )
    rows = []
    for source in result["sources"]:
        for mode in MODES:
            starts = [one for one in source["starts"] if one["mode"] == mode]
            received = [one["received_bytes"] for one in starts]
            rows.append(
                [
                    f"{source['source']}, {mode}",
                    Spread.of([one["served_s"] for one in starts]).text(2),
                    Spread.of([one["told_s"] for one in starts]).text(2),
                    Spread.of([one["adopted_s"] for one in starts]).text(2),
                    f"{statistics.median(one['rss_mib'] for one in starts):.0f}",
                    "-" if None in received else f"{statistics.median(received) / 1024:,.0f}",
                ]
            )
    head = ["", "first flow s", "status s", "all judged s", "RSS MiB", "received KiB"]
    print()
    print(table(head, rows))
    print()
    for source in result["sources"]:
        print(f"published into {source['source']} in {source['publish_s']:.1f} s")
    slowest = max(one["served_s"] for source in result["sources"] for one in source["starts"])
    word = "kept" if slowest <= PROMISE_S else "not kept"
    print(f"a new flow served within {PROMISE_S:g} s of the start: {word}, {slowest:.2f} s at most")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """0: measured; 2: it could not be."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cold_start", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--source", choices=(*get_args(SourceKind), "both"), default="both")
    parser.add_argument("--neighbors", type=int, metavar="N", help="in the VPC (1000000)")
    parser.add_argument("--in-use", type=int, metavar="N", help="held by the host (2000)")
    parser.add_argument("--repetitions", type=int, metavar="N", help="of each kind of start (5)")
    parser.add_argument(
        "--quick", action="store_true", help="20000 neighbors, 200 in use, 1 repetition"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result here")
    options = parser.parse_args(arguments)
    given = (options.neighbors, options.in_use, options.repetitions)
    preset = (20_000, 200, 1) if options.quick else (1_000_000, 2_000, 5)
    values = [a if a is not None else b for a, b in zip(given, preset, strict=True)]
    bounds = (MAX_NEIGHBORS, min(values[0], 20_000), 40)
    for name, value, high in zip(
        ("neighbors", "in-use", "repetitions"), values, bounds, strict=True
    ):
        if not 1 <= value <= high:
            parser.error(f"--{name}: {value} is not in 1..{high}")
    kinds = get_args(SourceKind) if options.source == "both" else (options.source,)
    parameters = Parameters(*values)
    machine = describe_machine()
    try:
        for kind in kinds:
            require_source(kind)
        sources = [measure(parameters, kind) for kind in kinds]
    except LabError as error:
        print(f"cold_start: {error}", file=sys.stderr)
        return 2
    result = {
        "benchmark": "cold_start",
        "machine": machine,
        "parameters": asdict(parameters),
        "promise_s": PROMISE_S,
        "sources": sources,
    }
    print_result(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
