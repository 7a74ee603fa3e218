"""The goal state of a region as slices of payloads, and the changes that are made to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ondemand.addresses import Prefix
from ondemand.codec import encode_record
from ondemand.records import (
    AddressPair,
    Direction,
    Group,
    Port,
    Record,
    Router,
    SecurityRule,
    Subnet,
)
from ondemand.slices import group_slice, host_slice, vpc_slice
from scale.region import (
    COMMON,
    GROUPS,
    SHARD,
    SUBNET,
    VPC,
    Region,
    host_id,
    mac_of,
    neighbor,
    neighbor_ip,
    port_id,
    shard_slice,
)

_VNI: Final = 5001
_GATEWAY: Final = bytes((10, 0, 0, 1))
_GATEWAY_MAC: Final = bytes((2, 0, 0x5E, 0, 0, 1))
_TCP: Final = 6

#: Key -> payload.
Payloads = dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Change:
    """One record written, and how many hosts hold it or its slice.

    ``kind`` is ``group`` (all hosts hold it), ``port`` (one does) or ``move`` (a few).
    """

    kind: str
    slice: str
    key: str
    payload: bytes
    hosts: tuple[int, ...]


def slices_of(
    region: Region, *, in_use_only: bool = False, neighbors: bool = True
) -> Iterator[tuple[str, Payloads]]:
    """All slices of a region; ``in_use_only`` leaves out neighbor shards that no host holds.

    ``neighbors`` False leaves out all of them.
    """
    yield vpc_slice(VPC), _payloads(_vpc_records())
    for name in (COMMON, *(f"g{number}" for number in range(GROUPS))):
        yield group_slice(name), _payloads(_group_records(region, name))
    for host in range(region.hosts):
        yield host_slice(host_id(host)), _payloads(_port_records(region, host))
    if not neighbors:
        return
    shards = region.followers_of if in_use_only else range(region.all_shards)
    for shard in shards:
        yield (
            shard_slice(shard),
            _payloads([neighbor(region, number) for number in region.members(shard)]),
        )


def _payloads(records: list[Record]) -> Payloads:
    return {record.key: encode_record(record) for record in records}


def _vpc_records() -> list[Record]:
    subnet = Subnet(
        id=SUBNET,
        vni=_VNI,
        prefixes=(Prefix(bytes((10, 0, 0, 0)), 8),),
        gateways=(_GATEWAY,),
        gateway_mac=_GATEWAY_MAC,
    )
    return [subnet, Router(id="main", subnets=(SUBNET,))]


def _group_records(region: Region, group: str) -> list[Record]:
    return [Group(id=group), *(_rule(number) for number in range(region.rules))]


def _rule(number: int, *, port: int | None = None) -> SecurityRule:
    low = 1 + number % 60_000 if port is None else port
    return SecurityRule(
        id=f"r{number}",
        direction=Direction.INGRESS if number % 2 else Direction.EGRESS,
        family=4,
        protocol=_TCP,
        port_min=low,
        port_max=low,
        remote_group=COMMON,
    )


def _port_records(region: Region, host: int) -> list[Record]:
    return [_port(region, host, port) for port in range(region.ports_per_host)]


def _port(region: Region, host: int, port: int, *, pair: int | None = None) -> Port:
    number = host * region.ports_per_host + port
    mac = mac_of(number)
    claimed = () if pair is None else (AddressPair(Prefix(neighbor_ip(pair), 32), mac),)
    return Port(
        id=port_id(host, port),
        mac=mac,
        vpc=VPC,
        subnet=SUBNET,
        fixed_ips=(neighbor_ip(number),),
        groups=(COMMON, region.group_of(host)),
        pairs=claimed,
    )


class Changes:
    """Makes changes, each unlike all before it."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._made = 0

    def make(self, kind: str) -> Change:
        """The next change of a kind; see ``Change``."""
        self._made += 1
        return {"group": self._group, "port": self._port, "move": self._move}[kind](self._made)

    def _group(self, number: int) -> Change:
        record = _rule(0, port=60_000 - number)
        hosts = tuple(range(self._region.hosts))
        return Change("group", group_slice(COMMON), record.key, encode_record(record), hosts)

    def _port(self, number: int) -> Change:
        host = number * 7919 % self._region.hosts
        record = _port(self._region, host, 0, pair=number)
        name = host_slice(host_id(host))
        return Change("port", name, record.key, encode_record(record), (host,))

    def _move(self, number: int) -> Change:
        region = self._region
        shards = tuple(region.followers_of)
        shard = shards[number * 7919 % len(shards)]
        hosts = region.followers_of[shard]
        moved = region.held_neighbors(hosts[0])[shard][0]
        # Never the host where it begins, nor one where it has been.
        record = neighbor(region, moved, host=moved // region.ports_per_host + number)
        return Change("move", shard_slice(shard), record.key, encode_record(record), hosts)


def goal_bytes(region: Region, host: int, sizes: dict[str, int]) -> int:
    """Bytes of keys and payloads of what a host holds; ``sizes`` are those of whole slices by name.

    Of a neighbor shard the share of the records held is counted.
    """
    total = sum(sizes[name] for name in region.whole_slices(host))
    for shard, numbers in region.held_neighbors(host).items():
        total += sizes[shard_slice(shard)] * len(numbers) // len(region.members(shard))
    return total


__all__ = ["SHARD", "Change", "Changes", "Payloads", "goal_bytes", "slices_of"]
