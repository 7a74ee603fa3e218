"""Who answers ARP and neighbor discovery; the property test compares with a scan over all records."""

from __future__ import annotations

import msgspec
import pytest

from ondemand.addresses import parse_ip, parse_mac
from ondemand.decide import resolve
from ondemand.verdict import Answer, Need, NoAnswer, Reason
from tests.support.world_builder import CloudBuilder, SmallWorld

TOPOLOGY = "vpc/vpc-1 topology"
VIRTUAL = "02:00:5e:00:01:01"


@pytest.fixture
def cloud() -> CloudBuilder:
    cloud = CloudBuilder()
    cloud.subnet("a", 100, "10.0.0.0/24", "fd00:a::/64", gateways=("10.0.0.1", "fd00:a::1"))
    cloud.subnet("b", 101, "10.0.1.0/24", gateways=("10.0.1.1",))
    cloud.router("r", "a", "b")
    cloud.port("a1", "a", "10.0.0.11", "fd00:a::11")
    cloud.port("a2", "a", "10.0.0.12", "fd00:a::12", host="there")
    cloud.port("b1", "b", "10.0.1.11")
    cloud.port("lb1", "a", "10.0.0.61", pairs=(("10.0.0.60", VIRTUAL),))
    cloud.port("lb2", "a", "10.0.0.62", pairs=(("10.0.0.60", VIRTUAL),))
    return cloud


@pytest.fixture
def small(cloud: CloudBuilder) -> SmallWorld:
    return cloud.world()


@pytest.mark.parametrize("target", ["10.0.0.1", "fd00:a::1"])
def test_the_gateway_answers_as_a_router(small: SmallWorld, target: str) -> None:
    mac = parse_mac("02:67:77:00:00:64")
    assert small.resolve("a1", target) == Answer(mac, router=True, tags=("local a1", TOPOLOGY))
    assert small.asked == []


def test_a_neighbor_answers(cloud: CloudBuilder, small: SmallWorld) -> None:
    tags = ("local a1", TOPOLOGY, "nbr/vpc-1/10.0.0.0 ip/10.0.0.12")
    assert small.resolve("a1", "10.0.0.12") == Answer(cloud.mac("a2"), router=False, tags=tags)
    answer = small.resolve("a1", "fd00:a::12")
    assert isinstance(answer, Answer)
    assert answer.mac == cloud.mac("a2")


def test_a_virtual_address_answers_with_its_mac(small: SmallWorld) -> None:
    answer = small.resolve("a1", "10.0.0.60")
    assert isinstance(answer, Answer)
    assert answer.mac == parse_mac(VIRTUAL)


@pytest.mark.parametrize(
    ("asker", "target", "reason"),
    [
        ("a1", "10.0.0.11", Reason.OWN_ADDRESS),
        ("a1", "fd00:a::11", Reason.OWN_ADDRESS),
        ("a1", "10.0.0.99", Reason.UNKNOWN_NEIGHBOR),
        ("a1", "10.0.1.11", Reason.NOT_IN_SUBNET),
        ("a1", "10.0.1.1", Reason.NOT_IN_SUBNET),
        ("a1", "fe80::1", Reason.NOT_IN_SUBNET),
        ("b1", "fd00:a::12", Reason.NOT_IN_SUBNET),
        # Each of two that share an address tests whether somebody else has it.
        ("lb1", "10.0.0.60", Reason.OWN_ADDRESS),
        ("lb2", "10.0.0.60", Reason.OWN_ADDRESS),
    ],
)
def test_nobody_answers(small: SmallWorld, asker: str, target: str, reason: Reason) -> None:
    answer = small.resolve(asker, target)
    assert isinstance(answer, NoAnswer)
    assert answer.reason is reason


def test_an_absence_is_read(small: SmallWorld) -> None:
    answer = small.resolve("a1", "10.0.0.99")
    assert "nbr/vpc-1/10.0.0.0 ip/10.0.0.99" in answer.tags
    assert "vpc/vpc-1 claims" in answer.tags


def test_a_fixed_ip_of_another_is_told_to_who_claims_it(cloud: CloudBuilder) -> None:
    cloud.port("greedy", "a", "10.0.0.70", pairs=("0.0.0.0/0",))
    answer = cloud.world().resolve("greedy", "10.0.0.12")
    assert isinstance(answer, Answer)
    assert answer.mac == cloud.mac("a2")


def test_a_port_whose_record_is_behind_its_neighbor_record_learns_nothing(
    cloud: CloudBuilder,
) -> None:
    small = cloud.world()
    port = small.port("a1")
    port.record = msgspec.structs.replace(port.record, fixed_ips=())
    answer = small.resolve("a1", "10.0.0.11")
    assert isinstance(answer, NoAnswer)
    assert answer.reason is Reason.OWN_ADDRESS, "its neighbor record still says that it has it"


def test_a_record_of_another_subnet_answers_nobody(cloud: CloudBuilder) -> None:
    cloud.port("astray", "b", "10.0.0.77")
    answer = cloud.world().resolve("a1", "10.0.0.77")
    assert isinstance(answer, NoAnswer)
    assert answer.reason is Reason.UNKNOWN_NEIGHBOR


def test_needs(small: SmallWorld) -> None:
    target = parse_ip("10.0.0.12")
    port = small.port("a1")
    assert resolve(small.world, port, target) == Need("nbr/vpc-1/10.0.0.0", "ip/10.0.0.12")
    small.cache.release("vpc/vpc-1")
    small.world.slice_changed("vpc/vpc-1")
    assert resolve(small.world, port, target) == Need("vpc/vpc-1", "")
