"""The VPC that the controller benchmarks run in: local ports, security rules, many neighbors.

The ports of the measured host are in one subnet and the neighbors in another, larger one, with a
router between them, so that every flow is sent to one MAC (the gateway's) that a plain learning
controller can know as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from controller_app.sqlite_store import SqliteStore
from ondemand.addresses import parse_mac, parse_prefix
from ondemand.codec import decode_record
from ondemand.goal_state import compile_goal_state, encode_slices
from ondemand.records import Neighbor
from ondemand.slices import neighbor_slice
from ondemand.synthetic import neighbor_slices, synthetic_neighbors

HOST: Final = "compute-1"
#: RFC 2544 reserves 198.18.0.0/15 for benchmarks.
TUNNEL_IP: Final = "198.19.0.1"
PEER_HOSTS: Final = tuple(bytes((198, 18, 0, number)) for number in range(1, 51))
VPC: Final = "bench"
GATEWAY_MAC: Final = "02:00:5e:00:00:01"
FAR_SUBNET: Final = "far"
FAR_PREFIX: Final = "10.64.0.0/12"
#: Numbers below it are for the gateway.
FIRST_NEIGHBOR: Final = 16
MAX_NEIGHBORS: Final = (1 << 20) - FIRST_NEIGHBOR
MEMBERS: Final = "members"
#: The rules of a port are spread over so many groups, all of them on every port.
GROUPS: Final = 4
FIRST_TARGET_PORT: Final = 1000


@dataclass(frozen=True, slots=True)
class VpcSize:
    """How large the VPC is: local ports, security rules of each port, neighbors.

    With 0 rules the ports have no port security: no policy, and no conntrack.
    """

    ports: int
    rules: int
    neighbors: int

    @property
    def egress_rules(self) -> int:
        return (self.rules + 1) // 2

    @property
    def target_ports(self) -> int:
        """How many TCP ports, from FIRST_TARGET_PORT on, the egress rules open together."""
        return max(1000, self.egress_rules)

    def check(self) -> None:
        """Raise ValueError when it cannot be built."""
        for name, value, low, high in (
            ("ports", self.ports, 1, 200),
            ("rules", self.rules, 0, 100_000),
            ("neighbors", self.neighbors, 1, MAX_NEIGHBORS),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name}: {value} is not in {low}..{high}")


def port_id(number: int) -> str:
    """The port that is plugged in as OpenFlow port ``number``, from 1 on."""
    return f"vm-{number}"


def port_ip(number: int) -> bytes:
    return bytes((10, 0, 0, number + 1))


def port_mac(number: int) -> bytes:
    return bytes((0xFA, 0x16, 0x3E, 0, 0, number))


def publish(path: Path, size: VpcSize) -> None:
    """Make a slice store that holds the VPC."""
    size.check()
    slices = compile_goal_state(goal_state(size))
    neighbors = synthetic_neighbors(
        subnet=FAR_SUBNET,
        prefix=parse_prefix(FAR_PREFIX),
        count=size.neighbors,
        hosts=PEER_HOSTS,
        groups=(MEMBERS,),
        first=FIRST_NEIGHBOR,
    )
    for name, records in neighbor_slices(VPC, neighbors).items():
        slices.setdefault(name, {}).update(records)
    with SqliteStore(path, writer=True) as store:
        store.publish(encode_slices(slices), replace_all=True)


def publish_rules(path: Path, size: VpcSize) -> None:
    """Give a store of as many neighbors the ports and rules of another size."""
    size.check()
    with SqliteStore(path, writer=True) as store:
        # The slices of synthetic neighbors are not among them: those are in a subnet of their own.
        store.publish(encode_slices(compile_goal_state(goal_state(size))), replace_all=False)


def neighbor_ip(number: int) -> bytes:
    """The address of neighbor ``number``, from 0 on."""
    base = int.from_bytes(parse_prefix(FAR_PREFIX).network, "big")
    return (base + FIRST_NEIGHBOR + number).to_bytes(4, "big")


def neighbors_in_store(path: Path, ips: list[bytes]) -> dict[bytes, Neighbor]:
    """What the store says of these addresses."""
    wanted = set(ips)
    found: dict[bytes, Neighbor] = {}
    with SqliteStore(path) as store:
        for name in sorted({neighbor_slice(VPC, ip) for ip in ips}):
            for key, payload in store.snapshot(name).records.items():
                record = decode_record(name, key, payload)
                if isinstance(record, Neighbor) and record.ip in wanted:
                    found[record.ip] = record
    missing = len(wanted) - len(found)
    if missing:
        raise ValueError(f"store {path} lacks {missing} of the neighbors that flows go to")
    return found


def goal_state(size: VpcSize) -> dict[str, Any]:
    """All but the synthetic neighbors."""
    groups = [f"policy-{number}" for number in range(GROUPS)]
    rules: list[list[dict[str, Any]]] = [[] for _ in groups]
    for number in range(size.rules):
        rule = _egress_rule(number // 2, size) if number % 2 == 0 else _ingress_rule(number // 2)
        rules[number % GROUPS].append(rule | {"id": f"r{number}"})
    return {
        "hosts": [{"id": HOST, "tunnel_ip": TUNNEL_IP}],
        "vpcs": [
            {
                "id": VPC,
                "subnets": [
                    {
                        "id": "near",
                        "vni": 5001,
                        "cidrs": ["10.0.0.0/24"],
                        "gateways": ["10.0.0.1"],
                        "gateway_mac": GATEWAY_MAC,
                    },
                    {
                        "id": FAR_SUBNET,
                        "vni": 5002,
                        "cidrs": [FAR_PREFIX],
                        "gateways": ["10.64.0.1"],
                        "gateway_mac": "02:00:5e:00:00:02",
                    },
                ],
                "routers": [{"id": "main", "subnets": ["near", FAR_SUBNET]}],
                "security_groups": [
                    {"id": MEMBERS},
                    *({"id": group, "rules": rules[i]} for i, group in enumerate(groups)),
                ],
                "ports": [
                    {
                        "id": port_id(number),
                        "host": HOST,
                        "subnet": "near",
                        "mac": port_mac(number).hex(":"),
                        "fixed_ips": [".".join(map(str, port_ip(number)))],
                    }
                    | ({"security_groups": groups} if size.rules else {"port_security": False})
                    for number in range(1, size.ports + 1)
                ],
            }
        ],
    }


def _egress_rule(number: int, size: VpcSize) -> dict[str, Any]:
    """An equal share of the target ports; every other one by remote group, else by prefix."""
    low = FIRST_TARGET_PORT + number * size.target_ports // size.egress_rules
    high = FIRST_TARGET_PORT + (number + 1) * size.target_ports // size.egress_rules - 1
    rule = {"direction": "egress", "protocol": "tcp", "ports": f"{low}-{high}"}
    remote = {"remote_group": MEMBERS} if number % 2 == 0 else {"remote_prefix": FAR_PREFIX}
    return rule | remote


def _ingress_rule(number: int) -> dict[str, Any]:
    source = f"172.{16 + number // 65_536 % 16}.{number // 256 % 256}.{number % 256}/32"
    return {
        "direction": "ingress",
        "protocol": "tcp" if number % 2 == 0 else "udp",
        "ports": 1 + number % 60_000,
        "remote_prefix": source,
    }


def gateway_mac() -> bytes:
    return parse_mac(GATEWAY_MAC)
