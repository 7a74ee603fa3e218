"""Neighbors by the hundred thousand, for demos and measurements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ondemand.addresses import Prefix
from ondemand.goal_compile import Slices
from ondemand.records import Neighbor
from ondemand.slices import neighbor_slice


def synthetic_neighbors(
    *,
    subnet: str,
    prefix: Prefix,
    count: int,
    hosts: Sequence[bytes],
    groups: tuple[str, ...] = (),
    first: int = 1,
) -> Iterator[Neighbor]:
    """``count`` neighbors on consecutive addresses of ``prefix``, spread over ``hosts`` in turn.

    Args:
        subnet: the subnet that the neighbors are in.
        prefix: a prefix of that subnet.
        count: how many.
        hosts: tunnel addresses (4 or 16 bytes) of the hosts.
        groups: security groups of all of them.
        first: the host part of the first address; 0 is the network's own address.

    Raises:
        ValueError: the prefix has fewer addresses.
    """
    bits = len(prefix.network) * 8
    if first + count > 1 << (bits - prefix.length):
        raise ValueError(f"{prefix} has no room for {count} addresses from number {first} on")
    base = int.from_bytes(prefix.network, "big")
    for number in range(first, first + count):
        yield Neighbor(
            ip=(base + number).to_bytes(bits // 8, "big"),
            # 06 marks the MAC as locally administered, and keeps it apart from gateway MACs (02).
            mac=b"\x06" + (number & 0xFF_FFFF_FFFF).to_bytes(5, "big"),
            subnet=subnet,
            port=f"synthetic-{number}",
            host=hosts[number % len(hosts)],
            groups=groups,
        )


def neighbor_slices(vpc: str, neighbors: Iterable[Neighbor]) -> Slices:
    """The neighbors of a VPC in their slices."""
    slices: Slices = {}
    for neighbor in neighbors:
        slices.setdefault(neighbor_slice(vpc, neighbor.ip), {})[neighbor.key] = neighbor
    return slices
