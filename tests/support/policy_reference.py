"""What security groups and addresses mean, written down as plainly as it can be.

This reads what was published and nothing that the agent makes of it: every question scans all rules and
all ports. The meaning is Neutron's. Security groups only allow; what no rule allows is denied, in both
directions. A rule names direction, family, protocol, destination ports or ICMP type and code, and as
the remote end anybody, a prefix, or the members of a group. The agent's decisions are compared with
this by random search.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from ondemand.addresses import Prefix
from ondemand.goal_compile import CheckedVpc
from ondemand.goal_ports import PortSpec
from ondemand.records import Direction, SecurityRule

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

TCP, UDP, SCTP = 6, 17, 132
#: The ICMP of each family.
ICMP_OF = {4: 1, 6: 58}


@dataclass(frozen=True, slots=True)
class Connection:
    """Who talks to whom, as seen from a port: ``egress`` when the port begins.

    ``source`` and ``target`` are the ports of TCP, UDP and SCTP in the connection's first packet,
    ``icmp_type`` and ``icmp_code`` are of ICMP; None where the protocol has none.
    """

    egress: bool
    remote: Address
    protocol: int
    source: int | None = None
    target: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None


@dataclass(frozen=True, slots=True)
class Holding:
    """Who has an address: the port to reach it at, the MAC to reach it with, and its groups."""

    port: PortSpec
    mac: bytes
    groups: frozenset[str]
    #: Ids of the ports that claim it most narrowly; none when it is somebody's fixed IP.
    sharers: frozenset[str]


def address(ip: bytes) -> Address:
    return ipaddress.ip_address(ip)


def network(prefix: Prefix) -> Network:
    return ipaddress.ip_network((prefix.network, prefix.length))


def is_in(ip: Address, net: Network) -> bool:
    return ip.version == net.version and ip in net


def is_allowed(vpc: CheckedVpc, port: PortSpec, connection: Connection) -> bool:
    """May ``port`` begin, or receive, this connection?"""
    if not port.port_security:
        return True
    if not connection.egress and connection.remote.packed in port.fixed_ips:
        return False  # nobody else has that address
    dhcp = _dhcp(connection)
    if dhcp is not None:
        return dhcp
    rules = [rule for group, rules in vpc.groups if group.id in port.groups for rule in rules]
    return any(_matches(vpc, rule, connection) for rule in rules)


def _dhcp(connection: Connection) -> bool | None:
    """A port may always be a DHCP client, and never a DHCP server, whatever its groups say."""
    if connection.protocol != UDP:
        return None
    client, server = (68, 67) if connection.remote.version == 4 else (546, 547)
    to_server = (connection.source, connection.target) == (client, server)
    to_client = (connection.source, connection.target) == (server, client)
    if to_server and connection.egress:
        return True
    if to_client:
        return not connection.egress
    return None


def _matches(vpc: CheckedVpc, rule: SecurityRule, connection: Connection) -> bool:
    return (
        (rule.direction == Direction.EGRESS) == connection.egress
        and rule.family == connection.remote.version
        and rule.protocol in (-1, connection.protocol)
        and _matches_ports(rule, connection)
        and _matches_remote(vpc, rule, connection.remote)
    )


def _matches_ports(rule: SecurityRule, connection: Connection) -> bool:
    if rule.protocol == -1:
        return True
    if rule.protocol in (TCP, UDP, SCTP):
        if rule.port_min == -1:
            return True
        return connection.target is not None and connection.target in range(
            rule.port_min, rule.port_max + 1
        )
    if rule.protocol == ICMP_OF[rule.family]:
        is_type = rule.port_min in (-1, connection.icmp_type)
        is_code = rule.port_max in (-1, connection.icmp_code)
        return is_type and is_code
    return True


def _matches_remote(vpc: CheckedVpc, rule: SecurityRule, remote: Address) -> bool:
    if rule.remote_group is not None:
        holding = holding_of(vpc, remote)
        return holding is not None and rule.remote_group in holding.groups
    return rule.remote_prefix is None or is_in(remote, network(rule.remote_prefix))


def holding_of(vpc: CheckedVpc, ip: Address) -> Holding | None:
    """Who has an address of this VPC.

    The port whose fixed IP it is has it, and its groups are that port's. Only an address that is
    nobody's fixed IP can be claimed by allowed address pairs, and a pair claims nothing outside its
    port's own subnet. It has the groups of all ports that claim it, and is reached at the narrowest
    claim; some may be equally narrow, as with a virtual IP that several ports share.
    """
    for port in vpc.ports:
        if ip in map(address, port.fixed_ips):
            return Holding(port, port.mac, frozenset(port.groups), sharers=frozenset())
    claims = list(_claims(vpc.ports, ip))
    if not claims:
        return None
    narrowest = max(length for length, _, _, _ in claims)
    alike = [claim for claim in claims if claim[0] == narrowest]
    _, _, mac, first = min(alike, key=lambda claim: claim[1:3])
    groups = frozenset(group for _, _, _, port in claims for group in port.groups)
    return Holding(first, mac, groups, sharers=frozenset(port.id for _, _, _, port in alike))


def _claims(ports: Sequence[PortSpec], ip: Address) -> list[tuple[int, str, bytes, PortSpec]]:
    """(length of the claimed prefix, port id, MAC, port) of each pair that claims ``ip``."""
    claims = []
    for port in ports:
        own = [net for net in map(network, port.subnet.prefixes) if is_in(ip, net)]
        for pair in port.pairs:
            net = network(pair.prefix)
            if own and is_in(ip, net):
                # What a pair of 0.0.0.0/0 claims is the subnet, no less narrow than any other
                # claim of the whole subnet.
                length = max(net.prefixlen, own[0].prefixlen)
                claims.append((length, port.id, pair.mac, port))
    return claims
