"""Who has an address: the port that holds it as a fixed IP, else the port that claims it.

Neutron's meaning: an address belongs to the groups of the port that holds it. Only an address that
nobody holds takes the groups of the ports that claim it by an allowed address pair, and a pair claims
only inside its port's own subnet. So a pair of 0.0.0.0/0 makes no stranger a member.
"""

from __future__ import annotations

import msgspec

from ondemand.records import Neighbor
from ondemand.slice_cache import neighbor_place, record_tag
from ondemand.slices import vpc_slice
from ondemand.topology import Topology
from ondemand.verdict import Need
from ondemand.world import World
from rule_cache.tags import Tag


class Holder(msgspec.Struct, frozen=True, gc=False):
    """The port at an address, and all groups that the address is a member of.

    When several ports claim an address, it is a member of the groups of all of them, and reached at
    the one with the longest prefix; if some claim it alike (a virtual IP), these are the ``sharers``,
    and it is reached at the one whose id comes first.
    """

    mac: bytes
    subnet: str
    port: str
    host: bytes
    groups: tuple[str, ...]
    #: Ids of the ports that claim the address by the longest prefix; none when somebody holds it.
    sharers: tuple[str, ...] = ()


def topology_tag(vpc: str) -> Tag:
    """Subnets, routers and routes of a VPC."""
    return record_tag(vpc_slice(vpc), "topology")


def claims_tag(vpc: str) -> Tag:
    """All address claims of a VPC."""
    return record_tag(vpc_slice(vpc), "claims")


def holder_of(
    world: World, topology: Topology, vpc: str, ip: bytes, reads: list[Tag]
) -> Holder | Need | None:
    """Who has ``ip`` in a VPC; None when nobody holds or claims it. Adds what it read to ``reads``."""
    held = world.cache.neighbor(vpc, ip)
    if held is None:
        return Need(*neighbor_place(vpc, ip))
    reads.append(held.tag)
    record = held.record
    if isinstance(record, Neighbor):
        return Holder(record.mac, record.subnet, record.port, record.host, record.groups)
    reads.append(claims_tag(vpc))
    reads.append(topology_tag(vpc))
    for subnet in topology.subnet_of(ip):
        claims = topology.claims(subnet.id, ip)
        if claims:
            groups = tuple(dict.fromkeys(group for claim in claims for group in claim.groups))
            first = claims[0]
            sharers = tuple(c.port for c in claims if c.prefix.length == first.prefix.length)
            return Holder(first.mac, first.subnet, first.port, first.host, groups, sharers)
    return None
