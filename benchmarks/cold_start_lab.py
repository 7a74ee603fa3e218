"""A compute host that comes up, for ``cold_start``: under an agent, and with all neighbors preloaded.

```
    vm-a, vm-b ── br-int (agent) ─┐
                                  h1 ── VXLAN ── h2: rules that turn each datagram round, without an agent
    x-a, x-b ──── br-exp ─────────┘
```
h2 stands for all hosts of all neighbors: whatever address a datagram went to, the answer comes from there.
Both contenders are on the same ovs-vswitchd, of which only one programs anything at a time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from benchmarks import cold_traffic, expanded, preload
from benchmarks.command_line import say
from benchmarks.expanded import Allow, Local
from mininet_topos.agent_host import AgentError, AgentOnHost
from mininet_topos.agent_lab import AgentLab, LabPlan, PlacedVm
from mininet_topos.errors import LabError
from mininet_topos.fabric import Fabric
from mininet_topos.lab_source import SourceKind
from mininet_topos.node import script
from mininet_topos.ovs_host import ComputeHost
from mininet_topos.probe import reflect
from mininet_topos.processes import Background
from mininet_topos.vm import Vm, VmSpec
from ondemand.addresses import format_ip, parse_ip, parse_prefix
from ondemand.codec import encode_record
from ondemand.goal_state import compile_goal_state, encode_slices
from ondemand.publishing import Payloads
from ondemand.records import Neighbor
from ondemand.synthetic import neighbor_slices, synthetic_neighbors

AGENT: Final = "on demand"
EXPANDED: Final = "expanded"
VPC: Final = "bench"
FAR_PREFIX: Final = "10.64.0.0/12"
#: Numbers below it are for the gateway; addresses in use are spread over all blocks.
FIRST_NEIGHBOR: Final = 16
MAX_NEIGHBORS: Final = (1 << 20) - FIRST_NEIGHBOR
FIRST_PORT: Final = 20_000
#: New flows to the other VM in one start, each to another port.
PORTS_A_START: Final = 500
#: Seconds until all rules that were found must be judged, until a host must be in full service.
ADOPTED_S: Final = 30.0
SERVICE_S: Final = 30.0
PRELOADED_S: Final = 180.0

_NEAR_VNI, _FAR_VNI = 5001, 5002
_GATEWAY: Final = "10.0.0.1"
_GATEWAY_MAC: Final = "02:00:5e:00:00:01"
_FAR_BRIDGE: Final = "br-far"
#: VXLAN's own port (RFC 7348), and the other contender's.
_TUNNEL_PORTS: Final = (4789, expanded.TUNNEL_PORT)
_SETTINGS: Final = {
    "rules": {"verdict_idle_s": 3600, "location_idle_s": 3600, "responder_idle_s": 3600},
}
#: Number of each VM, which is the end of its addresses; that of the other contender's is its ofport too.
_VMS: Final = {"vm-a": 11, "vm-b": 12}
_TWINS: Final = {"x-a": 21, "x-b": 22}
_NUMBERS: Final = _VMS | _TWINS
#: Who sends, and to whom, by contender.
_PAIRS: Final = {AGENT: ("vm-a", "vm-b"), EXPANDED: ("x-a", "x-b")}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a VM saw (``cold_traffic``); moments are of ``time.monotonic``.

    Attributes:
        served_s: when the first new flow to the other VM was answered.
        last_s: when the last neighbor of the VPC answered; None: not asked for.
        all_s: when all neighbors in use had answered; None: not asked for.
    """

    served_s: float
    last_s: float | None
    all_s: float | None


class ColdLab(AgentLab):
    """The lab; ``resize`` before anything is measured."""

    def __init__(self, kind: SourceKind, *, modes: int) -> None:
        """``modes``: kinds of starts of an agent between two reboots of the host."""
        vms = [PlacedVm(_spec(name), 1) for name in _VMS]
        super().__init__(LabPlan(1, vms, _SETTINGS), progress=say)
        # One more than have agents.
        self.fabric = Fabric(hosts=2, progress=say)
        self.source_kind = kind
        self.neighbors = 1
        self.publish_s = 0.0
        self._modes = modes
        self._twins: dict[str, Vm] = {}

    # Set-up ---------------------------------------------------------------------------------------

    def payloads(self) -> Mapping[str, Payloads]:
        slices = dict(encode_slices(compile_goal_state(_goal_state(self.tunnels))))
        for name, records in neighbor_slices(VPC, self._far()).items():
            slices[name] = {key: encode_record(record) for key, record in records.items()}
        return slices

    def publish(self) -> int:
        payloads = self.payloads()
        start_s = time.monotonic()
        written = self._store.publish(payloads, replace_all=True).written
        self.publish_s = time.monotonic() - start_s
        return written

    def prepare(self) -> None:
        """Make the neighbors' side, and the bridge and VMs of the other contender."""
        _turn_round(self.host(2), self.host(1).tunnel_ip)
        expanded.create_bridge(self.host(1))
        for name, number in _TWINS.items():
            self._twins[name] = self.fabric.add_vm(self.host(1), _spec(name))
            expanded.plug(self._twins[name], number)
        for who, (sender, receiver) in _PAIRS.items():
            # A question without an answer is repeated only a second later, which is not what is looked at.
            for name, other in ((sender, receiver), (receiver, sender)):
                self.vm(name).ip(
                    *(
                        f"neighbor replace {ip} lladdr {mac} nud permanent dev eth0"
                        for ip, mac in ((_ip(other), _mac(other)), (_GATEWAY, _GATEWAY_MAC))
                    )
                )
            ports = PORTS_A_START * (self._modes if who == AGENT else 1)
            reflect(self.vm(receiver), first=FIRST_PORT, count=ports)

    def resize(self, neighbors: int) -> None:
        """Have so many neighbors in the VPC, and files of all their rules; no agent runs then."""
        self.step(f"publishing {neighbors:,} neighbors")
        self.agent.process.kill()
        self.neighbors = neighbors
        self.publish()

    def vm(self, name: str) -> Vm:
        return self._twins[name] if name in _TWINS else self.vms[name]

    @property
    def agent(self) -> AgentOnHost:
        return self.agents[1]

    # A host and its parts -------------------------------------------------------------------------

    def forget(self) -> None:
        """Take away what an agent has saved."""
        (self.host(1).directory / "agent.holdings").unlink(missing_ok=True)

    def reboot(self) -> None:
        """Have the switch as it is when a host has come up: interfaces as in OVSDB, and no rule."""
        self.agent.process.kill()
        self.forget()
        self.host(1).kill_vswitchd()
        self.host(1).start_vswitchd()

    def traffic(self, who: str, *, part: int = 0, far: int = 0) -> Background:
        """Begin to look at the host with a VM's eyes.

        Args:
            who: the contender whose VM it is.
            part: which ports the new flows to the other VM go to, 0 to ``modes`` - 1.
            far: neighbors that are in use; 0: none is asked for.
        """
        sender, receiver = _PAIRS[who]
        first = FIRST_PORT + part * PORTS_A_START
        words = ["--local", _ip(receiver), str(first), str(PORTS_A_START)]
        if far:
            base = int.from_bytes(parse_prefix(FAR_PREFIX).network, "big") + FIRST_NEIGHBOR
            words += ["--far", format_ip(base.to_bytes(4, "big")), str(self.neighbors), str(far)]
        for_s = PRELOADED_S if who == EXPANDED else SERVICE_S
        argv = [*script(cold_traffic), *words, "--for-s", str(for_s)]
        return self.vm(sender).spawn("cold-traffic", argv)

    def wait_until_served(self) -> float:
        """When its status said that it serves; at most that much late as it writes its status."""
        agent, end_s = self.agent, time.monotonic() + ADOPTED_S
        while time.monotonic() < end_s:
            status = agent.status
            if status.get("connected") and set(status.get("ports", ())) == set(_VMS):
                return time.monotonic()
            if not agent.process.running:
                raise AgentError(f"the agent has ended: {agent.process.output_tail()}")
            time.sleep(0.02)
        raise LabError(f"the agent does not say within {ADOPTED_S:g} s that it serves both VMs")

    def received_bytes(self) -> int | None:
        """What the host has received over its link to the server so far; None: there is no server."""
        if self.source_kind != "nats":
            return None
        told = json.loads(self.host(1).execute(["ip", "-j", "-s", "link", "show", "mgmt0"]).stdout)
        return int(told[0]["stats64"]["rx"]["bytes"])

    # The other contender --------------------------------------------------------------------------

    def write_rules(self) -> None:
        """Make the files that ``preload`` takes."""
        allows = (Allow("egress"), Allow("ingress"))
        own = [Local(_ip(name), _mac(name), number, allows) for name, number in _TWINS.items()]
        self._port_file.write_text(
            "".join(
                f"add {match},actions={do}\n" for match, do in expanded.rules(0, own, ()).items()
            )
        )
        preload.write(self._neighbor_file, _FAR_VNI, self._far())

    def remove_rules(self) -> None:
        self._neighbor_file.unlink(missing_ok=True)

    def preload(self) -> float:
        """Write the rules of the ports, then those of the neighbors; when all were in."""
        host = self.host(1)
        expanded.apply_file(host, self._port_file)
        management = host.directory / f"{expanded.BRIDGE}.mgmt"
        return preload.send(management, self._neighbor_file, timeout_s=PRELOADED_S / 2)

    @cached_property
    def _port_file(self) -> Path:
        return self.host(1).directory / "ports.flows"

    @cached_property
    def _neighbor_file(self) -> Path:
        return self.host(1).directory / "neighbors.openflow"

    def _far(self) -> Iterator[Neighbor]:
        return synthetic_neighbors(
            subnet="far",
            prefix=parse_prefix(FAR_PREFIX),
            count=self.neighbors,
            hosts=[parse_ip(self.host(2).tunnel_ip)],
            groups=("members",),
            first=FIRST_NEIGHBOR,
        )


def seen(traffic: Background, *, timeout_s: float) -> Seen:
    """What came of ``ColdLab.traffic``.

    Raises:
        LabError: not all of it was served in time.
    """
    if not traffic.wait(timeout_s):
        raise LabError(f"{traffic.name} has not ended within {timeout_s:g} s")
    try:
        found = json.loads(traffic.output())
    except ValueError:
        raise LabError(f"{traffic.name} failed: {traffic.output_tail()}") from None
    if found["served"] is None:
        raise LabError("no new flow to the other VM was served")
    if traffic.returncode:
        raise LabError(f"{found['answered']} neighbors have answered; the last: {found['last_s']}")
    return Seen(found["served"][1], found["last_s"], found["all_s"])


def _turn_round(host: ComputeHost, sender: str) -> None:
    """Let a host answer each datagram that comes for any neighbor: addresses and ports change places."""
    words = ["add-br", _FAR_BRIDGE, "--", "set", "Bridge", _FAR_BRIDGE]
    words += ["datapath_type=netdev", "fail_mode=secure"]
    for number, port in enumerate(_TUNNEL_PORTS, 1):
        words += ["--", "add-port", _FAR_BRIDGE, f"vxlan-{port}", "--", "set", "Interface"]
        words += [f"vxlan-{port}", "type=vxlan", "options:remote_ip=flow", "options:key=flow"]
        words += [f"options:dst_port={port}", f"ofport_request={number}"]
    host.vsctl(*words)
    swap = ",".join(
        f"push:NXM_OF_{one}[],push:NXM_OF_{other}[],pop:NXM_OF_{one}[],pop:NXM_OF_{other}[]"
        for one, other in (("IP_SRC", "IP_DST"), ("UDP_SRC", "UDP_DST"))
    )
    answer = f"set_field:{_NEAR_VNI}->tun_id,set_field:{sender}->tun_dst,in_port"
    host.add_flows(
        _FAR_BRIDGE,
        *(
            f"udp,nw_src={_ip(name)},actions={swap},set_field:{_GATEWAY_MAC}->eth_src,"
            f"set_field:{_mac(name)}->eth_dst,{answer}"
            for name, _ in _PAIRS.values()
        ),
    )


def _ip(name: str) -> str:
    return f"10.0.0.{_NUMBERS[name]}"


def _mac(name: str) -> str:
    return f"02:00:00:00:00:{_NUMBERS[name]:02x}"


def _spec(name: str) -> VmSpec:
    return VmSpec(name, _mac(name), (f"{_ip(name)}/24",), (_GATEWAY,))


def _goal_state(tunnels: Mapping[str, str]) -> dict[str, Any]:
    """All but the synthetic neighbors."""
    return {
        "hosts": [{"id": name, "tunnel_ip": address} for name, address in tunnels.items()],
        "vpcs": [
            {
                "id": VPC,
                "subnets": [
                    {
                        "id": "near",
                        "vni": _NEAR_VNI,
                        "cidrs": ["10.0.0.0/24"],
                        "gateways": [_GATEWAY],
                        "gateway_mac": _GATEWAY_MAC,
                    },
                    {
                        "id": "far",
                        "vni": _FAR_VNI,
                        "cidrs": [FAR_PREFIX],
                        "gateways": ["10.64.0.1"],
                    },
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
                        "mac": _mac(name),
                        "fixed_ips": [_ip(name)],
                        "security_groups": ["open"],
                    }
                    for name in _VMS
                ],
            }
        ],
    }
