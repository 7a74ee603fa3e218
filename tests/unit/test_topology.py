"""A VPC as its slice describes it."""

from __future__ import annotations

import pytest

from ondemand.addresses import Prefix, parse_ip, parse_mac, parse_prefix
from ondemand.records import Claim, Record, Route, Router, Subnet
from ondemand.topology import PrefixTable, Topology

HOST = parse_ip("192.0.2.1")
GATEWAY_MAC = parse_mac("02:67:77:00:00:01")


def _subnet(name: str, vni: int, *prefixes: str, gateways: tuple[str, ...] = ()) -> Subnet:
    return Subnet(
        name,
        vni,
        tuple(parse_prefix(prefix) for prefix in prefixes),
        tuple(parse_ip(gateway) for gateway in gateways),
        GATEWAY_MAC if gateways else b"",
    )


def _topology(*records: Record) -> Topology:
    return Topology({record.key: record for record in records})


A = _subnet("a", 1, "10.0.0.0/24", "fd00:a::/64", gateways=("10.0.0.1", "fd00:a::1"))
B = _subnet("b", 2, "10.0.1.0/24", gateways=("10.0.1.1",))


@pytest.mark.parametrize(
    ("ip", "values"),
    [
        ("10.0.0.1", ["host", "same"]),
        ("10.0.0.2", ["net"]),
        ("10.0.1.1", ["wide"]),
        ("11.0.0.1", ["default"]),
        ("fd00::1", ["net6"]),
        ("fd01::1", []),
    ],
)
def test_the_longest_prefix_wins(ip: str, values: list[object]) -> None:
    rows: list[tuple[str, object]] = [
        ("0.0.0.0/0", "default"),
        ("10.0.0.0/8", "wide"),
        ("10.0.0.0/24", "net"),
        ("10.0.0.1/32", "host"),
        ("10.0.0.1/32", "same"),
        ("fd00::/64", "net6"),
    ]
    table = PrefixTable((parse_prefix(prefix), value) for prefix, value in rows)
    assert list(table.matches(parse_ip(ip)))[: len(values)] == values


def test_an_empty_table_holds_nothing() -> None:
    assert list(PrefixTable().matches(parse_ip("10.0.0.1"))) == []


def test_a_default_route_of_one_family_is_none_of_the_other() -> None:
    table = PrefixTable([(Prefix(bytes(16), 0), "default")])
    assert list(table.matches(parse_ip("10.0.0.1"))) == []
    assert list(table.matches(parse_ip("fd00::1"))) == ["default"]


def test_a_router_joins_its_subnets() -> None:
    topology = _topology(A, B, Router("r", ("a", "b")))
    router = topology.router_of("a")
    assert router is not None
    assert topology.router_of("b") is router
    assert (router.id, router.subnets) == ("r", (A, B))
    assert router.gateways == {parse_ip(ip) for ip in ("10.0.0.1", "fd00:a::1", "10.0.1.1")}
    assert router.connected_subnet(parse_ip("10.0.1.7")) is B
    assert router.connected_subnet(parse_ip("fd00:a::7")) is A
    assert router.connected_subnet(parse_ip("10.0.2.1")) is None
    assert router.route(parse_ip("10.0.2.1")) is None
    assert topology.problems == []


def test_static_routes_belong_to_their_router() -> None:
    wide = Route("r", parse_prefix("10.0.0.0/8"), parse_ip("10.0.0.5"))
    narrow = Route("r", parse_prefix("10.9.0.0/16"), parse_ip("10.0.0.6"))
    other = Route("q", parse_prefix("10.9.9.0/24"), parse_ip("10.0.1.6"))
    topology = _topology(A, B, Router("r", ("a",)), Router("q", ("b",)), wide, narrow, other)
    router = topology.router_of("a")
    assert router is not None
    assert router.route(parse_ip("10.9.9.9")) == narrow
    assert router.route(parse_ip("10.8.0.1")) == wide
    assert router.route(parse_ip("192.0.2.1")) is None


def test_a_subnet_without_a_router_has_none() -> None:
    topology = _topology(A, B, Router("r", ("a",)))
    assert topology.router_of("b") is None
    assert topology.router_of("nowhere") is None


def test_a_second_subnet_with_the_same_vni_is_left_out_and_named() -> None:
    twin = _subnet("z", 1, "10.0.9.0/24")
    topology = _topology(A, twin)
    assert topology.subnets == {"a": A}
    assert topology.problems == ["subnet 'z' has VNI 1, which is that of 'a'"]


def test_a_router_without_its_subnet_joins_the_rest() -> None:
    topology = _topology(A, Router("r", ("gone", "a")))
    router = topology.router_of("a")
    assert router is not None
    assert router.subnets == (A,)
    assert topology.problems == ["router 'r' names subnet 'gone', unknown"]


def test_a_subnet_is_on_one_router() -> None:
    topology = _topology(A, B, Router("q", ("a",)), Router("r", ("a", "b")))
    router = topology.router_of("a")
    assert router is not None
    assert router.id == "q"
    other = topology.router_of("b")
    assert other is not None
    assert other.subnets == (B,)
    assert topology.problems == ["subnet 'a' is on router 'q' already"]


def test_a_router_is_in_no_subnet_without_a_gateway() -> None:
    """A routed packet would have no source MAC there."""
    topology = _topology(A, _subnet("bare", 7, "10.0.7.0/24"), Router("r", ("a", "bare")))
    router = topology.router_of("a")
    assert router is not None
    assert router.connected_subnet(parse_ip("10.0.7.1")) is None
    assert topology.router_of("bare") is None
    assert topology.problems == ["router 'r' joins subnet 'bare', which has no gateway"]


def test_the_subnets_that_an_address_lies_in() -> None:
    overlapping = _subnet("c", 3, "10.0.0.128/25")
    topology = _topology(A, B, overlapping)
    assert topology.subnet_of(parse_ip("10.0.0.1")) == [A]
    assert topology.subnet_of(parse_ip("10.0.0.200")) == [A, overlapping]
    assert topology.subnet_of(parse_ip("fd00:a::9")) == [A]
    assert topology.subnet_of(parse_ip("192.0.2.1")) == []


def _claim(prefix: str, port: str, mac: str = "02:00:00:00:00:01", subnet: str = "a") -> Claim:
    return Claim(parse_prefix(prefix), parse_mac(mac), subnet, port, HOST)


def test_claims_by_the_longest_prefix_in_order_of_port_and_mac() -> None:
    wide, late, early = (
        _claim("10.0.0.0/24", "a1"),
        _claim("10.0.0.9/32", "p2"),
        _claim("10.0.0.9/32", "p1", "02:00:00:00:00:02"),
    )
    earliest = _claim("10.0.0.9/32", "p1", "02:00:00:00:00:01")
    topology = _topology(A, B, wide, late, early, earliest, _claim("10.0.1.0/24", "p3", subnet="b"))
    assert topology.claims("a", parse_ip("10.0.0.9")) == [earliest, early, late, wide]
    assert topology.claims("a", parse_ip("10.0.0.8")) == [wide]
    assert topology.claims("a", parse_ip("10.0.1.8")) == []
    assert topology.claims("nowhere", parse_ip("10.0.0.9")) == []


def test_an_empty_slice_has_nothing() -> None:
    topology = _topology()
    assert topology.subnets == {}
    assert topology.subnet_of(parse_ip("10.0.0.1")) == []
    assert topology.router_of("a") is None


def test_a_static_route_that_is_longer_than_a_joined_subnet_wins_and_an_equal_one_does_not() -> (
    None
):
    inside = Route("r", parse_prefix("10.0.1.7/32"), parse_ip("10.0.0.9"))
    alike = Route("r", parse_prefix("10.0.1.0/24"), parse_ip("10.0.0.9"))
    router = _topology(A, B, Router("r", ("a", "b")), inside, alike).router_of("a")
    assert router is not None
    assert router.route(parse_ip("10.0.1.7")) == inside
    assert router.route(parse_ip("10.0.1.8")) is B
    assert router.connected_subnet(parse_ip("10.0.1.7")) is B
