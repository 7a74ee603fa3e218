"""The goal state of the demo: three hosts, twelve VMs, two subnets, a router, three groups.

On each host ``h1`` .. ``h3``, with its number in place of n::

    web-n     subnet front   groups base, web    HTTP from anybody
    client-n  subnet front   group  base         begins connections, accepts none
    db-n      subnet back    groups base, db     SQL from members of web only
    batch-n   subnet back    group  base         as client-n
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mininet_topos.goal_parts import (
    GATEWAYS,
    both_families,
    fleet_subnet,
    front_and_back,
    one_vpc,
)
from ondemand.addresses import parse_ip, parse_prefix
from ondemand.codec import encode_record
from ondemand.goal_state import compile_goal_state, encode_slices
from ondemand.publishing import Payloads
from ondemand.slices import neighbor_slice
from ondemand.synthetic import synthetic_neighbors

HOSTS: Final = 3
VPC: Final = "demo"

HTTP: Final = 80
#: A second service of the web VMs; its rules are removed while a connection lives.
ADMIN: Final = 8080
#: Served by the web VMs too, but no rule allows it.
CLOSED: Final = 81
SQL: Final = 5432
#: Big datagrams go there.
ECHO_UDP: Final = 5000

#: Ids of the rules that allow ``ADMIN``.
ADMIN_RULES: Final = ("web-admin-v4", "web-admin-v6")

#: Where the neighbors of ``--neighbors`` are: room for four million.
FLEET_PREFIX: Final = parse_prefix("10.64.0.0/10")
_FLEET_GATEWAY: Final = "10.127.255.254"
#: How many are published at a time: whole shards of 256 addresses.
_BATCH: Final = 200 * 256

#: Further addresses of web-1 and web-2, each a destination that nobody has talked to.
FRESH_DESTINATIONS: Final = 30
_FIRST_FRESH: Final = {1: 101, 2: 151}


@dataclass(frozen=True, slots=True)
class DemoVm:
    """A VM; its name is also its port's id. ``ips``: one IPv4 and one IPv6 address."""

    name: str
    host: int
    subnet: str
    mac: str
    ips: tuple[str, str]
    groups: tuple[str, ...]
    fresh_ips: tuple[str, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses with their prefix lengths."""
        own = (f"{self.ips[0]}/24", f"{self.ips[1]}/64")
        return own + tuple(f"{ip}/24" for ip in self.fresh_ips)

    @property
    def gateways(self) -> tuple[str, str]:
        return GATEWAYS[self.subnet]


def _vm(role: str, host: int, subnet: str, number: int, groups: tuple[str, ...]) -> DemoVm:
    net = 1 if subnet == "front" else 2
    host_part = f"{number}{host}"
    first = _FIRST_FRESH.get(host) if role == "web" else None
    return DemoVm(
        name=f"{role}-{host}",
        host=host,
        subnet=subnet,
        mac=f"02:00:00:00:0{net}:{host_part}",
        ips=(f"10.0.{net}.{host_part}", f"fd00:{net}::{host_part}"),
        groups=groups,
        fresh_ips=()
        if first is None
        else tuple(f"10.0.{net}.{first + n}" for n in range(FRESH_DESTINATIONS)),
    )


VMS: Final = tuple(
    _vm(role, host, subnet, number, groups)
    for host in range(1, HOSTS + 1)
    for role, subnet, number, groups in (
        ("web", "front", 1, ("base", "web")),
        ("client", "front", 2, ("base",)),
        ("db", "back", 3, ("base", "db")),
        ("batch", "back", 4, ("base",)),
    )
)
VM: Final[Mapping[str, DemoVm]] = {vm.name: vm for vm in VMS}


def demo_payloads(
    hosts: Mapping[str, str], *, without_rules: Collection[str] = (), with_fleet: bool = False
) -> Mapping[str, Payloads]:
    """The goal state as payloads of slices.

    Args:
        hosts: tunnel address of each host, by its id; in the order of their numbers.
        without_rules: ids of security rules to leave out.
        with_fleet: add the subnet of the synthetic neighbors.
    """
    document = goal_state(hosts, without_rules=without_rules, with_fleet=with_fleet)
    return encode_slices(compile_goal_state(document))


def goal_state(
    hosts: Mapping[str, str], *, without_rules: Collection[str] = (), with_fleet: bool = False
) -> dict[str, Any]:
    """The goal state as a YAML file would give it; see ``demo_payloads``."""
    host_ids = list(hosts)
    subnets = front_and_back()
    if with_fleet:
        subnets.append(fleet_subnet(str(FLEET_PREFIX), _FLEET_GATEWAY))
    groups = [
        {"id": name, "rules": [rule for rule in rules if rule["id"] not in without_rules]}
        for name, rules in (("base", _base()), ("web", _web()), ("db", _db()))
    ]
    ports = [
        {
            "id": vm.name,
            "host": host_ids[vm.host - 1],
            "subnet": vm.subnet,
            "mac": vm.mac,
            "fixed_ips": [*vm.ips, *vm.fresh_ips],
            "security_groups": list(vm.groups),
        }
        for vm in VMS
    ]
    return one_vpc(VPC, hosts, subnets=subnets, groups=groups, ports=ports)


def fleet_payloads(
    count: int, hosts: Sequence[str]
) -> Iterator[tuple[int, Mapping[str, Payloads]]]:
    """``count`` synthetic neighbors, a batch at a time: how many it has, and its slices.

    ``hosts`` are the tunnel addresses that the neighbors are spread over.
    """
    tunnels = [parse_ip(host) for host in hosts]
    for start in range(0, count, _BATCH):
        size = min(_BATCH, count - start)
        slices: dict[str, dict[str, bytes]] = {}
        for neighbor in synthetic_neighbors(
            subnet="fleet",
            prefix=FLEET_PREFIX,
            count=size,
            hosts=tunnels,
            groups=("base",),
            # Past the first shard, whose address 0 is the network's own.
            first=256 + start,
        ):
            name = neighbor_slice(VPC, neighbor.ip)
            slices.setdefault(name, {})[neighbor.key] = encode_record(neighbor)
        yield size, slices


def fleet_address(number: int) -> str:
    """The address of a synthetic neighbor, counted from 0."""
    value = int.from_bytes(FLEET_PREFIX.network, "big") + 256 + number
    return ".".join(map(str, value.to_bytes(4, "big")))


def _base() -> list[dict[str, Any]]:
    return [
        *both_families("base-out", "egress"),
        *both_families("base-ping", "ingress", protocol="icmp"),
    ]


def _web() -> list[dict[str, Any]]:
    return [
        *both_families("web-http", "ingress", protocol="tcp", ports=HTTP),
        *both_families("web-admin", "ingress", protocol="tcp", ports=ADMIN),
        *both_families("web-echo", "ingress", protocol="udp", ports=ECHO_UDP),
    ]


def _db() -> list[dict[str, Any]]:
    return both_families("db-sql", "ingress", protocol="tcp", ports=SQL, remote_group="web")
