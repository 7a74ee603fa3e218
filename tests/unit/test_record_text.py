"""Records in words."""

from __future__ import annotations

import json

import pytest

from ondemand.addresses import Prefix, parse_ip, parse_mac, parse_prefix
from ondemand.record_text import fields_line, protocol_text, record_fields
from ondemand.records import (
    AddressPair,
    Claim,
    Direction,
    Group,
    MacPointer,
    Neighbor,
    Port,
    Route,
    Router,
    SecurityRule,
    Subnet,
)

MAC, V4, V6 = parse_mac("fa:16:3e:00:00:01"), parse_ip("10.0.0.7"), parse_ip("fd00::7")
NET = parse_prefix("10.0.0.0/24")


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (
            Port("p", MAC, "v", "s", (V4, V6), ("g", "h"), (AddressPair(NET, MAC),)),
            (
                "mac=fa:16:3e:00:00:01  vpc=v  subnet=s  fixed_ips=10.0.0.7,fd00::7  groups=g,h"
                "  pairs=10.0.0.0/24@fa:16:3e:00:00:01  port_security=yes"
            ),
        ),
        (
            Port("p", MAC, "v", "s", (), port_security=False),
            "mac=fa:16:3e:00:00:01  vpc=v  subnet=s  port_security=no",
        ),
        (
            Neighbor(V6, MAC, "s", "p", V4),
            "ip=fd00::7  mac=fa:16:3e:00:00:01  subnet=s  port=p  host=10.0.0.7",
        ),
        (MacPointer(MAC, "s", "p", V4), "mac=fa:16:3e:00:00:01  subnet=s  port=p  host=10.0.0.7"),
        (Subnet("s", 7, (NET,)), "vni=7  prefixes=10.0.0.0/24"),
        (
            Subnet("s", 7, (NET,), (V4,), MAC),
            "vni=7  prefixes=10.0.0.0/24  gateways=10.0.0.7  gateway_mac=fa:16:3e:00:00:01",
        ),
        (Router("r", ("s", "t")), "subnets=s,t"),
        (Route("r", Prefix(bytes(16), 0), V6), "router=r  prefix=::/0  nexthop=fd00::7"),
        (
            Claim(NET, MAC, "s", "p", V4, ("g",)),
            "prefix=10.0.0.0/24  mac=fa:16:3e:00:00:01  subnet=s  port=p  host=10.0.0.7  groups=g",
        ),
        (Group("g", "all web servers"), "name=all web servers"),
        (Group("g"), ""),
        (
            SecurityRule("r", Direction.INGRESS, 4, 6, 80, 80, NET),
            "direction=ingress  ethertype=IPv4  protocol=tcp  ports=80  remote_prefix=10.0.0.0/24",
        ),
        (
            SecurityRule("r", Direction.EGRESS, 6, 17, 80, 90, remote_group="g"),
            "direction=egress  ethertype=IPv6  protocol=udp  ports=80-90  remote_group=g",
        ),
        (
            SecurityRule("r", Direction.INGRESS, 6, 58, 128),
            "direction=ingress  ethertype=IPv6  protocol=icmpv6  icmp_type=128",
        ),
        (
            SecurityRule("r", Direction.INGRESS, 4, 1, 0, 0),
            "direction=ingress  ethertype=IPv4  protocol=icmp  icmp_type=0  icmp_code=0",
        ),
        (
            SecurityRule("r", Direction.INGRESS, 4),
            "direction=ingress  ethertype=IPv4  protocol=any",
        ),
        (
            SecurityRule("r", Direction.INGRESS, 4, 47),
            "direction=ingress  ethertype=IPv4  protocol=47",
        ),
    ],
)
def test_a_record_in_one_line_and_as_json(record, line):
    fields = record_fields(record)
    assert fields["type"] == type(record).__name__
    assert json.loads(json.dumps(fields)) == fields
    assert fields_line(fields) == line


def test_values_alone():
    fields = record_fields(Subnet("s", 7, (NET,)))
    assert fields["gateway_mac"] is None
    assert fields_line({"gateway_mac": None}, names=False) == "-"
    assert fields_line({"id": "s"}, names=False) == "s"


def test_protocols():
    assert [protocol_text(number) for number in (-1, 0, 1, 6, 17, 58, 132, 255)] == [
        *("any", 0, "icmp", "tcp", "udp", "icmpv6", "sctp", 255)
    ]
