"""The VPC of the traffic model: its goal state, a source of slices in memory, and an agent's engine on it.

The host's VMs are in the subnet ``near`` together with some of the neighbors; all others are in ``far``, behind
a router. VMs may send to anybody and are reached, on their open ports, by members of one group, which are all
neighbors: the default of most clouds, and what makes an agent that expands remote groups install most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from benchmarks.traffic_model import OPEN_PORTS
from benchmarks.traffic_parameters import Parameters
from benchmarks.vpc import PEER_HOSTS, TUNNEL_IP
from ondemand.addresses import parse_ip, parse_mac, parse_prefix
from ondemand.codec import encode_record
from ondemand.engine import Engine
from ondemand.goal_state import compile_goal_state, encode_slices
from ondemand.messages import Effects, Fetch, Follow
from ondemand.records import Neighbor
from ondemand.settings import Settings
from ondemand.slices import Lookup, Snapshot
from ondemand.synthetic import neighbor_slices, synthetic_neighbors

HOST: Final = "compute-1"
VPC: Final = "traffic"
MEMBERS: Final = "members"
TUNNEL_PORT: Final = 1000
NEAR_VNI: Final = 5001
FAR_VNI: Final = 5002
NEAR_PREFIX: Final = "10.0.0.0/17"
FAR_PREFIX: Final = "10.64.0.0/12"
NEAR_GATEWAY: Final = "10.0.0.1"
NEAR_GATEWAY_MAC: Final = "02:00:5e:00:00:01"
FAR_GATEWAY_MAC: Final = "02:00:5e:00:00:02"
#: Host parts of the first VM here and of the first neighbor in each subnet. No two are the same, because
#: neighbors are named by it.
FIRST_VM: Final = 16
FIRST_NEAR: Final = 512
FIRST_FAR: Final = 1 << 15


@dataclass(frozen=True, slots=True)
class Preloaded:
    """Rules of an agent that has all of them before the first packet, and so no packet-in.

    Not counted: its answers to ARP, and what it has whatever the VPC.

    Attributes:
        neighbors: where to: one for each neighbor.
        by_member: who may come in, expanded: one for each VM, open port and member of the group.
        by_conjunction: the same as conjunctive matches (ovs-fields(7)): one for each member, one for each
            VM and open port, and one to join them.
        egress: one for each VM, which may send to anybody.
    """

    neighbors: int
    by_member: int
    by_conjunction: int
    egress: int


class TrafficVpc:
    """Addresses by number, the slices, and what an agent would preload.

    VMs are numbered from 0 on, as neighbors are; neighbors from ``parameters.neighbors`` on are addresses
    of the far subnet that nobody has.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self._near = int.from_bytes(parse_prefix(NEAR_PREFIX).network, "big")
        self._far = int.from_bytes(parse_prefix(FAR_PREFIX).network, "big")
        self.gateway = parse_ip(NEAR_GATEWAY)
        self.gateway_mac = parse_mac(NEAR_GATEWAY_MAC)
        self._slices = encode_slices(compile_goal_state(self._goal_state()))
        for name, records in neighbor_slices(VPC, self._neighbors()).items():
            target = self._slices.setdefault(name, {})
            target.update((key, encode_record(record)) for key, record in records.items())

    def vm_ip(self, vm: int) -> bytes:
        return (self._near + FIRST_VM + vm).to_bytes(4, "big")

    def vm_mac(self, vm: int) -> bytes:
        return bytes((0xFA, 0x16, 0x3E, 0, 0, vm))

    def is_near(self, neighbor: int) -> bool:
        """Whether it is in the subnet of the VMs here."""
        return neighbor < self.parameters.same_subnet

    def ip(self, neighbor: int) -> bytes:
        near = self.parameters.same_subnet
        if neighbor < near:
            return (self._near + FIRST_NEAR + neighbor).to_bytes(4, "big")
        return (self._far + FIRST_FAR + neighbor - near).to_bytes(4, "big")

    def next_hop(self, neighbor: int) -> tuple[bytes, bytes]:
        """Address and MAC to which a VM here sends what goes to a neighbor."""
        if self.is_near(neighbor):
            # As ``synthetic_neighbors`` makes it.
            return self.ip(neighbor), b"\x06" + (FIRST_NEAR + neighbor).to_bytes(5, "big")
        return self.gateway, self.gateway_mac

    def preloaded(self) -> Preloaded:
        one = self.parameters
        return Preloaded(
            neighbors=one.neighbors,
            by_member=one.vms * len(OPEN_PORTS) * one.neighbors,
            by_conjunction=one.neighbors + one.vms * len(OPEN_PORTS) + 1,
            egress=one.vms,
        )

    # -- the source ------------------------------------------------------------------------------

    def get(self, name: str, key: str) -> Lookup:
        return Lookup(name, key, 1, self._slices.get(name, {}).get(key))

    def snapshot(self, name: str) -> Snapshot:
        return Snapshot(name, 1, self._slices.get(name, {}))

    def answer(self, engine: Engine, effects: Effects, now_s: float) -> None:
        """Answer what the engine asked, at once."""
        for request in effects.requests:
            if isinstance(request, Fetch):
                engine.fetched(self.get(request.slice, request.key), now_s)
            elif isinstance(request, Follow) and request.since is None:
                engine.slice_event(self.snapshot(request.slice), now_s)

    # -- the goal state --------------------------------------------------------------------------

    def _neighbors(self) -> list[Neighbor]:
        one = self.parameters
        found: list[Neighbor] = []
        for subnet, prefix, count, first in (
            ("near", NEAR_PREFIX, one.same_subnet, FIRST_NEAR),
            ("far", FAR_PREFIX, one.neighbors - one.same_subnet, FIRST_FAR),
        ):
            found += synthetic_neighbors(
                subnet=subnet,
                prefix=parse_prefix(prefix),
                count=count,
                hosts=PEER_HOSTS,
                groups=(MEMBERS,),
                first=first,
            )
        return found

    def _goal_state(self) -> dict[str, Any]:
        ingress = [
            {
                "id": f"open-{port}",
                "direction": "ingress",
                "protocol": "tcp",
                "ports": port,
                "remote_group": MEMBERS,
            }
            for port in OPEN_PORTS
        ]
        subnets = (
            ("near", NEAR_VNI, NEAR_PREFIX, NEAR_GATEWAY, NEAR_GATEWAY_MAC),
            ("far", FAR_VNI, FAR_PREFIX, "10.64.0.1", FAR_GATEWAY_MAC),
        )
        return {
            "hosts": [{"id": HOST, "tunnel_ip": TUNNEL_IP}],
            "vpcs": [
                {
                    "id": VPC,
                    "subnets": [
                        {
                            "id": name,
                            "vni": vni,
                            "cidrs": [prefix],
                            "gateways": [gateway],
                            "gateway_mac": mac,
                        }
                        for name, vni, prefix, gateway, mac in subnets
                    ],
                    "routers": [{"id": "main", "subnets": ["near", "far"]}],
                    "security_groups": [
                        {"id": MEMBERS},
                        {
                            "id": "servers",
                            "rules": [{"id": "out", "direction": "egress"}, *ingress],
                        },
                    ],
                    "ports": [
                        {
                            "id": port_id(vm),
                            "host": HOST,
                            "subnet": "near",
                            "mac": self.vm_mac(vm).hex(":"),
                            "fixed_ips": [".".join(map(str, self.vm_ip(vm)))],
                            "security_groups": ["servers"],
                        }
                        for vm in range(self.parameters.vms)
                    ],
                }
            ],
        }


def port_id(vm: int) -> str:
    return f"vm-{vm}"


def new_engine(settings: Settings) -> Engine:
    return Engine(
        host=HOST,
        tunnel_ip=parse_ip(TUNNEL_IP),
        settings=settings,
        round_number=1,
        first_epoch=1,
    )


__all__ = ["HOST", "NEAR_VNI", "TUNNEL_PORT", "Preloaded", "TrafficVpc", "new_engine", "port_id"]
