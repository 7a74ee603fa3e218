"""Two compute hosts for ``provision``: one on which a port appears, and one with whom it talks.

``newcomer`` sends to ``peer`` on h2 before its interface is in the switch. Both contenders have these two VMs,
under the same addresses, on the same two switches. The other ports of h1 are interfaces without a VM behind
them, on the agent's bridge, which serves them. ``peer`` has many addresses, and each repetition uses another
one, so h1 has no rule to it yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

from benchmarks import expanded, preload
from benchmarks.change_lab import AGENTS, EXPANDED, NOBODY
from benchmarks.expanded import Allow, Local, Remote
from mininet_topos.agent_lab import AgentLab, LabPlan, PlacedVm
from mininet_topos.errors import LabError
from mininet_topos.lab_source import SourceKind
from mininet_topos.ovs_host import INTEGRATION_BRIDGE
from mininet_topos.vm import Vm, VmSpec
from ondemand.addresses import parse_ip, parse_mac, parse_prefix
from ondemand.codec import encode_record
from ondemand.goal_state import compile_goal_state, encode_slices
from ondemand.publishing import Payloads
from ondemand.records import Neighbor
from ondemand.synthetic import neighbor_slices, synthetic_neighbors

#: The other contender, when another port of the VPC is on the host already.
NEXT: Final = "expanded, next port"
VPC: Final = "bench"
UDP: Final = 5000
VNI: Final = 5001
FAR_PREFIX: Final = "10.64.0.0/12"
FIRST_NEIGHBOR: Final = 16
MAX_NEIGHBORS: Final = (1 << 20) - FIRST_NEIGHBOR
MAX_PORTS: Final = 500
#: Addresses of ``peer``.
PEERS: Final = 200

_GATEWAY: Final = "10.0.0.1"
_NEWCOMER_IP: Final = "10.0.0.10"
_MACS: Final = {"newcomer": "02:00:00:00:00:0a", "peer": "02:00:00:00:00:0b"}
#: ofports of the VMs in the other contender's bridges.
_NUMBERS: Final = {"newcomer": 11, "peer": 12}
_SERVED_S: Final = 60.0
_PRELOAD_S: Final = 90.0


@dataclass(frozen=True, slots=True)
class Appeared:
    """A port has appeared. Moments are of ``time.monotonic``.

    Attributes:
        start_s: when its interface was begun to be added, and its goal state to be published.
        interface_s: until the interface was there.
        made_s: until the publisher or the command that writes the rules had done its part.
        flow_mods: what the command wrote; None: the agent writes.
    """

    start_s: float
    interface_s: float
    made_s: float
    flow_mods: int | None


def peer_ip(number: int) -> str:
    """An address of ``peer``, counted from 0."""
    return f"10.0.2.{10 + number}"


class ProvisionLab(AgentLab):
    """The lab with both contenders; the port is there under one of them at a time, or under none."""

    def __init__(self, kind: SourceKind, *, progress: Callable[[str], None]) -> None:
        vms = [
            PlacedVm(_spec("newcomer", "newcomer"), 1, is_plugged=False),
            PlacedVm(_spec("peer", "peer"), 2),
        ]
        super().__init__(LabPlan(2, vms, {}), progress=progress)
        self.source_kind = kind
        self.neighbors = 1
        self.ports = 1
        self._twins: dict[str, Vm] = {}
        self._own: dict[str, str] = {}

    # Set-up ---------------------------------------------------------------------------------------

    def payloads(self) -> Mapping[str, Payloads]:
        return {**self._near(has_newcomer=False), **_far_payloads(self.neighbors)}

    def prepare(self) -> None:
        """Make the bridges and VMs of the other contender."""
        for host in self.fabric.hosts:
            expanded.create_bridge(host)
        for number, name in ((1, "newcomer"), (2, "peer")):
            self._twins[name] = self.fabric.add_vm(self.host(number), _spec(f"x-{name}", name))
        expanded.plug(self._twins["peer"], _NUMBERS["peer"])
        allows = (Allow("egress"), Allow("ingress"))
        found: dict[str, str] = {}
        for number in range(PEERS):
            found |= expanded.local_rules(_local("peer", peer_ip(number), allows))
        match, actions = expanded.remote_rule(
            VNI, Remote(_NEWCOMER_IP, _MACS["newcomer"], self.host(1).tunnel_ip)
        )
        found |= expanded.rules(VNI, (), ()) | {match: actions}
        expanded.apply({self.host(2): expanded.difference({}, found)})
        known = [
            f"neighbor replace {peer_ip(number)} lladdr {_MACS['peer']} nud permanent dev eth0"
            for number in range(PEERS)
        ]
        for who in (AGENTS, EXPANDED):
            self.vm(who, "newcomer").ip(*known)

    def vm(self, who: str, name: str) -> Vm:
        return self.vms[name] if who == AGENTS else self._twins[name]

    def resize(self, *, neighbors: int, ports: int) -> None:
        """Have so many neighbors in the VPC, and so many ports on h1, the one to come among them.

        Raises:
            LabError: the agent does not serve all of them.
        """
        self.step(f"{ports:,} ports on h1, {neighbors:,} neighbors")
        new = range(self.ports, ports)
        self.neighbors, self.ports = neighbors, ports
        self.publish()
        if new:
            words = []
            for number in new:
                name = _filler(number)
                words += ["--", "add-port", INTEGRATION_BRIDGE, name, "--", "set", "Interface"]
                words += [name, "type=internal", f"external_ids:iface-id={name}"]
            self.host(1).vsctl(*words[1:], timeout_s=60)
        wanted = {_filler(number) for number in range(1, ports)}
        if not self.agents[1].wait_for_ports(wanted, timeout_s=_SERVED_S):
            served = len(self.agents[1].ports)
            raise LabError(f"the agent of h1 serves {served} of {len(wanted)} ports")
        self._write_flows()

    # Contenders -----------------------------------------------------------------------------------

    def appear(self, who: str) -> Appeared:
        """Let the port appear; NEXT: after EXPANDED, whose neighbors are there then."""
        if who != AGENTS:
            return self._preload(has_neighbors=who == NEXT)
        changed = self._changed(has_newcomer=True)
        with ThreadPoolExecutor(1) as pool:
            start_s = time.monotonic()
            plugged = pool.submit(self._plug)
            self._store.publish(changed, replace_all=False)
            made_s = time.monotonic() - start_s
            return Appeared(start_s, plugged.result() - start_s, made_s, None)

    def disappear(self, who: str) -> None:
        """Take the port away again; neighbors that were preloaded stay."""
        host = self.host(1)
        if who != AGENTS:
            host.vsctl("del-port", expanded.BRIDGE, self._twins["newcomer"].tap)
            expanded.apply({host: expanded.difference(self._own, {})})
            return
        self.vms["newcomer"].unplug()
        self._store.publish(self._changed(has_newcomer=False), replace_all=False)
        wanted = {_filler(number) for number in range(1, self.ports)}
        if not self.agents[1].wait_for_ports(wanted):
            raise LabError("the agent of h1 still serves a port that is gone")

    def clear(self) -> None:
        """Remove what was preloaded, and wait until the switch is done with that."""
        self.host(1).ofctl("del-flows", expanded.BRIDGE, timeout_s=60)
        expanded.wait_until_idle(self.host(1))

    def rules(self, who: str) -> int:
        """How many rules h1 has for a contender."""
        return self.host(1).rule_count(INTEGRATION_BRIDGE if who == AGENTS else expanded.BRIDGE)

    def _plug(self) -> float:
        self.vms["newcomer"].plug("newcomer")
        return time.monotonic()

    def _preload(self, *, has_neighbors: bool) -> Appeared:
        """Add the interface; then write the port's rules, and all neighbors unless they are there."""
        host = self.host(1)
        start_s = time.monotonic()
        expanded.plug(self._twins["newcomer"], _NUMBERS["newcomer"])
        interface_s = time.monotonic() - start_s
        expanded.apply_file(host, self._port_file)
        flow_mods = len(self._own)
        if not has_neighbors:
            management = host.directory / f"{expanded.BRIDGE}.mgmt"
            preload.send(management, self._neighbor_file, timeout_s=_PRELOAD_S)
            flow_mods += self.neighbors + PEERS
        return Appeared(start_s, interface_s, time.monotonic() - start_s, flow_mods)

    @property
    def _port_file(self) -> Path:
        return self.host(1).directory / "port.flows"

    @property
    def _neighbor_file(self) -> Path:
        return self.host(1).directory / "neighbors.openflow"

    def _write_flows(self) -> None:
        """What ``_preload`` writes. The peer is in the middle of all neighbors: nobody knows beforehand whom
        a VM sends to first, and that is where one drawn by lot is.
        """
        allows = (Allow("egress"), Allow("ingress"))
        self._own = expanded.rules(VNI, [_local("newcomer", _NEWCOMER_IP, allows)], ())
        lines = expanded.difference({}, self._own)
        self._port_file.write_text("".join(f"{line}\n" for line in lines))
        far = _far(self.neighbors)
        before = islice(far, self.neighbors // 2)
        host = parse_ip(self.host(2).tunnel_ip)
        peers = (
            Neighbor(parse_ip(peer_ip(n)), parse_mac(_MACS["peer"]), "near", "peer", host)
            for n in range(PEERS)
        )
        preload.write(self._neighbor_file, VNI, chain(before, peers, far))

    # Goal state -----------------------------------------------------------------------------------

    def _changed(self, *, has_newcomer: bool) -> dict[str, Payloads]:
        """The slices that differ with the port and without it, as they are to be."""
        after = self._near(has_newcomer=has_newcomer)
        before = self._near(has_newcomer=not has_newcomer)
        empty: dict[str, Payloads] = {name: {} for name in before if name not in after}
        return empty | {name: found for name, found in after.items() if before.get(name) != found}

    def _near(self, *, has_newcomer: bool) -> dict[str, Payloads]:
        """All but the synthetic neighbors."""
        ports = [_port("peer", "h2", _MACS["peer"], [peer_ip(n) for n in range(PEERS)])]
        if has_newcomer:
            ports.append(_port("newcomer", "h1", _MACS["newcomer"], [_NEWCOMER_IP]))
        for number in range(1, self.ports):
            high, low = divmod(number, 256)
            mac = f"02:00:00:01:{high:02x}:{low:02x}"
            ports.append(_port(_filler(number), "h1", mac, [f"10.0.{4 + high}.{low}"]))
        return dict(encode_slices(compile_goal_state(_document(self.tunnels, ports))))


def _spec(label: str, name: str) -> VmSpec:
    addresses = (
        [f"{_NEWCOMER_IP}/21"]
        if name == "newcomer"
        else [f"{peer_ip(number)}/21" for number in range(PEERS)]
    )
    return VmSpec(label, _MACS[name], tuple(addresses), (_GATEWAY,))


def _local(name: str, ip: str, allows: tuple[Allow, ...]) -> Local:
    return Local(ip, _MACS[name], _NUMBERS[name], allows)


def _filler(number: int) -> str:
    return f"port-{number}"


def _port(name: str, host: str, mac: str, addresses: list[str]) -> dict[str, Any]:
    return {
        "id": name,
        "host": host,
        "subnet": "near",
        "mac": mac,
        "fixed_ips": addresses,
        "security_groups": ["open"],
    }


def _document(tunnels: Mapping[str, str], ports: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "hosts": [{"id": name, "tunnel_ip": address} for name, address in tunnels.items()],
        "vpcs": [
            {
                "id": VPC,
                "subnets": [
                    {"id": "near", "vni": VNI, "cidrs": ["10.0.0.0/21"], "gateways": [_GATEWAY]},
                    {"id": "far", "vni": 5002, "cidrs": [FAR_PREFIX], "gateways": ["10.64.0.1"]},
                ],
                "routers": [{"id": "main", "subnets": ["near", "far"]}],
                "security_groups": [
                    {"id": "open", "rules": [{"direction": "egress"}, {"direction": "ingress"}]}
                ],
                "ports": ports,
            }
        ],
    }


def _far(count: int) -> Iterator[Neighbor]:
    return synthetic_neighbors(
        subnet="far",
        prefix=parse_prefix(FAR_PREFIX),
        count=count,
        hosts=NOBODY,
        first=FIRST_NEIGHBOR,
    )


@cache
def _far_payloads(count: int) -> Mapping[str, Payloads]:
    return {
        name: {key: encode_record(record) for key, record in records.items()}
        for name, records in neighbor_slices(VPC, _far(count)).items()
    }
