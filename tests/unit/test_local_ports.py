"""Local ports and their conntrack zones."""

from __future__ import annotations

import pytest

from ondemand.local_ports import MAX_ZONE, LocalPort, Zones, port_tag
from tests.support.world_builder import CloudBuilder


def _port(*pairs: str | tuple[str, str]) -> LocalPort:
    cloud = CloudBuilder()
    cloud.subnet("net", 100, "10.0.0.0/24")
    cloud.port("vm1", "net", "10.0.0.11", mac="fa:16:3e:00:00:01", pairs=pairs)
    return cloud.world().port("vm1")


def test_a_port_has_its_own_mac_and_then_each_of_its_pairs_once() -> None:
    other, last = "02:00:00:00:00:02", "02:00:00:00:00:01"
    pairs = (("10.0.0.1", other), "10.0.0.2", ("10.0.0.3", last), ("10.0.0.4", other))
    assert [mac.hex(":") for mac in _port(*pairs).macs] == ["fa:16:3e:00:00:01", other, last]


def test_a_port_carries_its_tag_and_its_vpc() -> None:
    port = _port()
    assert port.tag == port_tag("vm1")
    assert port.tag != port_tag("vm2")
    assert port.vpc == "vpc-1"


def test_zones_are_given_out_once_each_and_never_zero() -> None:
    zones = Zones()
    taken = [zones.take() for _ in range(MAX_ZONE)]
    assert sorted(taken) == list(range(1, MAX_ZONE + 1))
    with pytest.raises(LookupError, match="all 65535 conntrack zones of this host are taken"):
        zones.take()


def test_a_zone_given_back_is_used_last() -> None:
    zones = Zones()
    first = zones.take()
    zones.give_back(first)
    assert zones.take() != first


def test_the_zone_longest_unused_comes_first() -> None:
    zones = Zones()
    for _ in range(MAX_ZONE):
        zones.take()
    for zone in (7, 5, 9):
        zones.give_back(zone)
    assert [zones.take() for _ in range(3)] == [7, 5, 9]
    with pytest.raises(LookupError):
        zones.take()
