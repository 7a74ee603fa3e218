"""A small cloud that can be changed in any way, and what it says about each packet.

What is expected comes from the plain references, which read what was published and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ondemand.addresses import parse_prefix
from ondemand.goal_compile import CheckedVpc
from ondemand.goal_ports import PortSpec
from ondemand.records import AddressPair, SecurityRule
from tests.support.cloud_edit import change_port, set_rules
from tests.support.location_reference import Delivery, Host, delivery_of
from tests.support.office_cloud import add_network, add_port
from tests.support.policy_reference import Connection, address, is_allowed
from tests.support.world_builder import HERE, THERE, CloudBuilder, allow

LOCAL, REMOTE = ("p1", "p2", "p3", "p4"), ("q1", "q2")
PORTS = (*LOCAL, *REMOTE)
GROUPS = ("g1", "g2", "g3")
TCP_PORTS = (80, 81)
#: What a rule of a group may be; a group has any of these, for both families.
MENU: tuple[dict[str, object], ...] = (
    {"direction": "egress"},
    {"direction": "egress", "protocol": "tcp", "ports": 80},
    {"direction": "egress", "protocol": "tcp", "group": "g2"},
    {"direction": "ingress", "protocol": "tcp", "ports": (80, 81), "group": "g1"},
    {"direction": "ingress", "group": "g3"},
    {"direction": "ingress", "protocol": "tcp", "prefix": True},
    {"direction": "ingress", "protocol": "tcp", "ports": 80},
)
_PREFIX = {4: "10.0.1.0/28", 6: "fd00:1::10/124"}
#: Groups that a port may be in.
MEMBERSHIPS = (
    ("g1", "g2"),
    ("g1", "g3"),
    ("g2", "g3"),
    ("g1", "g2", "g3"),
    ("g1",),
    ("g2",),
    ("g3",),
    (),
    ("g1", "ghost"),
)
#: Addresses that ports claim, and one that is somebody's fixed IP.
CLAIMS = ("10.0.1.200/32", "10.0.1.0/24", "10.0.1.10/32", "fd00:1::200/128", "fd00:1::/64")


def walk_cloud() -> CloudBuilder:
    cloud = CloudBuilder()
    add_network(cloud)
    for group in GROUPS:
        cloud.group(group)
    set_menu(cloud, "g1", (0, 3))
    set_menu(cloud, "g2", (1, 4))
    set_menu(cloud, "g3", (2, 5))
    for number, name in enumerate(PORTS, 10):
        subnet = "blue" if name in {"p4", "q2"} else "red"
        host = HERE if name in LOCAL else THERE
        add_port(cloud, name, subnet, number, host=host, groups=MEMBERSHIPS[number % 6])
    return cloud


def set_menu(cloud: CloudBuilder, group: str, dishes: tuple[int, ...]) -> None:
    """Give a group these rules of the menu."""
    set_rules(cloud, group, *[rule for dish in sorted(set(dishes)) for rule in _rules(group, dish)])


def _rules(group: str, dish: int) -> list[SecurityRule]:
    rules = []
    for family in (4, 6):
        given = dict(MENU[dish])
        if given.pop("prefix", None):
            given["prefix"] = _PREFIX[family]
        rule_id = f"{group}-{dish}-{family}"
        rules.append(allow(family=family, rule_id=rule_id, **given))  # type: ignore[arg-type]
    return rules


def set_claims(cloud: CloudBuilder, port: str, texts: Iterable[str]) -> None:
    """Give a port allowed address pairs with these prefixes and its own MAC."""
    mac = cloud.port_spec(port).mac
    change_port(cloud, port, pairs=tuple(AddressPair(parse_prefix(text), mac) for text in texts))


def published(cloud: CloudBuilder) -> CheckedVpc:
    """The cloud as it is now, which later changes do not touch."""
    (vpc,) = cloud.vpcs
    return CheckedVpc(
        vpc.id,
        (*vpc.subnets,),
        (*vpc.routers,),
        (*vpc.routes,),
        (*vpc.groups,),
        tuple(replace(port) for port in vpc.ports),
    )


def spec_of(vpc: CheckedVpc, name: str) -> PortSpec | None:
    return next((port for port in vpc.ports if port.id == name), None)


def fixed_ip(spec: PortSpec, family: int) -> bytes | None:
    size = 4 if family == 4 else 16
    return next((ip for ip in spec.fixed_ips if len(ip) == size), None)


def may(vpc: CheckedVpc, spec: PortSpec, remote: bytes, tp_dst: int, *, egress: bool) -> bool:
    """May the port begin, or receive, a TCP connection to this destination port?"""
    connection = Connection(egress, address(remote), 6, source=40000, target=tp_dst)
    return is_allowed(vpc, spec, connection)


def place(
    vpc: CheckedVpc, here: Host, sender: PortSpec, eth_dst: bytes, ip_dst: bytes
) -> Delivery | None:
    found = delivery_of(vpc, here, sender, eth_dst, ip_dst)
    return found if isinstance(found, Delivery) else None
