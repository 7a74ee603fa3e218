"""Where packets go; the property test compares with a scan over all records."""

from __future__ import annotations

import pytest

from ondemand.addresses import parse_ip, parse_mac
from ondemand.decide import locate, way_back
from ondemand.verdict import GatewayEcho, Local, Need, NoLocation, Reason, Tunnel
from tests.support.world_builder import TUNNELS, CloudBuilder, SmallWorld

TOPOLOGY = "vpc/vpc-1 topology"
CLAIMS = "vpc/vpc-1 claims"
GATEWAY_A, GATEWAY_B = parse_mac("02:67:77:00:00:64"), parse_mac("02:67:77:00:00:65")
NOBODY = parse_mac("fa:16:3e:ff:ff:ff")
THERE = parse_ip(TUNNELS["there"])


def _cloud() -> CloudBuilder:
    cloud = CloudBuilder()
    cloud.subnet("a", 100, "10.0.0.0/24", "fd00:a::/64", gateways=("10.0.0.1", "fd00:a::1"))
    cloud.subnet("b", 101, "10.0.1.0/24", gateways=("10.0.1.1",))
    cloud.subnet("alone", 102, "10.0.2.0/24", gateways=("10.0.2.1",))
    cloud.subnet("bare", 103, "10.0.3.0/24")
    cloud.router(
        "r",
        "a",
        "b",
        routes={
            "192.0.2.0/24": "10.0.0.12",
            "192.0.2.128/25": "10.0.1.11",
            "198.51.100.0/24": "10.9.9.9",
            "203.0.113.0/24": "10.0.0.99",
            "203.0.113.128/25": "10.0.0.1",
        },
    )
    cloud.port("a1", "a", "10.0.0.11", "fd00:a::11")
    cloud.port("a2", "a", "10.0.0.12", "fd00:a::12")
    cloud.port("a3", "a", "10.0.0.13", "fd00:a::13", host="there")
    cloud.port("b1", "b", "10.0.1.11", host="there")
    cloud.port("b2", "b", "10.0.1.12")
    cloud.port("lone", "alone", "10.0.2.11")
    cloud.port("plain", "bare", "10.0.3.11")
    return cloud


@pytest.fixture
def cloud() -> CloudBuilder:
    return _cloud()


@pytest.fixture
def small(cloud: CloudBuilder) -> SmallWorld:
    return cloud.world()


def _reason(location: object) -> Reason:
    assert isinstance(location, NoLocation)
    return location.reason


# -- inside a subnet ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("ip", "shard"), [("10.0.0.12", "10.0.0.0"), ("fd00:a::12", "fd00:a::")])
def test_a_neighbor_on_this_host(
    cloud: CloudBuilder, small: SmallWorld, ip: str, shard: str
) -> None:
    neighbor = f"nbr/vpc-1/{shard} ip/{ip}"
    assert small.locate("a1", cloud.mac("a2"), ip) == Local(
        "a2", ("local a1", TOPOLOGY, neighbor, "local a2"), None
    )


def test_a_neighbor_on_another_host(cloud: CloudBuilder, small: SmallWorld) -> None:
    neighbor = "nbr/vpc-1/10.0.0.0 ip/10.0.0.13"
    assert small.locate("a1", cloud.mac("a3"), "10.0.0.13") == Tunnel(
        THERE, 100, ("local a1", TOPOLOGY, neighbor, "local a3"), None
    )


def test_a_port_of_this_host_without_an_interface(cloud: CloudBuilder) -> None:
    small = cloud.world(plugged=["a1"])
    location = small.locate("a1", cloud.mac("a2"), "10.0.0.12")
    assert _reason(location) is Reason.NOT_PLUGGED
    assert isinstance(location, NoLocation)
    assert location.tags[-1] == "local a2", "its plugging changes this"


def test_a_port_that_moved_here_is_found_before_its_record_says_so(cloud: CloudBuilder) -> None:
    small = cloud.world()
    small.world.ports["a3"] = small.port("a2")
    assert isinstance(small.locate("a1", cloud.mac("a3"), "10.0.0.13"), Local)


def test_an_address_sent_to_the_wrong_mac(cloud: CloudBuilder, small: SmallWorld) -> None:
    location = small.locate("a1", cloud.mac("a3"), "10.0.0.12")
    assert _reason(location) is Reason.UNKNOWN_MAC
    assert [need.key for need in small.asked] == ["ip/10.0.0.12", "mac/a/fa:16:3e:00:00:03"]


def test_an_address_that_nobody_has(small: SmallWorld) -> None:
    location = small.locate("a1", NOBODY, "10.0.0.99")
    assert _reason(location) is Reason.UNKNOWN_NEIGHBOR
    assert isinstance(location, NoLocation)
    assert location.tags[:5] == (
        "local a1",
        TOPOLOGY,
        "nbr/vpc-1/10.0.0.0 ip/10.0.0.99",
        CLAIMS,
        TOPOLOGY,
    )


def test_a_mac_of_another_subnet_is_not_reached_past_the_router(
    cloud: CloudBuilder, small: SmallWorld
) -> None:
    location = small.locate("a1", cloud.mac("b2"), "10.0.1.12")
    assert _reason(location) is Reason.UNKNOWN_MAC


def test_a_port_that_forwards_takes_any_address(cloud: CloudBuilder) -> None:
    cloud.port("nat", "a", "10.0.0.50", pairs=("0.0.0.0/0",))
    cloud.port("open", "a", "10.0.0.51", host="there", port_security=False)
    small = cloud.world()
    through = small.locate("a1", cloud.mac("nat"), "8.8.8.8")
    assert isinstance(through, Local)
    assert through.port == "nat"
    assert any(tag.startswith("nbr/vpc-1/mac-") for tag in through.tags)
    away = small.locate("a1", cloud.mac("open"), "8.8.8.8")
    assert isinstance(away, Tunnel)
    assert (away.host, away.vni) == (THERE, 100)


def test_a_claimed_address_is_reached_with_the_mac_of_its_pair(cloud: CloudBuilder) -> None:
    virtual = "02:00:5e:00:01:01"
    cloud.port("lb1", "a", "10.0.0.61", pairs=(("10.0.0.60", virtual),))
    cloud.port("lb2", "a", "10.0.0.62", pairs=(("10.0.0.60", virtual),), host="there")
    small = cloud.world()
    location = small.locate("a1", parse_mac(virtual), "10.0.0.60")
    assert isinstance(location, Local)
    assert location.port == "lb1", "the first of those who claim it alike"
    other = small.locate("a1", cloud.mac("lb2"), "10.0.0.60")
    assert isinstance(other, Tunnel), "a MAC of its own says which one is meant"


@pytest.mark.parametrize(
    ("mac", "ip"),
    [
        ("ff:ff:ff:ff:ff:ff", "10.0.0.255"),
        ("01:00:5e:00:00:12", "224.0.0.18"),
        ("33:33:00:00:00:01", "ff02::1"),
        ("33:33:00:00:00:01", "10.0.0.12"),
        ("fa:16:3e:00:00:02", "224.0.0.1"),
        ("fa:16:3e:00:00:02", "239.255.255.255"),
        ("fa:16:3e:00:00:02", "ff05::2"),
    ],
)
def test_broadcast_and_multicast_go_nowhere(small: SmallWorld, mac: str, ip: str) -> None:
    location = small.locate("a1", parse_mac(mac), ip)
    assert location == NoLocation(Reason.MULTICAST, ("local a1",))
    assert small.asked == []


# -- through the router ------------------------------------------------------------------------------


def test_a_packet_to_another_subnet_is_rewritten(cloud: CloudBuilder, small: SmallWorld) -> None:
    here = small.locate("a1", GATEWAY_A, "10.0.1.12")
    assert here == Local(
        "b2",
        ("local a1", TOPOLOGY, "nbr/vpc-1/10.0.1.0 ip/10.0.1.12", "local b2"),
        (GATEWAY_B, cloud.mac("b2")),
    )
    there = small.locate("a1", GATEWAY_A, "10.0.1.11")
    assert isinstance(there, Tunnel)
    assert (there.host, there.vni) == (THERE, 101)
    assert there.rewrite == (GATEWAY_B, cloud.mac("b1"))


def test_a_packet_to_the_own_subnet_may_go_by_way_of_the_gateway(
    cloud: CloudBuilder, small: SmallWorld
) -> None:
    location = small.locate("a1", GATEWAY_A, "10.0.0.12")
    assert isinstance(location, Local)
    assert location.rewrite == (GATEWAY_A, cloud.mac("a2"))


@pytest.mark.parametrize("ip", ["10.0.0.1", "fd00:a::1", "10.0.1.1"])
def test_every_address_of_the_router_is_its_own(small: SmallWorld, ip: str) -> None:
    assert small.locate("a1", GATEWAY_A, ip) == GatewayEcho(("local a1", TOPOLOGY))


def test_the_router_answers_nothing_but_ping(small: SmallWorld) -> None:
    location = small.locate("a1", GATEWAY_A, "10.0.0.1", echo=False)
    assert location == NoLocation(Reason.GATEWAY, ("local a1", TOPOLOGY))


def test_a_static_route_leads_to_its_next_hop(cloud: CloudBuilder, small: SmallWorld) -> None:
    near = small.locate("a1", GATEWAY_A, "192.0.2.1")
    assert isinstance(near, Local)
    assert (near.port, near.rewrite) == ("a2", (GATEWAY_A, cloud.mac("a2")))
    assert "nbr/vpc-1/10.0.0.0 ip/10.0.0.12" in near.tags
    far = small.locate("a1", GATEWAY_A, "192.0.2.129")
    assert isinstance(far, Tunnel)
    assert far.rewrite == (GATEWAY_B, cloud.mac("b1"))


@pytest.mark.parametrize(
    ("sender", "gateway", "ip", "reason"),
    [
        ("a1", GATEWAY_A, "10.0.1.99", Reason.UNKNOWN_NEIGHBOR),
        ("a1", GATEWAY_A, "8.8.8.8", Reason.NO_ROUTE),
        ("a1", GATEWAY_A, "10.0.2.11", Reason.NO_ROUTE),
        ("a1", GATEWAY_A, "fd00:b::1", Reason.NO_ROUTE),
        ("a1", GATEWAY_A, "198.51.100.1", Reason.NEXT_HOP_UNKNOWN),
        ("a1", GATEWAY_A, "203.0.113.1", Reason.NEXT_HOP_UNKNOWN),
        ("a1", GATEWAY_A, "203.0.113.129", Reason.NEXT_HOP_UNKNOWN),
        ("lone", parse_mac("02:67:77:00:00:66"), "10.0.0.11", Reason.NO_ROUTER),
        ("lone", parse_mac("02:67:77:00:00:66"), "10.0.2.1", Reason.NO_ROUTER),
        ("plain", GATEWAY_A, "10.0.0.11", Reason.UNKNOWN_MAC),
        ("a1", GATEWAY_B, "10.0.1.12", Reason.UNKNOWN_MAC),
    ],
)
def test_what_the_router_does_not_know(
    small: SmallWorld, sender: str, gateway: bytes, ip: str, reason: Reason
) -> None:
    location = small.locate(sender, gateway, ip)
    assert _reason(location) is reason
    assert isinstance(location, NoLocation)
    assert TOPOLOGY in location.tags


def test_a_neighbor_record_that_names_another_subnet_is_not_routed_to() -> None:
    """The address lies in b, its record says a: it is not delivered into b's VNI."""
    cloud = _cloud()
    cloud.port("astray", "a", "10.0.1.77", host="there")
    location = cloud.world().locate("a1", GATEWAY_A, "10.0.1.77")
    assert _reason(location) is Reason.UNKNOWN_NEIGHBOR


# -- what is needed ----------------------------------------------------------------------------------


def test_needs_are_asked_for_one_after_the_other(cloud: CloudBuilder, small: SmallWorld) -> None:
    world, port = small.world, small.port("a1")
    ip = parse_ip("10.0.0.12")
    need = locate(world, port, cloud.mac("a2"), ip)
    assert need == Need("nbr/vpc-1/10.0.0.0", "ip/10.0.0.12")
    routed = locate(world, port, GATEWAY_A, parse_ip("10.0.1.12"))
    assert routed == Need("nbr/vpc-1/10.0.1.0", "ip/10.0.1.12")
    small.cache.release("vpc/vpc-1")
    world.slice_changed("vpc/vpc-1")
    assert locate(world, port, cloud.mac("a2"), ip) == Need("vpc/vpc-1", "")


def test_tenants_with_equal_addresses_never_meet(cloud: CloudBuilder) -> None:
    cloud.subnet("x", 200, "10.0.0.0/24", gateways=("10.0.0.1",), vpc="vpc-2")
    cloud.port("x1", "x", "10.0.0.11", mac=cloud.mac("a1").hex(":"))
    cloud.port("x2", "x", "10.0.0.77")
    small = cloud.world()
    assert _reason(small.locate("a1", cloud.mac("x2"), "10.0.0.77")) is Reason.UNKNOWN_NEIGHBOR
    own = small.locate("x2", cloud.mac("a1"), "10.0.0.11")
    assert isinstance(own, Local)
    assert own.port == "x1"


# -- the way back ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("port", "remote", "gateway"),
    [
        ("a1", "10.0.0.12", None),
        ("a1", "fd00:a::12", None),
        ("a1", "10.0.1.12", GATEWAY_A),
        ("a1", "fd00:b::1", GATEWAY_A),
        ("plain", "10.0.0.11", None),
    ],
)
def test_an_answer_goes_to_the_remote_or_to_the_gateway(
    small: SmallWorld, port: str, remote: str, gateway: bytes | None
) -> None:
    assert way_back(small.port(port), NOBODY, parse_ip(remote)) == (gateway or NOBODY)
