"""From a checked VPC to the records of its slices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ondemand.addresses import Prefix
from ondemand.goal_ports import PortSpec
from ondemand.goal_topology import Host
from ondemand.records import (
    Claim,
    Group,
    HostGroup,
    MacPointer,
    Neighbor,
    Port,
    Record,
    Route,
    Router,
    SecurityRule,
    Subnet,
)
from ondemand.slices import (
    group_slice,
    host_group_slice,
    host_slice,
    mac_slice,
    neighbor_slice,
    vpc_slice,
)

#: The records of each slice, by slice name and key.
Slices = dict[str, dict[str, Record]]


@dataclass(frozen=True, slots=True)
class CheckedVpc:
    """A VPC that is sound."""

    id: str
    subnets: Sequence[Subnet]
    routers: Sequence[Router]
    routes: Sequence[Route]
    groups: Sequence[tuple[Group, Sequence[SecurityRule]]]
    ports: Sequence[PortSpec]


def compile_vpc(vpc: CheckedVpc, slices: Slices) -> None:
    """Add the records of a VPC to ``slices``."""
    own = slices.setdefault(vpc_slice(vpc.id), {})
    _add(own, [*vpc.subnets, *vpc.routers, *vpc.routes])
    for group, rules in vpc.groups:
        _add(slices.setdefault(group_slice(group.id), {}), [group, *rules])
    for port in vpc.ports:
        add_host(port.host, slices)
        shared = port.host.group
        place = host_slice(port.host.id) if shared is None else host_group_slice(shared)
        _add(slices.setdefault(place, {}), [_port(vpc.id, port)])
        for neighbor in _neighbors(port):
            name = neighbor_slice(vpc.id, neighbor.ip)
            slices.setdefault(name, {})[neighbor.key] = neighbor
        _add(own, _claims(port))
    for pointer in _mac_pointers(vpc.ports):
        slices.setdefault(mac_slice(vpc.id, pointer.mac), {})[pointer.key] = pointer


def add_host(host: Host, slices: Slices) -> None:
    """Add the slice of a host; ports of a host with a group are in the group's slice, once for all of
    its hosts, and the host's slice names the group.
    """
    own = slices.setdefault(host_slice(host.id), {})
    if host.group is not None:
        _add(own, [HostGroup(host.group, host.tunnel)])
        slices.setdefault(host_group_slice(host.group), {})


def _add(records: dict[str, Record], new: Iterable[Record]) -> None:
    for record in new:
        records[record.key] = record


def _port(vpc: str, port: PortSpec) -> Port:
    return Port(
        id=port.id,
        mac=port.mac,
        vpc=vpc,
        subnet=port.subnet.id,
        fixed_ips=port.fixed_ips,
        groups=port.groups,
        pairs=port.pairs,
        port_security=port.port_security,
    )


def _neighbors(port: PortSpec) -> Iterator[Neighbor]:
    for ip in port.fixed_ips:
        yield Neighbor(
            ip=ip,
            mac=port.mac,
            subnet=port.subnet.id,
            port=port.id,
            host=port.host.tunnel,
            groups=port.groups,
        )


def _claims(port: PortSpec) -> Iterator[Claim]:
    """A pair counts only inside the port's own subnet, so that a pair of 0.0.0.0/0, which lets a VM
    send from anywhere, makes no stranger a member of its groups.
    """
    for pair in port.pairs:
        for prefix in port.subnet.prefixes:
            clipped = _common(pair.prefix, prefix)
            if clipped is not None:
                yield Claim(
                    prefix=clipped,
                    mac=pair.mac,
                    subnet=port.subnet.id,
                    port=port.id,
                    host=port.host.tunnel,
                    groups=port.groups,
                )


def _common(one: Prefix, other: Prefix) -> Prefix | None:
    """The addresses that both hold: prefixes nest or are disjoint."""
    longer, shorter = (one, other) if one.length >= other.length else (other, one)
    return longer if shorter.contains(longer.network) else None


def _mac_pointers(ports: Sequence[PortSpec]) -> list[MacPointer]:
    """Where frames go whose IP address is nobody's fixed IP.

    A MAC that several ports may use belongs to the port whose own it is, else to the one with the
    first id: which of them is active only they know.
    """
    owners = {(port.subnet.id, port.mac): port for port in ports}
    holders: dict[tuple[str, bytes], PortSpec] = {}
    for port in sorted(ports, key=lambda port: port.id):
        if not port.pairs and port.port_security:
            continue
        for mac in sorted({port.mac, *(pair.mac for pair in port.pairs)}):
            at = (port.subnet.id, mac)
            holders.setdefault(at, owners.get(at, port))
    return [
        MacPointer(mac=mac, subnet=subnet, port=port.id, host=port.host.tunnel)
        for (subnet, mac), port in holders.items()
    ]
