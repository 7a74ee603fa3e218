"""The cloud that most scenarios start from: two subnets with a router, on two hosts, both families.

=====  ======  ====  ==================================
port   subnet  host  groups
=====  ======  ====  ==================================
a, a2  red     here  client: begins anything
b      red     here  web: answers on a few ports
c      red     there web
d      blue    here  web
e      blue    there web
x      red     there client
=====  ======  ====  ==================================

A web port answers and begins nothing, so that whatever it sends unasked is denied.
"""

from __future__ import annotations

from ondemand.records import SecurityRule
from tests.support.world_builder import THERE, CloudBuilder, allow

RED_VNI, BLUE_VNI = 101, 102
#: Nobody's address in subnet red, by family.
NOBODY = {4: "10.0.1.99", 6: "fd00:1::99"}


def both(direction: str, *args: object, rule_id: str, **remote: object) -> list[SecurityRule]:
    """A rule for each family; ``rule_id`` gets the family behind it."""
    return [
        allow(direction, *args, family=family, rule_id=f"{rule_id}-{family}", **remote)  # type: ignore[arg-type]
        for family in (4, 6)
    ]


def web_rules() -> list[SecurityRule]:
    return [
        *both("ingress", "tcp", (80, 81), rule_id="tcp-80"),
        *both("ingress", "tcp", 443, rule_id="tcp-443"),
        *both("ingress", "udp", 53, rule_id="udp-53"),
        *both("ingress", "sctp", 1000, rule_id="sctp-1000"),
        allow("ingress", "icmp", icmp_type=8, rule_id="ping-4"),
        allow("ingress", "icmpv6", icmp_type=128, family=6, rule_id="ping-6"),
    ]


def office() -> CloudBuilder:
    cloud = CloudBuilder()
    add_network(cloud)
    cloud.group("client", *both("egress", rule_id="out"))
    cloud.group("web", *web_rules())
    for name, subnet, number, host in (
        ("a", "red", 10, None),
        ("a2", "red", 11, None),
        ("b", "red", 12, None),
        ("c", "red", 13, THERE),
        ("d", "blue", 14, None),
        ("e", "blue", 15, THERE),
        ("x", "red", 16, THERE),
    ):
        group = "client" if name in {"a", "a2", "x"} else "web"
        add_port(cloud, name, subnet, number, host=host, groups=(group,))
    return cloud


def add_network(cloud: CloudBuilder) -> None:
    for number, (name, vni) in enumerate((("red", RED_VNI), ("blue", BLUE_VNI)), 1):
        cloud.subnet(
            name,
            vni,
            f"10.0.{number}.0/24",
            f"fd00:{number}::/64",
            gateways=(f"10.0.{number}.1", f"fd00:{number}::1"),
        )
    cloud.router("r", "red", "blue")


def add_port(
    cloud: CloudBuilder,
    name: str,
    subnet: str,
    number: int,
    *,
    host: str | None = None,
    **more: object,
) -> None:
    """A port with the addresses ``.number`` and ``::number`` of its subnet."""
    net = 1 if subnet == "red" else 2
    place = {} if host is None else {"host": host}
    cloud.port(name, subnet, f"10.0.{net}.{number}", f"fd00:{net}::{number}", **place, **more)  # type: ignore[arg-type]


def one_server(*rules: SecurityRule, host: str | None = None) -> CloudBuilder:
    """Port s with these rules, and clients a (here) and x (there) in group staff, y in none."""
    cloud = CloudBuilder()
    add_network(cloud)
    out = both("egress", rule_id="out")
    cloud.group("server", *rules)
    cloud.group("out", *out)
    cloud.group("staff")
    add_port(cloud, "s", "red", 10, host=host, groups=("server",))
    add_port(cloud, "a", "red", 11, groups=("out", "staff"))
    add_port(cloud, "y", "red", 12, groups=("out",))
    add_port(cloud, "x", "red", 13, host=THERE, groups=("out", "staff"))
    return cloud
