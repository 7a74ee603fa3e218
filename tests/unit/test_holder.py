"""Who has an address: a fixed IP before a claim, a claim in the port's own subnet only."""

from __future__ import annotations

import msgspec

from ondemand.addresses import parse_ip, parse_prefix
from ondemand.holder import Holder, claims_tag, holder_of, topology_tag
from ondemand.slice_cache import neighbor_place, record_tag
from ondemand.verdict import Need
from rule_cache.tags import Tag
from tests.support.world_builder import (
    TUNNELS,
    VPC,
    CloudBuilder,
    SmallWorld,
)

SHARED_MAC = "02:00:5e:00:01:01"


def _cloud() -> CloudBuilder:
    cloud = CloudBuilder()
    cloud.subnet("net", 100, "10.0.0.0/24", "fd00::/64")
    cloud.subnet("other", 101, "10.0.1.0/24")
    for group in ("web", "db", "all"):
        cloud.group(group)
    cloud.port("web1", "net", "10.0.0.11", "fd00::11", groups=("web",), host="there")
    cloud.port("db1", "net", "10.0.0.21", groups=("db",), pairs=("10.0.0.11/32", "10.0.0.50/32"))
    return cloud


def _find(small: SmallWorld, ip: str) -> tuple[Holder | None, list[Tag]]:
    topology = small.world.topology(VPC)
    assert topology is not None
    reads: list[Tag] = []
    holder = holder_of(small.world, topology, VPC, parse_ip(ip), reads)
    if isinstance(holder, Need):
        assert reads == [], "nothing was read yet"
        small.answer(holder)
        holder = holder_of(small.world, topology, VPC, parse_ip(ip), reads)
    assert not isinstance(holder, Need)
    return holder, reads


def _neighbor_tag(ip: str) -> Tag:
    return record_tag(*neighbor_place(VPC, parse_ip(ip)))


def test_a_fixed_ip_has_the_groups_of_its_port_whoever_claims_it() -> None:
    cloud = _cloud()
    small = cloud.world()
    for ip in ("10.0.0.11", "fd00::11"):
        holder, reads = _find(small, ip)
        assert holder == Holder(
            cloud.mac("web1"), "net", "web1", parse_ip(TUNNELS["there"]), ("web",)
        )
        assert reads == [_neighbor_tag(ip)]


def test_what_must_be_asked_for_is_named() -> None:
    small = _cloud().world()
    _find(small, "10.0.0.11")
    assert small.asked == [Need("nbr/vpc-1/10.0.0.0", "ip/10.0.0.11")]


def test_an_address_that_nobody_holds_is_of_who_claims_it() -> None:
    cloud = _cloud()
    holder, reads = _find(cloud.world(), "10.0.0.50")
    assert holder == Holder(
        cloud.mac("db1"), "net", "db1", parse_ip(TUNNELS["here"]), ("db",), sharers=("db1",)
    )
    assert reads == [_neighbor_tag("10.0.0.50"), claims_tag(VPC), topology_tag(VPC)]


def test_an_absence_is_read_too() -> None:
    holder, reads = _find(_cloud().world(), "10.0.0.99")
    assert holder is None
    assert reads == [_neighbor_tag("10.0.0.99"), claims_tag(VPC), topology_tag(VPC)]


def test_a_shared_address_has_the_groups_of_all_who_claim_it() -> None:
    cloud = _cloud()
    cloud.port("lb2", "net", "10.0.0.32", groups=("web", "all"), pairs=("10.0.0.60/32",))
    cloud.port("lb1", "net", "10.0.0.31", groups=("all", "db"), pairs=(("10.0.0.60", SHARED_MAC),))
    holder, _ = _find(cloud.world(), "10.0.0.60")
    assert holder is not None
    assert (holder.port, holder.mac.hex(":")) == ("lb1", SHARED_MAC)
    assert set(holder.groups) == {"web", "db", "all"}
    assert len(holder.groups) == 3


def test_the_narrower_claim_counts() -> None:
    cloud = _cloud()
    cloud.port("any", "net", "10.0.0.70", groups=("all",), pairs=("10.0.0.0/24",))
    small = cloud.world()
    narrow, _ = _find(small, "10.0.0.50")
    wide, _ = _find(small, "10.0.0.51")
    assert narrow is not None
    assert wide is not None
    assert (narrow.port, wide.port) == ("db1", "any")


def test_a_pair_of_everything_makes_no_stranger_a_member() -> None:
    cloud = _cloud()
    cloud.port("nat", "net", "10.0.0.80", groups=("all",), pairs=("0.0.0.0/0", "::/0"))
    small = cloud.world()
    for ip, claimed in (
        ("192.0.2.99", False),
        ("10.0.1.99", False),
        ("fd01::1", False),
        ("10.0.0.99", True),
        ("fd00::99", True),
    ):
        holder, _ = _find(small, ip)
        assert (holder is not None) == claimed, ip
    held, _ = _find(small, "10.0.0.11")
    assert held is not None
    assert held.port == "web1"


def test_a_claim_outside_its_subnet_counts_for_nothing_even_when_it_was_published() -> None:
    small = _cloud().world()
    claim = next(
        record
        for record in (small.cache.whole("vpc/vpc-1") or {}).values()
        if record.key.startswith("claim/10.0.0.50")
    )
    small.put("vpc/vpc-1", msgspec.structs.replace(claim, prefix=parse_prefix("10.0.0.0/8")))
    assert _find(small, "10.0.1.5")[0] is None
    assert _find(small, "10.0.0.5")[0] is not None


def test_a_claim_ends_when_somebody_comes_to_hold_the_address() -> None:
    cloud = _cloud()
    small = cloud.world()
    assert _find(small, "10.0.0.50")[0] is not None
    holder, _ = _find(small, "10.0.0.11")
    assert holder is not None
    name, key = neighbor_place(VPC, parse_ip("10.0.0.11"))
    small.remove(name, key)
    claimed, _ = _find(small, "10.0.0.11")
    assert claimed is not None
    assert (claimed.port, claimed.sharers) == ("db1", ("db1",))
