"""A simulated region: its hosts, its VPC, and what each host holds. A function of sizes and a seed.

All ports are in one VPC with one subnet of 10.0.0.0/8. Neighbor number ``n`` has the address
10.0.1.0 + n, so shard ``s`` (a /24) holds numbers ``256 * s`` to ``256 * s + 255``. Each host holds its
own slice, the VPC, the group that all hosts share and one of ``GROUPS`` others, and of some neighbor
shards the records that its VMs talk to.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Final

from ondemand.records import Neighbor
from ondemand.slices import group_slice, host_slice, neighbor_slice, vpc_slice

VPC: Final = "region"
SUBNET: Final = "wide"
#: The group that every port of every host is in.
COMMON: Final = "all"
#: Groups of which each host has one.
GROUPS: Final = 20
SHARD: Final = 256
MAX_NUMBER: Final = (1 << 24) - 2 * SHARD
_BASE: Final = (10 << 24) + SHARD
#: RFC 1918's 172.16.0.0/12 holds the tunnel addresses.
_TUNNELS: Final = (172 << 24) + (16 << 16)
MAX_HOSTS: Final = 1 << 20


@dataclass(frozen=True)
class Region:
    """Sizes. Equal values give equal regions.

    Attributes:
        hosts: compute hosts.
        ports_per_host: VM ports of each.
        neighbors: ports of the VPC that stand in neighbor shards.
        rules: of each security group.
        shards: neighbor shards of which a host uses records.
        records: that it uses of each.
        followers: hosts that use one shard, about.
        everything: each host holds all neighbors, and not only those in use.
        seed: of the choice of shards and records.
    """

    hosts: int
    ports_per_host: int = 20
    neighbors: int = 1_000_000
    rules: int = 100
    shards: int = 4
    records: int = 2
    followers: int = 10
    everything: bool = False
    seed: int = 1

    def check(self) -> None:
        """Raise ValueError when it cannot be built."""
        ranges = (
            ("hosts", self.hosts, MAX_HOSTS),
            ("ports per host", self.ports_per_host, 4096),
            ("hosts times ports per host", self.hosts * self.ports_per_host, MAX_NUMBER),
            ("neighbors", self.neighbors, MAX_NUMBER),
            ("rules", self.rules, 100_000),
            ("shards", self.shards, 4096),
            ("records", self.records, SHARD),
            ("followers", self.followers, MAX_HOSTS),
        )
        for name, value, high in ranges:
            if not 1 <= value <= high:
                raise ValueError(f"{name}: {value:,} is not in 1..{high:,}")

    @property
    def all_shards(self) -> int:
        return -(-self.neighbors // SHARD)

    @property
    def used_shards(self) -> int:
        """As many shards are in use by anybody, so that each has about ``followers`` hosts."""
        wanted = -(-self.hosts * self.shards // self.followers)
        return max(min(self.shards, self.all_shards), min(self.all_shards, wanted))

    def members(self, shard: int) -> range:
        """The neighbors in a shard."""
        return range(shard * SHARD, min((shard + 1) * SHARD, self.neighbors))

    def group_of(self, host: int) -> str:
        return f"g{host % GROUPS}"

    def whole_slices(self, host: int) -> tuple[str, ...]:
        """The slices that a host holds whole."""
        return (
            host_slice(host_id(host)),
            vpc_slice(VPC),
            group_slice(COMMON),
            group_slice(self.group_of(host)),
        )

    def held_neighbors(self, host: int) -> Mapping[int, tuple[int, ...]]:
        """By shard, the neighbors that a host holds."""
        if self.everything:
            return {shard: tuple(self.members(shard)) for shard in range(self.all_shards)}
        return self._in_use[host]

    @cached_property
    def _in_use(self) -> Mapping[int, Mapping[int, tuple[int, ...]]]:
        found = {}
        for host in range(self.hosts):
            chance = random.Random(f"{self.seed}/{host}")
            used = self.used_shards
            chosen = sorted(chance.sample(range(used), min(self.shards, used)))
            # Spread over all shards there are.
            shards = [one * self.all_shards // used for one in chosen]
            found[host] = {
                shard: tuple(
                    sorted(
                        chance.sample(
                            self.members(shard), min(self.records, len(self.members(shard)))
                        )
                    )
                )
                for shard in shards
            }
        return MappingProxyType(found)

    @cached_property
    def followers_of(self) -> Mapping[int, tuple[int, ...]]:
        """By shard in use, the hosts that follow it."""
        found: dict[int, list[int]] = {}
        for host in range(self.hosts):
            for shard in self.held_neighbors(host):
                found.setdefault(shard, []).append(host)
        return {shard: tuple(hosts) for shard, hosts in sorted(found.items())}


def host_id(host: int) -> str:
    return f"h{host}"


def port_id(host: int, port: int) -> str:
    return f"h{host}-p{port}"


def neighbor_ip(number: int) -> bytes:
    return (_BASE + number).to_bytes(4, "big")


def shard_slice(shard: int) -> str:
    return neighbor_slice(VPC, neighbor_ip(shard * SHARD))


def mac_of(number: int) -> bytes:
    return b"\x06\x00" + number.to_bytes(4, "big")


def tunnel_ip(host: int) -> bytes:
    return (_TUNNELS + host % MAX_HOSTS).to_bytes(4, "big")


def neighbor(region: Region, number: int, *, host: int | None = None) -> Neighbor:
    """A neighbor's record, on the host where it begins or on another one."""
    home = number // region.ports_per_host
    return Neighbor(
        ip=neighbor_ip(number),
        mac=mac_of(number),
        subnet=SUBNET,
        port=port_id(home, number % region.ports_per_host),
        host=tunnel_ip(home if host is None else host),
        groups=(COMMON, region.group_of(home)),
    )
