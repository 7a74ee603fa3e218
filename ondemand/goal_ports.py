"""Ports of a goal state, checked, as values with addresses in bytes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ondemand.addresses import format_mac, parse_ip, parse_prefix
from ondemand.goal_model import PairInput, PortInput
from ondemand.goal_problems import Problems
from ondemand.goal_topology import Host, is_usable, prefix_of, read_mac, shown
from ondemand.records import AddressPair, Subnet


@dataclass(frozen=True, slots=True)
class PortSpec:
    """A port whose references all lead somewhere."""

    id: str
    host: Host
    subnet: Subnet
    mac: bytes
    fixed_ips: tuple[bytes, ...]
    groups: tuple[str, ...]
    pairs: tuple[AddressPair, ...]
    port_security: bool


@dataclass(slots=True)
class _Taken:
    """What the ports of one VPC hold so far, and where they are."""

    ips: dict[bytes, str] = field(default_factory=dict)
    macs: dict[tuple[str, bytes], str] = field(default_factory=dict)


def check_ports(
    placed: list[tuple[str, PortInput]],
    *,
    hosts: Mapping[str, Host],
    subnets: Mapping[str, Subnet],
    groups: Collection[str],
    taken_ids: dict[str, str],
    problems: Problems,
) -> list[PortSpec]:
    """The ports of one VPC. ``taken_ids``: port ids of all VPCs so far, and where they are."""
    ports = []
    taken = _Taken()
    for place, given in placed:
        problems.is_first(taken_ids, given.id, place, f"port id {given.id!r}")
        problems.is_known(f"{place}: host", "host", given.host, hosts)
        problems.is_known(f"{place}: subnet", "subnet", given.subnet, subnets)
        host, subnet = hosts.get(given.host), subnets.get(given.subnet)
        mac = _check_mac(place, given, subnet, taken, problems)
        ips = _check_fixed_ips(place, given, subnet, taken, problems)
        _check_groups(place, given, groups, problems)
        pairs = _check_pairs(place, given, mac, problems)
        if host is not None and subnet is not None and mac is not None:
            ports.append(
                PortSpec(
                    id=given.id,
                    host=host,
                    subnet=subnet,
                    mac=mac,
                    fixed_ips=ips,
                    groups=tuple(sorted(given.security_groups)),
                    pairs=pairs,
                    port_security=given.port_security,
                )
            )
    return ports


def _check_mac(
    place: str, given: PortInput, subnet: Subnet | None, taken: _Taken, problems: Problems
) -> bytes | None:
    mac = read_mac(given.mac, f"{place}: mac", problems)
    if mac is None:
        return None
    problems.is_first(
        taken.macs, (given.subnet, mac), place, f"mac {given.mac} in subnet {given.subnet!r}"
    )
    if subnet is not None and mac == subnet.gateway_mac:
        problems.add(place, f"mac {given.mac} is the gateway's MAC in subnet {subnet.id!r}")
    return mac


def _check_fixed_ips(
    place: str, given: PortInput, subnet: Subnet | None, taken: _Taken, problems: Problems
) -> tuple[bytes, ...]:
    ips = []
    for number, text in enumerate(given.fixed_ips):
        where = f"{place}: fixed_ips[{number}]"
        ip = problems.parse(where, parse_ip, text)
        if ip is None:
            continue
        ips.append(ip)
        problems.is_first(taken.ips, ip, where, f"address {text}")
        if subnet is None:
            continue
        prefix = prefix_of(ip, subnet.prefixes)
        if prefix is None:
            problems.add(where, shown(ip, subnet))
        elif not is_usable(ip, prefix):
            problems.add(where, f"{text} is the network or broadcast address of {prefix}")
        elif ip in subnet.gateways:
            problems.add(where, f"{text} is the gateway of subnet {subnet.id!r}")
    return tuple(ips)


def _check_groups(
    place: str, given: PortInput, groups: Collection[str], problems: Problems
) -> None:
    if given.security_groups and not given.port_security:
        problems.add(
            place,
            "a port without port security has no security groups: remove security_groups, or"
            " 'port_security: false'",
        )
    seen: dict[str, str] = {}
    for number, group in enumerate(given.security_groups):
        where = f"{place}: security_groups[{number}]"
        if problems.is_first(seen, group, where, f"security group {group!r}"):
            problems.is_known(where, "security group", group, groups)


def _check_pairs(
    place: str, given: PortInput, own_mac: bytes | None, problems: Problems
) -> tuple[AddressPair, ...]:
    if not given.allowed_address_pairs:
        return ()
    if not given.port_security:
        problems.add(
            place,
            "a port without port security may send from any address: remove"
            " allowed_address_pairs, or 'port_security: false'",
        )
    pairs: dict[AddressPair, str] = {}
    path = f"{place}.allowed_address_pairs"
    for where, pair in problems.read("pair", PairInput, given.allowed_address_pairs, path):
        prefix = problems.parse(f"{where}: ip", parse_prefix, pair.ip)
        mac = own_mac if pair.mac is None else read_mac(pair.mac, f"{where}: mac", problems)
        if prefix is not None and mac is not None:
            what = f"the pair {prefix} with {format_mac(mac)}"
            problems.is_first(pairs, AddressPair(prefix, mac), where, what)
    return tuple(pairs)
